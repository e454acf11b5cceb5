from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routstr.core.order import Order
from routstr.core.pricing import (
    INPUT_CLASSES,
    NO_COST,
    OUTPUT_CLASSES,
    PRICE_MSAT_MAX,
    RATES,
    Cost,
    Model,
    Price,
    Usage,
    cost_lines,
    cost_of,
)
from routstr.errors import InvalidParameter

OrderOf = Callable[..., Order]
ModelOf = Callable[..., Model]

TOKENS = st.integers(min_value=0, max_value=3_000)
PRICES = st.integers(min_value=0, max_value=5_000_000)


def price_of(input_price: int, output_price: int, request_msat: int = 0) -> Price:
    return Price(
        version="v",
        input_msat_per_mtok=input_price,
        output_msat_per_mtok=output_price,
        request_msat=request_msat,
    )


# ── cost ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("price", "usage", "parts"),
    [
        # exact
        (price_of(1_000_000, 4_000_000, 7), (10, 20), (7, 10, 80)),
        # .5 + .5 rounds up once, not twice
        (price_of(500_000, 500_000), (1, 1), (0, 0, 1)),
        # the rounding msat goes to the output
        (price_of(300_000, 300_000), (1, 1), (0, 0, 1)),
        # without output, or with free output, to the input
        (price_of(300_000, 300_000), (1, 0), (0, 1, 0)),
        (price_of(300_000, 0), (1, 5), (0, 1, 0)),
        # each part stays within one msat of its exact value
        (price_of(600_000, 600_000), (1, 1), (0, 1, 1)),
        (price_of(1_000_000, 1), (3, 1), (0, 3, 1)),
        # a request price alone
        (price_of(1, 1, 21), (0, 0), (21, 0, 0)),
    ],
)
def test_cost(price: Price, usage: tuple[int, int], parts: tuple[int, int, int]) -> None:
    cost = cost_of(Usage(input_tokens=usage[0], output_tokens=usage[1]), price)
    assert (cost.base_msat, cost.input_msat, cost.output_msat) == parts
    assert cost.total_msat == sum(parts)


@given(st.tuples(TOKENS, TOKENS, TOKENS), TOKENS, st.tuples(PRICES, PRICES, PRICES, PRICES), TOKENS)
def test_cost_is_the_exact_sum_rounded_up_once(
    inputs: tuple[int, int, int], output: int, prices: tuple[int, int, int, int], request: int
) -> None:
    price = Price(
        version="v",
        input_msat_per_mtok=prices[0],
        output_msat_per_mtok=prices[1],
        request_msat=request,
        cache_read_msat_per_mtok=prices[2],
        cache_creation_msat_per_mtok=prices[3],
    )
    usage = Usage(
        input_tokens=sum(inputs),
        output_tokens=output,
        cache_read_tokens=inputs[1],
        cache_creation_tokens=inputs[2],
    )
    cost = cost_of(usage, price)
    read, creation = inputs[1] * prices[2], inputs[2] * prices[3]
    input_exact = inputs[0] * prices[0] + read + creation
    output_exact = output * prices[1]
    assert 0 <= (cost.total_msat - request) * 10**6 - input_exact - output_exact < 10**6
    assert cost.total_msat == cost.base_msat + cost.input_msat + cost.output_msat
    assert abs(cost.input_msat * 10**6 - input_exact) < 10**6
    assert abs(cost.output_msat * 10**6 - output_exact) < 10**6
    assert cost.cache_read_msat + cost.cache_creation_msat <= cost.input_msat
    assert 0 <= read - cost.cache_read_msat * 10**6 < 10**6
    assert 0 <= creation - cost.cache_creation_msat * 10**6 < 10**6
    assert cost.usage is usage


RATE = st.none() | PRICES
OWN_RATES = st.fixed_dictionaries(dict.fromkeys(RATES[3:], RATE))
PLAIN_RATES = st.fixed_dictionaries(dict.fromkeys(RATES[:3], PRICES))


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    """Any sane use: the classes of a side are parts of it."""
    count = st.integers(0, 500)
    inputs = {name: draw(count) for name in INPUT_CLASSES}
    outputs = {name: draw(count) for name in OUTPUT_CLASSES}
    units = {name: draw(count) for name in ("images", "seconds", "web_searches", "characters")}
    return Usage(
        input_tokens=sum(inputs.values()) + draw(count),
        output_tokens=sum(outputs.values()) + draw(count),
        **inputs, **outputs, **units,
    )  # fmt: skip


@given(plain=PLAIN_RATES, own=OWN_RATES, usage=usages())
def test_a_cost_is_the_sum_of_its_lines_rounded_up_once(
    plain: dict[str, int], own: dict[str, int | None], usage: Usage
) -> None:
    price = Price(version="v", **plain, **own)  # type: ignore[arg-type]  # names from RATES
    cost, lines = cost_of(usage, price), cost_lines(usage, price)
    assert usage.is_sane
    exact = sum(Fraction(line.units * line.rate_msat, line.per) for line in lines)
    assert cost.total_msat == ceil(Fraction(exact))
    for side, part in [
        ("base", cost.base_msat), ("input", cost.input_msat), ("output", cost.output_msat)
    ]:  # fmt: skip
        of_side = (line for line in lines if line.side == side)
        part_exact = sum(Fraction(line.units * line.rate_msat, line.per) for line in of_side)
        assert -1 < part - part_exact < 1
    sides = {line.side: sum(x.units for x in lines if x.side == line.side) for line in lines}
    assert sides.get("input", 0) == usage.input_tokens
    assert sides.get("output", 0) == usage.output_tokens


def test_every_class_has_its_own_line() -> None:
    usage = Usage(
        input_tokens=50, output_tokens=30, audio_input_tokens=20, reasoning_tokens=10,
        images=2, characters=1_500,
    )  # fmt: skip
    price = replace(
        price_of(1_000_000, 2_000_000, 5),
        audio_input_msat_per_mtok=8_000_000,
        image_msat=700,
        characters_msat_per_million=2_000_000,
    )
    assert [(line.name, line.units, line.rate_msat) for line in cost_lines(usage, price)] == [
        ("request", 1, 5),
        ("images", 2, 700),
        ("characters", 1_500, 2_000_000),
        ("audio_input", 20, 8_000_000),
        ("input", 30, 1_000_000),
        ("reasoning", 10, 2_000_000),
        ("output", 20, 2_000_000),
    ]
    assert cost_of(usage, price).base_msat == 5 + 1_400 + 3_000


@pytest.mark.parametrize(
    "usage",
    [
        {"input_tokens": 5, "audio_input_tokens": 3, "image_input_tokens": 3},
        {"output_tokens": 5, "reasoning_tokens": 6},
        {"seconds": -1},
    ],
)
def test_a_part_larger_than_the_whole_is_not_sane(usage: dict[str, int]) -> None:
    assert not Usage(**{"input_tokens": 0, "output_tokens": 0, **usage}).is_sane


def test_cached_input_has_the_input_price_unless_it_has_its_own() -> None:
    usage = Usage(input_tokens=10, output_tokens=0, cache_read_tokens=6, cache_creation_tokens=1)
    price = price_of(10_000_000, 0)
    plain = cost_of(usage, price)
    assert (plain.total_msat, plain.cache_read_msat, plain.cache_creation_msat) == (100, 60, 10)
    own = replace(price, cache_read_msat_per_mtok=0, cache_creation_msat_per_mtok=20_000_000)
    cost = cost_of(usage, own)
    assert (cost.total_msat, cost.cache_read_msat, cost.cache_creation_msat) == (50, 0, 20)


@given(st.tuples(*[st.integers(min_value=0, max_value=100)] * 5), st.integers(0, 400))
def test_a_capped_cost_is_still_the_sum_of_its_parts(
    parts: tuple[int, int, int, int, int], amount: int
) -> None:
    base, read, creation, rest, output = parts
    cost = Cost(
        base_msat=base,
        input_msat=read + creation + rest,
        output_msat=output,
        cache_read_msat=read,
        cache_creation_msat=creation,
    )
    capped = cost.capped_at(amount)
    assert capped.total_msat == min(cost.total_msat, amount)
    assert capped.cache_read_msat + capped.cache_creation_msat <= capped.input_msat
    assert 0 <= capped.cache_creation_msat <= creation
    assert capped.base_msat <= base
    assert capped.output_msat <= output
    assert NO_COST.capped_at(amount) == NO_COST


# ── refusals ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("value", [-1, PRICE_MSAT_MAX + 1, True, 1.5])
@pytest.mark.parametrize(
    "name",
    [
        "input_msat_per_mtok",
        "output_msat_per_mtok",
        "request_msat",
        "cache_read_msat_per_mtok",
        "cache_creation_msat_per_mtok",
    ],
)
def test_a_price_is_an_integer_in_range(name: str, value: int) -> None:
    members = {"input_msat_per_mtok": 1, "output_msat_per_mtok": 1, name: value}
    with pytest.raises(InvalidParameter) as refusal:
        Price(version="v", **members)
    assert refusal.value.param == name


@pytest.mark.parametrize(
    "members", [{"context_length": 0}, {"max_output_tokens": 1_001}, {"max_output_tokens": -1}]
)
def test_a_model_has_sane_lengths(members: dict[str, int], model_of: ModelOf) -> None:
    with pytest.raises(InvalidParameter):
        model_of(**members)
