"""What is free for the client and costs the node, counted in sliding windows."""

from collections.abc import Callable, Sequence

from routstr.errors import RateLimited


class Ration:
    """Something that costs the node and is free, rationed: a count in a sliding window."""

    message = "Too many requests."

    def __init__(self, *, events_max: int, window_s: float, now_s: Callable[[], float]) -> None:
        """`now_s` is a monotonic clock."""
        self._events_max = events_max
        self._window_s = window_s
        self._now_s = now_s
        self._events: dict[str, list[float]] = {}

    def allow(self, events_max: int, *, window_s: float) -> None:
        """From now on so many within so long."""
        self._events_max, self._window_s = events_max, window_s

    def note(self, key: str) -> None:
        """One more."""
        self._events[key] = [*self._recent(key), self._now_s()]

    def put(self, key: str, ages_s: Sequence[float]) -> None:
        """These, so old, are all there were, unless more were noted since they were looked for."""
        now_s = self._now_s()
        if len(ages_s) >= len(self._recent(key)):
            self._events[key] = sorted(now_s - age_s for age_s in ages_s)

    def check(self, key: str) -> None:
        """Raises RateLimited when the ration is used up."""
        recent = self._recent(key)
        if len(recent) >= self._events_max:
            wait_s = int(recent[0] + self._window_s - self._now_s()) + 1
            raise RateLimited(self.message, retry_after_s=wait_s)

    def _recent(self, key: str) -> list[float]:
        oldest_s = self._now_s() - self._window_s
        recent = [at_s for at_s in self._events.get(key, ()) if at_s > oldest_s]
        if recent:
            self._events[key] = recent
        else:
            self._events.pop(key, None)
        return recent


class EarlyLeaves(Ration):
    """Free early leaves per key (guarantees, section 2)."""

    message = "Too many requests were abandoned before their first byte."


class Misses(Ration):
    """Questions for what does not exist (contract, section 5)."""

    message = "Too many requests for what is not there."
