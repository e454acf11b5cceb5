"""When an upstream is left alone, and when it is asked again: one breaker's states as a table.

Laws
- Closed asks, open does not, half-open asks once: whoever asks first after the pause is the probe.
  A probe that takes long is joined by another now and then: it may be writing a long answer.
- A result counts only in the state it was asked in: what comes late from before a pause, or from
  beside a probe, changes nothing, but for a wait that the upstream itself has told.
- A told wait (Retry-After, RFC 9110 §10.2.3) is kept to the end; any other pause may be cut short
  by a probe when there is nobody else to ask.

Time is a parameter, on any clock that never goes back.
"""

from collections import deque
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

FAILURES_IN_A_ROW_MAX: Final = 5
RESULTS_MAX: Final = 50  # of which the failed ones are counted …
RESULTS_MIN: Final = 20  # … once there are so many
FAILED_PERCENT_MAX: Final = 50
WINDOW_S: Final = 60.0
PAUSE_FIRST_S: Final = 5.0  # doubled by each probe that fails
PAUSE_MAX_S: Final = 60.0
PROBES_APART_S: Final = 5.0
TOLD_MAX_S: Final = 300.0  # an upstream may not send itself away for longer


class State(StrEnum):
    """Where a breaker is."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Event(StrEnum):
    """What moves it."""

    TRIP = "trip"  # too many failures, a failed probe, or a told wait
    PROBE = "probe"
    HEAL = "heal"  # the probe succeeded
    LET_GO = "let_go"  # the probe ended without a result


MOVES: Final[Mapping[State, Mapping[Event, State]]] = {
    State.CLOSED: {Event.TRIP: State.OPEN},
    State.OPEN: {Event.TRIP: State.OPEN, Event.PROBE: State.HALF_OPEN},
    State.HALF_OPEN: {
        Event.TRIP: State.OPEN,
        Event.HEAL: State.CLOSED,
        Event.LET_GO: State.OPEN,
    },
}


class Breaker:
    """One upstream's breaker. `enter` gives a ticket, with which the result is told.

    `open_until_s` is when the pause ends, or ended; `failures` counts those in a row.
    """

    def __init__(self) -> None:
        """Closed."""
        self.state = State.CLOSED
        self.open_until_s: float = 0
        self.failures = 0
        self._ticket = 0
        self._trips = 0
        self._was_told = False
        self._probed_at_s: float = 0
        self._results: deque[tuple[float, bool]] = deque(maxlen=RESULTS_MAX)

    def admits(self, now_s: float) -> bool:
        """Whether it may be asked now, as a probe if it was open."""
        if self.state is State.CLOSED:
            return True
        if self.state is State.OPEN:
            return now_s >= self.open_until_s
        return now_s >= self._probed_at_s + PROBES_APART_S

    def may_be_forced(self, now_s: float) -> bool:
        """Whether a probe may come before the pause is over, because nobody else is left."""
        return self.state is State.OPEN and not (self._was_told and now_s < self.open_until_s)

    def enter(self, now_s: float) -> int:
        """Ask it: the ticket to tell the result with. Call only if it admits or may be forced."""
        if self.state is State.OPEN:
            self._move(Event.PROBE)
        self._probed_at_s = now_s
        return self._ticket

    def succeeded(self, ticket: int, now_s: float) -> int:
        """It answered; gives the ticket for what may still go wrong with the same answer."""
        if ticket != self._ticket:
            return ticket
        if self.state is State.HALF_OPEN:
            self._move(Event.HEAL)
            self._trips = 0
            self._results.clear()
        self.failures = 0
        self._results.append((now_s, False))
        return self._ticket

    def failed(
        self,
        ticket: int,
        now_s: float,
        *,
        told_wait_s: float | None = None,
        is_final: bool = False,
    ) -> None:
        """It failed; `is_final` opens at once, a told wait until it is over."""
        if told_wait_s is not None:
            until_s = now_s + min(told_wait_s, TOLD_MAX_S)
            self.failures += 1
            self._open(max(until_s, self.open_until_s), was_told=True)
            return
        if ticket != self._ticket:
            return
        self.failures += 1
        self._results.append((now_s, True))
        if is_final or self.state is State.HALF_OPEN or self._has_failed_too_often(now_s):
            self._trips += 1
            pause_s = min(PAUSE_FIRST_S * 2 ** (self._trips - 1), PAUSE_MAX_S)
            self._open(now_s + pause_s, was_told=False)

    def let_go(self, ticket: int) -> None:
        """No result will come: the next one may probe."""
        if ticket == self._ticket and self.state is State.HALF_OPEN:
            self._move(Event.LET_GO)

    def _has_failed_too_often(self, now_s: float) -> bool:
        if self.failures >= FAILURES_IN_A_ROW_MAX:
            return True
        recent = [failed for at_s, failed in self._results if at_s > now_s - WINDOW_S]
        return len(recent) >= RESULTS_MIN and sum(recent) * 100 >= FAILED_PERCENT_MAX * len(recent)

    def _open(self, until_s: float, *, was_told: bool) -> None:
        self._move(Event.TRIP)
        self.open_until_s = until_s
        self._was_told = was_told
        self._results.clear()

    def _move(self, event: Event) -> None:
        self.state = MOVES[self.state][event]
        self._ticket += 1
