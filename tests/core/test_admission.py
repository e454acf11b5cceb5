"""Who may come in: a model of a node that serves at a rate, with several times as many arriving."""

from collections import deque
from typing import Final

import pytest

from routstr.core.admission import WAITING_MIN, Admission

DELAY_MS: Final = 500
MS_A_S: Final = 1_000


def serve(*, per_ms: int, arriving_per_ms: int, ms: int) -> tuple[Admission, list[int], list[int]]:
    """(the admission at the end, how long each that was served waited, how many each ms served).

    One millisecond is one turn of the node's loop.
    """
    admission = Admission(delay_s=DELAY_MS / MS_A_S)
    line: deque[tuple[str, int]] = deque()
    waits, served, number = [], [], 0
    for now in range(ms):
        for _ in range(arriving_per_ms):
            if not admission.is_full:
                admission.knock()
                number += 1
                line.append((str(number), now))
        fresh = [each for each in line if each[1] == now]
        admission.settle_in()
        for request_id, _ in fresh:
            admission.enter(request_id, now / MS_A_S)
        served.append(min(per_ms, len(line)))
        for _ in range(served[-1]):
            request_id, since = line.popleft()
            admission.leave(request_id, now / MS_A_S)
            waits.append(now - since)
    return admission, waits, served


@pytest.mark.parametrize("per_ms", [1, 2, 6])
def test_three_times_the_load_keeps_the_node_busy_and_the_wait_bearable(per_ms: int) -> None:
    admission, waits, served = serve(per_ms=per_ms, arriving_per_ms=3 * per_ms, ms=12_000)
    half = len(served) // 2
    assert min(served[half:]) == per_ms  # not a turn without work
    assert max(waits[len(waits) // 2 :]) <= DELAY_MS
    assert admission.waiting <= admission.limit


def test_half_of_what_it_can_do_refuses_nobody_and_moves_no_limit() -> None:
    admission, waits, _ = serve(per_ms=4, arriving_per_ms=2, ms=2_000)
    assert len(waits) == 2 * 2_000
    assert admission.limit == Admission().limit


def test_a_node_that_serves_nobody_never_closes_and_never_fills() -> None:
    admission = Admission(delay_s=1.0)
    for number in range(10_000):
        if not admission.is_full:
            admission.enter(str(number), 0.0)
    waiting = admission.waiting
    assert waiting == admission.limit < 10_000
    for number in range(waiting):
        admission.leave(str(number), 100.0 + number)  # each far too late
    assert admission.limit == WAITING_MIN
    assert not admission.is_full


def test_who_waits_for_somebody_else_is_not_counted() -> None:
    admission = Admission()
    for number in range(10_000):
        admission.enter(str(number), 0.0)
        admission.forget(str(number))
        admission.leave(str(number), 1_000.0)
    assert (admission.waiting, admission.limit) == (0, Admission().limit)


def test_no_more_run_at_once_than_there_are_connections_for() -> None:
    admission = Admission(under_way_max=2)
    admission.begin()
    admission.knock()
    assert admission.is_full
    admission.settle_in()
    admission.begin()
    assert admission.is_full
    admission.end()
    assert not admission.is_full


def test_what_arrives_together_is_counted_before_it_is_read() -> None:
    admission = Admission()
    while not admission.is_full:
        admission.knock()
    assert admission.waiting == admission.limit
    admission.settle_in()
    assert admission.waiting == 0
