"""Quantiles of counts in buckets: never further off than the bucket is wide."""

from bisect import bisect_right
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from routstr.core.quantiles import BOUNDS, added, quantile

VALUES = st.lists(st.integers(0, BOUNDS[-1] - 1), min_size=1, max_size=50)


def counted(values: list[int]) -> dict[int, int]:
    return dict(Counter(bisect_right(BOUNDS, value) for value in values))


@given(VALUES, st.integers(0, 1000))
def test_a_quantile_lies_in_the_bucket_of_the_value_meant(values: list[int], permille: int) -> None:
    meant = sorted(values)[max(1, -(-len(values) * permille // 1000)) - 1]
    bucket = bisect_right(BOUNDS, meant)
    found = quantile(counted(values), permille)
    assert found is not None
    assert (BOUNDS[bucket - 1] if bucket else 0) <= found <= BOUNDS[bucket]


@given(VALUES, VALUES)
def test_histograms_add_up(some: list[int], others: list[int]) -> None:
    assert added([counted(some), counted(others)]) == counted(some + others)


def test_of_nothing_there_is_none() -> None:
    assert quantile({}, 500) is None
