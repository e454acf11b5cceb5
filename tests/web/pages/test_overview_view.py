"""What the first page says of a bad day: each state in a word, every template whole."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from routstr.core.breaker import State
from routstr.flows.house.overview import MintHealth, Money, Need, Overview
from routstr.flows.house.usage import Point, Usage
from routstr.gateways.pool import UpstreamHealth
from routstr.ledger.usage import Sums
from routstr.web.pages.kit import rendered
from routstr.web.pages.overview_view import PARTS, figures, mints, shown, upstreams

NOW = datetime(2026, 1, 2, 3, 4, 30, tzinfo=UTC)
NOTHING = Point(
    at=NOW - timedelta(minutes=3, seconds=30),
    failed=0,
    sums=Sums(),
    ms_p50=None,
    ms_p99=None,
    first_ms_p50=None,
    first_ms_p99=None,
    added_us_p50=None,
    added_us_p99=None,
)
BUSY = replace(
    NOTHING,
    at=NOW - timedelta(minutes=2, seconds=30),
    failed=1,
    sums=Sums(requests=3_000, charged_msat=1_234_567_890),
    added_us_p50=1_812,
    added_us_p99=7_400,
)
UPSTREAM = UpstreamHealth(
    id="u1",
    slug="openrouter",
    state=State.CLOSED,
    paused_models=(),
    failures=0,
    last_failure=None,
    last_failure_age_s=None,
    latency_s=0.2504,
    open_for_s=0,
    running=2,
)
MINT = MintHealth(
    url="https://mint.example.com/Bitcoin",
    name=None,
    is_allowed=True,
    is_silent=False,
    answered_at=NOW - timedelta(minutes=5),
    open_operations=0,
    held_msat=21_000_000_000_000_001,
)


def usage_of(*points: Point) -> Usage:
    return Usage(
        since=NOW - timedelta(hours=1),
        until=NOW,
        step_s=60,
        total=replace(BUSY if BUSY in points else NOTHING, at=NOW),
        points=points,
        by_model=(),
        by_upstream=(),
        by_outcome=(),
    )


def overview_of(usage: Usage, **more: object) -> Overview:
    money = Money(
        wallet_msat=-1,
        users_msat=10**18,
        in_flight_msat=0,
        yours_msat=-(10**18) - 1,
        takeable_msat=0,
        taken_msat=0,
        locked_msat=0,
        issued_msat=0,
        held_msat=0,
        held_msat_max=0,
        running=0,
    )
    seen = Overview(now=NOW, money=money, usage=usage, needs=(), upstreams=(), mints=())
    return replace(seen, **more)  # type: ignore[arg-type]  # whatever the test has to say


def test_charts_leave_out_what_nobody_knows() -> None:
    going_on = replace(BUSY, at=NOW - timedelta(seconds=30))
    rate, revenue, added, errors = figures(usage_of(NOTHING, BUSY, going_on), "1h").charts
    assert rate.data["series"] == [{"name": "Requests", "values": [0, 3000, None]}]
    assert revenue.data["series"] == [{"name": "Revenue", "values": [0, 1234567.89, 1234567.89]}]
    assert added.now == "1.8 / 7.4"
    assert errors.data["series"] == [{"name": "Failed", "values": [None, 0.03, 0.03]}]
    assert (rate.now, revenue.now, errors.now) == ("50", "1\u2009234\u2009567", "0.03")


@pytest.mark.parametrize(
    ("changed", "kind", "word"),
    [
        ({}, "ok", "answering"),
        ({"latency_s": None}, "off", "not asked yet"),
        ({"state": State.OPEN, "open_for_s": 29.5}, "bad", "paused for 30 s"),
        ({"state": State.HALF_OPEN}, "busy", "being tried"),
        ({"failures": 1}, "wait", "failing"),
    ],
)
def test_an_upstream_is_told_in_a_word(changed: dict[str, object], kind: str, word: str) -> None:
    upstream = replace(UPSTREAM, **changed)  # type: ignore[arg-type]  # fields of its own
    [said] = upstreams(overview_of(usage_of(), upstreams=(upstream,)))
    assert (said.kind, said.word) == (kind, word)


@pytest.mark.parametrize(
    ("changed", "kind", "word"),
    [
        ({}, "ok", "answering"),
        ({"is_silent": True}, "bad", "silent"),
        ({"is_silent": True, "answered_at": None}, "wait", "never answered yet"),
        ({"is_allowed": False, "is_silent": True}, "off", "not accepted"),
    ],
)
def test_a_mint_is_told_in_a_word(changed: dict[str, object], kind: str, word: str) -> None:
    mint = replace(MINT, **changed)  # type: ignore[arg-type]  # fields of its own
    [said] = mints(overview_of(usage_of(), mints=(mint,)))
    assert (said.kind, said.word, said.name) == (kind, word, "mint.example.com/Bitcoin")


def test_every_part_is_whole_on_an_empty_node_and_on_a_bad_day() -> None:
    needs = (
        Need(kind="invariant_broken", text="<b>Broken</b>", link="/admin/audit", urgency="now"),
        Need(kind="switch_off", text="Off.", link="/admin/settings", urgency="now"),
        Need(kind="backup_old", text="Old.", link="/admin/backups", urgency="soon"),
    )
    paused = replace(UPSTREAM, last_failure="timeout", last_failure_age_s=7.0, paused_models=("m",))
    bad = overview_of(
        usage_of(NOTHING, BUSY),
        needs=needs,
        upstreams=(paused,),
        mints=(replace(MINT, open_operations=3),),
    )
    for seen in (overview_of(usage_of()), bad):
        for name in PARTS:
            assert f'id="{name}"' in rendered(f"admin/overview/{name}.html", **shown(seen, "1h"))
    said = rendered("admin/overview/warnings.html", **shown(bad, "1h"))
    assert "&lt;b&gt;Broken" in said
    assert "Old." not in said
