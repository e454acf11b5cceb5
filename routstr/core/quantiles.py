"""Times as counts in fixed buckets: they add up over minutes, models and nodes, as medians do not.

Buckets are the same for every unit: bucket 0 is below 1, bucket n from BOUNDS[n - 1] up to below
BOUNDS[n], and the last has no end. A quantile is exact to the bucket and interpolated within it,
so it is at most half as much again as what was measured.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from routstr.core.money import ceil_div, floor_div

BOUNDS: Final = (
    *(1, 2, 3, 5, 7),
    *(step * 10**decade for decade in range(6) for step in (10, 15, 20, 30, 50, 70)),
)
PERMILLE: Final = 1000

Histogram = Mapping[int, int]
"""Counts by bucket; a bucket that is not there is empty."""


def added(histograms: Iterable[Histogram]) -> dict[int, int]:
    """The histogram of all that they counted."""
    total: dict[int, int] = {}
    for histogram in histograms:
        for bucket, count in histogram.items():
            total[bucket] = total.get(bucket, 0) + count
    return total


def quantile(histogram: Histogram, permille: int) -> int | None:
    """What so many thousandths of the values are at most; None of nothing."""
    count = sum(histogram.values())
    if count == 0:
        return None
    rank = max(1, ceil_div(count * permille, PERMILLE))
    for bucket in sorted(histogram):
        within = histogram[bucket]
        if rank <= within:
            low, high = _edges(bucket)
            return low + floor_div((high - low) * rank, within)
        rank -= within
    raise AssertionError("the ranks add up to the count")


def _edges(bucket: int) -> tuple[int, int]:
    low = BOUNDS[bucket - 1] if bucket else 0
    return low, BOUNDS[bucket] if bucket < len(BOUNDS) else low
