"""USD prices become rates that never sell below cost plus margin, and hardly above it."""

from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routstr.core.prices import (
    CLASSES,
    MSAT_PER_BTC,
    PPM,
    decimal_from,
    priced,
    rate_msat,
    rates_msat,
    sold_paths,
    usd_prices,
    usd_texts,
    with_fee,
)
from routstr.core.pricing import RATES, Price, Usage, cost_of
from routstr.core.providers import EVERY_PATH
from routstr.errors import InvalidParameter

BTC_USD = Decimal(100_000)
PER_TOKEN = st.decimals("0.000000001", "0.001", places=12)
PER_UNIT = st.decimals("0.000001", "10", places=9)
TOKENS = st.integers(0, 1_000_000)

USED = {
    "input": "input_tokens", "output": "output_tokens", "cache_read": "cache_read_tokens",
    "cache_write": "cache_creation_tokens", "audio_input": "audio_input_tokens",
    "image_input": "image_input_tokens", "reasoning": "reasoning_tokens",
    "audio_output": "audio_output_tokens", "image_output": "image_output_tokens",
    "image": "images", "second": "seconds", "web_search": "web_searches",
    "character": "characters",
}  # fmt: skip
INPUTS = ("cache_read", "cache_write", "audio_input", "image_input")
OUTPUTS = ("reasoning", "audio_output", "image_output")


@st.composite
def sales(draw: st.DrawFn) -> tuple[dict[str, Decimal], dict[str, int]]:
    """Prices of every class, and counts of which the classes of a side do not overlap."""
    prices = {
        name: draw(PER_UNIT if name in ("request", "image", "second", "web_search") else PER_TOKEN)
        for name in CLASSES
    }
    counts = {name: draw(TOKENS) for name in USED}
    return prices, counts


@given(
    sales(),
    st.integers(0, 3 * PPM),
    st.decimals("1000", "10000000", places=2),
)
def test_no_use_is_sold_below_cost_and_margin(
    sale: tuple[dict[str, Decimal], dict[str, int]], fee_ppm: int, btc_usd: Decimal
) -> None:
    prices, counts = sale
    rates = rates_msat(prices, fee_ppm=fee_ppm, btc_usd=btc_usd)
    used: dict[str, Any] = {USED[name]: count for name, count in counts.items()}
    used["input_tokens"] = sum(counts[name] for name in ("input", *INPUTS))
    used["output_tokens"] = sum(counts[name] for name in ("output", *OUTPUTS))
    charged_msat = cost_of(Usage(**used), priced("m", rates)).total_msat
    usd = Fraction(prices["request"]) + sum(
        Fraction(prices[name]) * count for name, count in counts.items()
    )
    owed_msat = usd * (PPM + fee_ppm) * MSAT_PER_BTC / (PPM * Fraction(btc_usd))
    assert charged_msat >= owed_msat
    # Each rate is rounded up by less than 1 msat, and the sum once more.
    units = 1 + sum(counts[name] for name in ("image", "second", "web_search"))
    millions = Fraction(sum(counts.values()), 10**6)
    assert charged_msat < owed_msat + 1 + units + millions


@given(PER_TOKEN, st.decimals("1000", "10000000", places=2))
def test_what_is_not_free_is_never_0(usd: Decimal, btc_usd: Decimal) -> None:
    assert rate_msat(usd, per=1, fee_ppm=0, btc_usd=btc_usd) >= 1
    assert usd_prices(usd_texts({"input": usd})) == {"input": usd}


def test_an_example() -> None:
    prices = usd_prices({"input": "0.00000015", "output": 6e-7, "cache_read": "0", "new": "1"})
    assert usd_texts(prices) == {"input": "0.00000015", "output": "0.0000006"}
    rates = rates_msat(prices, fee_ppm=100_000, btc_usd=BTC_USD)
    # 0.15 USD a million tokens at 100 000 USD a bitcoin is 150 sat, plus a tenth.
    assert rates == {"input_msat_per_mtok": 165_000, "output_msat_per_mtok": 660_000}
    assert with_fee(prices["input"], 100_000) == Decimal("0.000000165")


def test_every_price_has_its_rate() -> None:
    assert {rate for rate, _ in CLASSES.values()} == set(RATES)


def test_a_side_without_a_price_is_not_for_nothing() -> None:
    rates = rates_msat({"input": Decimal("0.001")}, fee_ppm=0, btc_usd=BTC_USD)
    assert rates["output_msat_per_mtok"] == rates["input_msat_per_mtok"] > 0


def test_prices_say_what_can_be_sold() -> None:
    one = Decimal(1)
    assert sold_paths({"input": one, "output": one}) == EVERY_PATH
    assert sold_paths({"input": one}) == {"/embeddings", "/moderations"}
    assert sold_paths({"character": one}) == {"/audio/speech"}
    assert sold_paths({"input": one, "image_output": one}) >= {"/embeddings", "/images/edits"}
    assert sold_paths({"output": one}) == sold_paths({}) == set()


def test_a_version_is_named_after_its_content() -> None:
    rates = {"input_msat_per_mtok": 1, "output_msat_per_mtok": 2}
    price = priced("m", rates)
    assert isinstance(price, Price)
    assert price.version == priced("m", dict(reversed(rates.items()))).version
    others = [priced("n", rates), priced("m", {**rates, "request_msat": 1})]
    assert price.version not in {each.version for each in others}


@pytest.mark.parametrize(
    "text",
    ["", "-1", "+1", "1,5", "0x1", "1e999", "1e-99", "NaN", "Infinity", "1_000", " 1", "1\n", ".5",
     "1.", "1" * 13, "0." + "0" * 24 + "1", "1e-25", "1000000000", None, True, [], {}, b"1",
     "\u0661", float("inf"), float("nan"), -0.5, 10**400],
)  # fmt: skip
def test_what_is_no_price(text: object) -> None:
    assert decimal_from(text) is None


def test_prices_out_of_proportion_are_refused() -> None:
    with pytest.raises(InvalidParameter):
        rates_msat({"input": Decimal(999_999)}, fee_ppm=0, btc_usd=Decimal(100))
    with pytest.raises(InvalidParameter):
        rates_msat({"input": Decimal(1)}, fee_ppm=-1, btc_usd=BTC_USD)
