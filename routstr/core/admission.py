"""How many requests may wait for the node itself: as many as it serves within a bearable delay.

Laws: no more run at once than the system has connections for. Who waits for somebody else (an
upstream, a mint, another request) is not counted as waiting, so ten thousand slow streams refuse
nobody; who has a whole answer that is yet to be charged is counted again. `WAITING_MIN` may always
wait, so a node never closes. The limit follows what is measured: it shrinks while requests wait for
longer than they may, and grows while they wait for less than half of that and it is needed. As a
wait tells of the limit when it began, and the limit at most doubles meanwhile, growing never leads
to waiting for too long.
"""

from typing import Final

DELAY_S: Final = 1.0
WAITING_MIN: Final = 64
WAITING_MAX: Final = 4_096
WAITING_AT_FIRST: Final = 1_024
UNDER_WAY_MAX: Final = 16_384
SHRINK_BY: Final = 4  # a quarter at a time


class Admission:
    """Counts who waits; `now_s` is on a clock that never goes back.

    A request may wait for `delay_s`, or about that: the limit only follows.
    """

    def __init__(self, *, delay_s: float = DELAY_S, under_way_max: int = UNDER_WAY_MAX) -> None:
        """Nobody waits."""
        self._delay_s = delay_s
        self._under_way_max = under_way_max
        self.under_way = 0
        self._since_s: dict[str, float] = {}
        self._shrunk_at_s: float = 0
        self.limit = WAITING_AT_FIRST
        self.knocking = 0

    @property
    def waiting(self) -> int:
        """How many requests wait for the node, those included that were let in a moment ago."""
        return len(self._since_s) + self.knocking

    @property
    def is_full(self) -> bool:
        """Whether no other request may come in."""
        return (
            len(self._since_s) + self.knocking >= self.limit
            or self.under_way + self.knocking >= self._under_way_max
        )

    def knock(self) -> None:
        """One may come in that is not read yet: it is counted until `settle_in`, then by `enter`.

        So what arrives together is not let in together on the strength of the same free place.
        """
        self.knocking += 1

    def settle_in(self) -> None:
        """Whoever knocked is about to enter."""
        self.knocking = 0

    def begin(self) -> None:
        """A request is under way from now on, whoever it waits for, until `end`."""
        self.under_way += 1

    def end(self) -> None:
        """It is over."""
        self.under_way -= 1

    def enter(self, request_id: str, now_s: float) -> None:
        """It waits for the node from now on."""
        self._since_s[request_id] = now_s

    def leave(self, request_id: str, now_s: float) -> None:
        """It was served; once it left, leaving changes nothing."""
        since_s = self._since_s.pop(request_id, None)
        if since_s is None:
            return
        waited_s = now_s - since_s
        if waited_s > self._delay_s:
            self._shrink(now_s)
        elif 2 * waited_s < self._delay_s and 2 * len(self._since_s) >= self.limit:
            self.limit = min(WAITING_MAX, self.limit + 1)

    def forget(self, request_id: str) -> None:
        """It waits for somebody else, or came to nothing: that says nothing of the node."""
        self._since_s.pop(request_id, None)

    def _shrink(self, now_s: float) -> None:
        """Once in the time that a request may wait: the queue needs that long to become shorter."""
        if now_s - self._shrunk_at_s >= self._delay_s:
            self._shrunk_at_s = now_s
            self.limit = max(WAITING_MIN, self.limit - self.limit // SHRINK_BY)
