"""Counting how long things took, in buckets: exact integers, and cheap enough for every request."""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

# From a tenth of a millisecond to ten minutes, in microseconds.
DURATIONS_US: Final = (
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000, 30_000_000, 60_000_000, 300_000_000, 600_000_000,
)  # fmt: skip
SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Histogram:
    """Counts by upper bound; whatever is above the last bound is counted behind it."""

    def __init__(self, bounds: Sequence[int]) -> None:
        """Empty; `bounds` rise."""
        assert list(bounds) == sorted(set(bounds))
        self.bounds: Final = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0

    def note(self, value: int) -> None:
        """One more of that size."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(self.counts)

    def cumulative(self) -> list[tuple[int | None, int]]:
        """(bound, how many are at most that), the last one for all of them, bound None."""
        found, below = [], 0
        for bound, count in zip((*self.bounds, None), self.counts, strict=True):
            below += count
            found.append((bound, below))
        return found
