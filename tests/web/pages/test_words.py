"""What people read of numbers."""

from datetime import UTC, datetime, timedelta

import pytest

from routstr.web.pages.words import ago, grouped, instant, lasting, sats, shortened

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("amount_msat", "said"),
    [
        (0, "0"),
        (1, "0.001"),
        (204, "0.204"),
        (-3_500, "-3.5"),
        (1_234_000, "1\u2009234"),
        (21_000_000_000_000_001, "21\u2009000\u2009000\u2009000\u2009000.001"),
    ],
)
def test_an_amount_is_told_in_sats_to_the_msat(amount_msat: int, said: str) -> None:
    assert sats(amount_msat) == said


def test_digits_stand_in_groups() -> None:
    assert grouped(1_000_000) == "1\u2009000\u2009000"
    assert grouped(999) == "999"


def test_a_long_id_keeps_its_ends() -> None:
    assert shortened("key_0123456789abcdef0123456789abcdef") == "key_012345…abcdef"
    assert shortened("key_short") == "key_short"


def test_times_are_told_in_one_unit() -> None:
    assert ago(None, NOW) == "never"
    assert ago(NOW - timedelta(seconds=61), NOW) == "1 min ago"
    assert ago(NOW + timedelta(days=3), NOW) == "in 3 d"
    assert lasting(59) == "59 s"
    assert instant(NOW) == "2026-01-02 03:04:05"
