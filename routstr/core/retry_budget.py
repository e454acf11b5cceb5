"""How many further attempts a node may make: at most a share of its requests.

Law: in any window the retries are at most `percent` of the requests, or `floor` if that is more. So
an upstream that is down is not buried under the repeats of everybody who asked it, and a node with
few customers can still fail over.
"""

from collections import deque
from typing import Final

PERCENT_MAX: Final = 10
FLOOR: Final = 10
WINDOW_S: Final = 60


class RetryBudget:
    """Counts requests and retries by the second; `now_s` is on a clock that never goes back."""

    def __init__(
        self, *, percent_max: int = PERCENT_MAX, floor: int = FLOOR, window_s: int = WINDOW_S
    ) -> None:
        """Nothing was asked yet."""
        self._percent_max = percent_max
        self._floor = floor
        self._window_s = window_s
        self._seconds: deque[list[int]] = deque()  # [second, requests, retries]
        self._requests = 0
        self._retries = 0

    def note_request(self, now_s: float) -> None:
        """One more request, which is no retry."""
        self._second(now_s)[1] += 1
        self._requests += 1

    def allows(self, now_s: float) -> bool:
        """Whether one more retry is within the budget."""
        self._forget(now_s)
        retries = self._retries + 1
        return retries <= self._floor or retries * 100 <= self._requests * self._percent_max

    def take(self, now_s: float) -> bool:
        """Make one more retry, if that is within the budget."""
        if not self.allows(now_s):
            return False
        self._second(now_s)[2] += 1
        self._retries += 1
        return True

    def _second(self, now_s: float) -> list[int]:
        self._forget(now_s)
        second = int(now_s)
        if not self._seconds or self._seconds[-1][0] != second:
            self._seconds.append([second, 0, 0])
        return self._seconds[-1]

    def _forget(self, now_s: float) -> None:
        while self._seconds and self._seconds[0][0] <= int(now_s) - self._window_s:
            _, requests, retries = self._seconds.popleft()
            self._requests -= requests
            self._retries -= retries
