from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routstr.core.money import (
    INT64_MAX,
    ceil_div,
    floor_div,
    is_int64,
    msat_from_unit,
    sats_text,
    unit_from_msat,
    usd_text,
)
from routstr.errors import InvalidParameter

AMOUNTS = st.integers(min_value=0, max_value=INT64_MAX)


@given(AMOUNTS, st.integers(min_value=1, max_value=10**12))
def test_division_rounds_up_what_is_owed_and_down_what_is_paid(amount: int, divisor: int) -> None:
    up, down = ceil_div(amount, divisor), floor_div(amount, divisor)
    assert down * divisor <= amount <= up * divisor
    assert up - down == (1 if amount % divisor else 0)


@pytest.mark.parametrize(("unit", "msat"), [("sat", 21_000), ("msat", 21)])
def test_units(unit: str, msat: int) -> None:
    assert msat_from_unit(21, unit) == msat
    assert unit_from_msat(msat, unit) == 21


def test_paying_out_rounds_down() -> None:
    assert unit_from_msat(1_999, "sat") == 1


@pytest.mark.parametrize("unit", ["", "SAT", "usd", "btc"])
def test_other_units_are_refused(unit: str) -> None:
    with pytest.raises(InvalidParameter):
        msat_from_unit(1, unit)
    with pytest.raises(InvalidParameter):
        unit_from_msat(1, unit)


@pytest.mark.parametrize(
    ("value", "fits"),
    [
        (0, True),
        (INT64_MAX, True),
        (INT64_MAX + 1, False),
        (-1, False),
        (True, False),
        ("1", False),
    ],
)
def test_int64(value: object, fits: bool) -> None:
    assert is_int64(value) is fits


@pytest.mark.parametrize(
    ("amount_msat", "text"),
    [(0, "0"), (204, "0.204"), (1_000, "1"), (1_010, "1.01"), (100_000, "100"), (7, "0.007")],
)
def test_sats_are_exact(amount_msat: int, text: str) -> None:
    assert sats_text(amount_msat) == text


@given(AMOUNTS)
def test_sats_lose_nothing(amount_msat: int) -> None:
    assert Decimal(sats_text(amount_msat)) * 1000 == amount_msat


@pytest.mark.parametrize(
    ("amount_msat", "rate", "text"),
    [
        (204, "63725.49", "0.00013"),
        (0, "100000", "0"),
        (1, "100000", "0.000001"),
        (10**11, "100000", "100000"),
        (1, "0.05", "0"),
        (1, "1", "0.00000000001"),
        (2_000, "5E+4", "0.001"),
        (INT64_MAX, "1e12", "92233720368547758070"),
    ],
)
def test_usd_is_plain_decimal_text(amount_msat: int, rate: str, text: str) -> None:
    assert usd_text(amount_msat, Decimal(rate)) == text


@given(AMOUNTS, st.decimals(min_value=0, max_value=10**7, allow_nan=False))
def test_usd_never_has_an_exponent(amount_msat: int, rate: Decimal) -> None:
    text = usd_text(amount_msat, rate)
    assert text.replace(".", "", 1).isdecimal()
    assert abs(Decimal(text) - Decimal(amount_msat) * rate / 10**11) <= Decimal("1e-12")


@pytest.mark.parametrize("rate", ["NaN", "sNaN", "Infinity", "-Infinity", "-1", "1e13"])
def test_a_broken_rate_is_refused(rate: str) -> None:
    with pytest.raises(InvalidParameter):
        usd_text(1, Decimal(rate))
