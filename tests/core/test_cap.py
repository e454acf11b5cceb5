"""Periods of a cap, and minutes of a rate, on a calendar in UTC."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routstr.core.cap import RESETS, Cap, next_period, period_start
from routstr.core.quota import Quota, RateView, minute_of, rate_headers, seconds_left, tightest

NOON = datetime(2024, 2, 29, 12, 0, 20, 500_000, tzinfo=UTC)
TIMES = st.integers(1, 7 * 10**15).map(
    lambda us: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)
)


@pytest.mark.parametrize(
    ("reset", "start", "following"),
    [
        ("daily", "2024-02-29", "2024-03-01"),
        ("weekly", "2024-02-26", "2024-03-04"),
        ("monthly", "2024-02-01", "2024-03-01"),
    ],
)
def test_a_period(reset: str, start: str, following: str) -> None:
    assert period_start(NOON, reset) == datetime.fromisoformat(start).replace(tzinfo=UTC)
    assert next_period(NOON, reset) == datetime.fromisoformat(following).replace(tzinfo=UTC)


@given(now=TIMES, reset=st.sampled_from(RESETS))
def test_periods_follow_each_other_without_a_gap(now: datetime, reset: str) -> None:
    start, following = period_start(now, reset), next_period(now, reset)
    assert start <= now < following
    assert period_start(following, reset) == following
    assert period_start(following - timedelta(microseconds=1), reset) == start


def test_a_cap_counts_from_its_period() -> None:
    cap = Cap(limit_msat=1000, reset="daily", spent_msat=700, held_msat=100)
    today = cap.at(NOON)
    assert (cap.left_msat, today.used_msat, today.left_msat) == (200, 0, 900)
    assert today.at(NOON) is today
    assert today.at(NOON - timedelta(days=1)) is today
    for_ever = Cap(limit_msat=500, reset=None, spent_msat=700, held_msat=0)
    assert for_ever.at(NOON) is for_ever
    assert for_ever.left_msat == 0


@given(now=TIMES)
def test_a_minute_ends(now: datetime) -> None:
    left_s = seconds_left(now, minute_of(now))
    assert 1 <= left_s <= 60
    assert minute_of(now + timedelta(seconds=left_s)) == minute_of(now) + 1


def test_headers_name_only_the_limits_there_are() -> None:
    assert rate_headers(None, NOON) == {}
    view = RateView(
        minute=minute_of(NOON), requests=tightest([(0, 9), (5, 4), (3, 0)]), tokens=None
    )
    assert view.requests == Quota(limit=5, remaining=1)
    assert view.after_one().after_one().requests == Quota(limit=5, remaining=0)
    assert rate_headers(view, NOON) == {
        "x-ratelimit-limit-requests": "5",
        "x-ratelimit-remaining-requests": "1",
        "x-ratelimit-reset-requests": "40s",
    }
    assert RateView(minute=0, requests=None, tokens=None).after_one().tokens is None
