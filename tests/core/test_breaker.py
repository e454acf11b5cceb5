"""When an upstream is left alone and asked again, and how often a node may repeat itself."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routstr.core.breaker import (
    FAILURES_IN_A_ROW_MAX,
    PAUSE_FIRST_S,
    PAUSE_MAX_S,
    PROBES_APART_S,
    RESULTS_MIN,
    TOLD_MAX_S,
    Breaker,
    State,
)
from routstr.core.retry_budget import RetryBudget


def opened(at_s: float = 0) -> Breaker:
    breaker = Breaker()
    for _ in range(FAILURES_IN_A_ROW_MAX):
        assert breaker.admits(at_s)
        breaker.failed(breaker.enter(at_s), at_s)
    return breaker


def test_failures_in_a_row_open_it_and_one_probe_closes_it() -> None:
    breaker = opened()
    assert not breaker.admits(PAUSE_FIRST_S - 1)
    assert breaker.admits(PAUSE_FIRST_S)
    probe = breaker.enter(PAUSE_FIRST_S)
    assert breaker.state is State.HALF_OPEN
    late_s = PAUSE_FIRST_S + PROBES_APART_S
    assert not breaker.admits(late_s - 1), "one probe at a time"
    assert breaker.admits(late_s), "unless it takes long"
    assert breaker.enter(late_s) == probe
    assert not breaker.admits(late_s)
    breaker.succeeded(probe, PAUSE_FIRST_S)
    assert (breaker.state, breaker.failures) == (State.CLOSED, 0)


def test_a_success_in_between_starts_the_row_anew() -> None:
    breaker = Breaker()
    for _ in range(2):
        for _ in range(FAILURES_IN_A_ROW_MAX - 1):
            breaker.failed(breaker.enter(0), 0)
        breaker.succeeded(breaker.enter(0), 0)
    assert breaker.admits(0)


def test_half_of_many_results_opens_it_but_only_recent_ones_count() -> None:
    for apart_s, opens in ((0, True), (10, False)):
        breaker, now_s = Breaker(), 0
        for place in range(RESULTS_MIN):
            if place % 2:
                breaker.failed(breaker.enter(now_s), now_s)
            else:
                breaker.succeeded(breaker.enter(now_s), now_s)
            now_s += apart_s
        assert breaker.admits(now_s) is not opens


def test_each_failed_probe_doubles_the_pause_up_to_its_limit() -> None:
    breaker, now_s, pauses = opened(), 0.0, []
    for _ in range(6):
        pauses.append(breaker.open_until_s - now_s)
        now_s = breaker.open_until_s
        breaker.failed(breaker.enter(now_s), now_s)
    assert pauses == [5, 10, 20, 40, PAUSE_MAX_S, PAUSE_MAX_S]


def test_a_told_wait_is_kept_and_bounded_and_no_probe_is_forced_before() -> None:
    breaker = Breaker()
    breaker.failed(breaker.enter(0), 0, told_wait_s=30)
    assert not breaker.admits(29)
    assert not breaker.may_be_forced(29)
    assert breaker.admits(30)
    breaker.failed(breaker.enter(0), 30, told_wait_s=10**6)
    assert breaker.open_until_s == 30 + TOLD_MAX_S
    assert opened().may_be_forced(0), "our own pause may be cut short"


def test_what_is_final_opens_at_once() -> None:
    breaker = Breaker()
    breaker.failed(breaker.enter(0), 0, is_final=True)
    assert breaker.state is State.OPEN


def test_late_results_change_nothing() -> None:
    breaker = Breaker()
    early = breaker.enter(0)
    for _ in range(FAILURES_IN_A_ROW_MAX):
        breaker.failed(early, 0)
    breaker.succeeded(early, 1)
    states = [breaker.state]
    probe = breaker.enter(6)
    breaker.failed(early, 6)
    breaker.let_go(early)
    states.append(breaker.state)
    later = breaker.succeeded(probe, 6)
    breaker.failed(probe, 6, is_final=True)
    states.append(breaker.state)
    breaker.failed(later, 7, is_final=True)
    states.append(breaker.state)
    assert states == [State.OPEN, State.HALF_OPEN, State.CLOSED, State.OPEN]


def test_a_probe_that_is_let_go_leaves_its_place_to_the_next() -> None:
    breaker = opened()
    breaker.let_go(breaker.enter(0))
    assert breaker.state is State.OPEN
    assert breaker.admits(PAUSE_FIRST_S)


# ── the retry budget ──────────────────────────────────────────────────────────────────────────


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 20)), max_size=200))
def test_retries_never_exceed_their_share_of_the_window(steps: list[tuple[bool, int]]) -> None:
    budget, now_s = RetryBudget(floor=2, window_s=60), 0
    asked: list[int] = []
    repeated: list[int] = []
    for is_request, pause_s in steps:
        now_s += pause_s
        if is_request:
            budget.note_request(now_s)
            asked.append(now_s)
        elif budget.take(now_s):
            repeated.append(now_s)
            recent = [sum(at_s > now_s - 60 for at_s in each) for each in (asked, repeated)]
            assert recent[1] <= max(2, recent[0] / 10)


@pytest.mark.parametrize(("requests", "retries"), [(0, 2), (20, 2), (30, 3), (1_000, 100)])
def test_a_quiet_node_has_the_floor_and_a_busy_one_a_tenth(requests: int, retries: int) -> None:
    budget = RetryBudget(floor=2)
    for _ in range(requests):
        budget.note_request(5)
    assert sum(budget.take(6) for _ in range(requests + 10)) == retries
    assert not budget.allows(64)
    assert budget.allows(66), "the window has passed"
