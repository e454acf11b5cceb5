"""Whatever is ordered and whatever is used of it: cost <= hold <= quote, at any prices."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routstr.core.hold import charge
from routstr.core.order import Medium, Order
from routstr.core.pricing import (
    INPUT_CLASSES,
    NOTHING_USED,
    OUTPUT_CLASSES,
    RATES,
    Model,
    Price,
    Usage,
    cost_of,
)
from routstr.core.quote import (
    TOOLS_TOKENS_MAX,
    Quote,
    from_snapshot,
    max_cost_msat,
    price_snapshot,
    quote_of,
)

COUNTS = st.integers(0, 2_000)
PRICES = st.integers(0, 5_000_000)
MEDIA: list[Medium] = ["audio_input", "image_input", "audio_output", "image_output"]
UNITS = ("images", "seconds", "web_searches", "characters")


def up_to(most: int) -> st.SearchStrategy[int]:
    """Often all of it: bounds are met at their ends."""
    return st.just(most) | st.integers(0, most)


@st.composite
def models(draw: st.DrawFn) -> Model:
    """A model with any prices, of its own or by default."""
    context_length = draw(st.integers(1, 4_000))
    rates = {name: draw(PRICES) for name in RATES[:3]}
    own = {name: draw(st.none() | PRICES) for name in RATES[3:]}
    return Model(
        id="m",
        name="m",
        context_length=context_length,
        max_output_tokens=draw(st.integers(0, context_length)),
        price=Price(version="v", **rates, **own),  # type: ignore[arg-type]  # names from RATES
        is_free=True,
    )


@st.composite
def orders(draw: st.DrawFn, model: Model) -> Order:
    """An order that any dialect could have made for the model."""
    limit = draw(st.none() | st.integers(0, model.max_output_tokens))
    return Order(
        model_id="m",
        prompt_bytes=draw(COUNTS),
        prompt_text_bytes=0,
        n=draw(st.integers(1, 6)),
        inputs=draw(st.integers(1, 6)),
        writes=draw(st.booleans()),
        output_limit=limit,
        has_tools=draw(st.booleans()),
        input_unbounded=draw(st.booleans()),
        media=frozenset(draw(st.sets(st.sampled_from(MEDIA)))),
        units=replace(NOTHING_USED, **{name: draw(st.integers(0, 50)) for name in UNITS}),
    )


def _orders_of(names: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Each of them first, once."""
    names = tuple(sorted(names))
    return [names[at:] + names[:at] for at in range(len(names))]


@st.composite
def _parts(
    draw: st.DrawFn, classes: Mapping[str, str], media: frozenset[Medium], whole: int
) -> dict[str, int]:
    """Classes of a side, in any order: whichever comes first may be all of it."""
    unheard = {f"{medium}_tokens" for medium in MEDIA if medium not in media}
    parts: dict[str, int] = {}
    for name in draw(st.sampled_from(_orders_of(tuple(set(classes) - unheard)))):
        parts[name] = draw(up_to(whole))
        whole -= parts[name]
    return parts


@st.composite
def uses(draw: st.DrawFn, order: Order, model: Model, quote: Quote) -> Usage:
    """What an honest upstream can have used: prompt and answer share a context, per input."""
    limit = model.max_output_tokens if order.output_limit is None else order.output_limit
    outputs = [draw(up_to(limit if order.writes else 0)) for _ in range(order.n)]
    room = model.context_length * order.inputs - max(outputs)
    if quote.answer_rate_msat < quote.prompt_rate_msat:
        # there the published maximum, which no quote exceeds, is below what a context can hold
        room = min(room, model.context_length - model.max_output_tokens)
    most = room
    if not order.input_unbounded:
        most = min(room, order.prompt_bytes + (TOOLS_TOKENS_MAX if order.has_tools else 0))
    prompt = draw(up_to(max(0, most)))
    parts = {
        **draw(_parts(INPUT_CLASSES, order.media, prompt)),
        **draw(_parts(OUTPUT_CLASSES, order.media, sum(outputs))),
    }
    units = {name: draw(up_to(getattr(order.units, name))) for name in UNITS}
    return Usage(input_tokens=prompt, output_tokens=sum(outputs), **parts, **units)


@given(st.data())
def test_no_use_costs_more_than_the_quote(data: st.DataObject) -> None:
    model = data.draw(models())
    order = data.draw(orders(model))
    quote = quote_of(order, model)
    usage = data.draw(uses(order, model, quote))
    assert usage.is_sane
    cost = cost_of(usage, quote.price)
    assert cost.total_msat <= quote.total_msat
    assert quote.minimum_msat <= quote.total_msat


@pytest.mark.parametrize("name", [*INPUT_CLASSES, *OUTPUT_CLASSES])
def test_a_dear_class_that_fills_everything_is_covered(name: str) -> None:
    rate = {**INPUT_CLASSES, **OUTPUT_CLASSES}[name]
    rates = {"input_msat_per_mtok": 1, "output_msat_per_mtok": 1, rate: 9_000_000}
    model = Model(
        id="m",
        name="m",
        context_length=100,
        max_output_tokens=40,
        price=Price(version="v", **rates),
    )
    order = Order(
        model_id="m",
        prompt_bytes=60,
        prompt_text_bytes=0,
        media=frozenset(medium for medium in MEDIA if name.startswith(medium)),
    )
    usage = Usage(**{"input_tokens": 60, "output_tokens": 40, name: 40})
    quote = quote_of(order, model)
    assert cost_of(usage, model.price).total_msat <= quote.total_msat
    if order.media:
        assert (
            cost_of(usage, model.price).total_msat
            > quote_of(replace(order, media=frozenset()), model).total_msat
        )


@given(st.data())
def test_a_hold_is_within_the_quote_and_a_charge_within_both(data: st.DataObject) -> None:
    model = data.draw(models())
    order = data.draw(orders(model))
    quote = quote_of(order, model)
    units_msat = cost_of(order.units, model.price).base_msat - model.price.request_msat
    ceiling_msat = max_cost_msat(model) * max(order.n, order.inputs) + units_msat
    assert quote.total_msat <= ceiling_msat
    hold_msat = data.draw(st.integers(0, quote.total_msat))
    lowered = quote.lowered_to(quote.output_limit_for(hold_msat))
    if hold_msat >= quote.msat_for(0):
        assert lowered.total_msat <= hold_msat
    available_msat = data.draw(st.integers(0, 10**9))
    cost_msat = data.draw(st.integers(0, 10**10))
    bill = charge(
        cost_msat=cost_msat,
        quote_msat=quote.total_msat,
        hold_msat=hold_msat,
        available_msat=available_msat,
    )
    assert bill.charged_msat <= min(cost_msat, quote.total_msat, hold_msat + available_msat)
    assert bill.charged_msat + bill.absorbed_msat == cost_msat
    assert from_snapshot(price_snapshot(quote)) == quote
