"""When sources make a rate: medians, bands, jumps, and prices that do not flicker."""

from decimal import Decimal

import pytest

from routstr.core.rates import NoRate, agreed_rate, median, rate_in_force

D = Decimal


def said(*values: str) -> dict[str, Decimal]:
    return {f"s{number}": D(value) for number, value in enumerate(values)}


@pytest.mark.parametrize(
    ("values", "rate"),
    [
        (["100000", "100100"], "100050"),
        (["100000", "100100", "100200"], "100100"),
        (["100000", "100100", "100200", "1000"], "100100"),  # one liar
        (["100000", "100100", "100200", "1000", "9000000"], "100100"),  # two
        (["100000", "100100", "99", "9999999999999"], "100050"),  # no rates at all
    ],
)
def test_enough_agree(values: list[str], rate: str) -> None:
    assert agreed_rate(said(*values), last=None) == D(rate)


@pytest.mark.parametrize(
    "values",
    [
        [],
        ["100000"],
        ["100000", "1"],
        ["100000", "110000"],
        ["100000", "100000", "1000", "1000"],
        ["100000", "120000", "140000"],
    ],
)
def test_too_few_agree(values: list[str]) -> None:
    with pytest.raises(NoRate):
        agreed_rate(said(*values), last=None)


def test_a_jump_needs_three_to_vouch() -> None:
    last = D(100_000)
    assert agreed_rate(said("80000", "80010"), last=last) == D(80_005)
    with pytest.raises(NoRate, match="jump"):
        agreed_rate(said("60000", "60010"), last=last)
    assert agreed_rate(said("60000", "60010", "60020"), last=last) == D(60_010)


def test_prices_follow_only_a_rate_that_moved() -> None:
    before = D(100_000)
    assert rate_in_force(D("100499.99"), before, step_ppm=5_000) == before
    assert rate_in_force(D("100500"), before, step_ppm=5_000) == D("100500")
    assert rate_in_force(D("99500"), before, step_ppm=5_000) == D("99500")
    assert rate_in_force(D("100000.01"), before, step_ppm=0) == D("100000.01")
    assert rate_in_force(D(5), None, step_ppm=5_000) == D(5)


def test_median() -> None:
    assert median([D(3), D(1), D(2)]) == D(2)
    assert median([D(4), D(1), D(2), D(3)]) == D("2.5")
