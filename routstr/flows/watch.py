"""How long one request took, and how much of that was the node's own doing.

What the node adds is what passes before the first upstream is asked, and after the last thing an
upstream said; in between the node waits or passes bytes on as they come.
"""

from collections.abc import Callable
from dataclasses import dataclass

_MS_PER_S = 1_000
_US_PER_S = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """A request's times until now: `first_ms` to its first byte, None if that is the whole of it.

    `added_us` is None of one that asked nobody.
    """

    total_ms: int
    first_ms: int | None
    added_us: int | None

    def row(self) -> dict[str, int]:
        """What its `usage` row says of them."""
        said = {"ms": self.total_ms, "first_ms": self.first_ms, "added_us": self.added_us}
        return {name: value for name, value in said.items() if value is not None}


class Watch:
    """A stopwatch that runs from the moment it is made, on a clock that never goes back."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        """Now it begins."""
        self._now_s = now_s
        self._begun_s = now_s()
        self._asked_s: float | None = None
        self._heard_s: float | None = None
        self._first_s: float | None = None

    def asked(self) -> None:
        """An upstream is asked; only the first time counts."""
        if self._asked_s is None:
            self._asked_s = self._now_s()

    def heard(self) -> None:
        """An upstream said something, or fell silent for good; the last time counts."""
        self._heard_s = self._now_s()

    def began_to_answer(self) -> None:
        """The client was given its first byte; only the first time counts."""
        if self._first_s is None:
            self._first_s = self._now_s()

    def times(self) -> Times:
        """Until now."""
        now_s, first_s = self._now_s(), self._first_s
        return Times(
            total_ms=round((now_s - self._begun_s) * _MS_PER_S),
            first_ms=None if first_s is None else round((first_s - self._begun_s) * _MS_PER_S),
            added_us=self._added_us(now_s),
        )

    def _added_us(self, now_s: float) -> int | None:
        if self._asked_s is None:
            return None
        after_s = 0.0 if self._heard_s is None else now_s - self._heard_s
        return round((self._asked_s - self._begun_s + after_s) * _US_PER_S)
