"""Whatever is ordered and whatever is used of it: cost <= hold <= quote, at any prices."""

from dataclasses import fields, replace

from hypothesis import assume, given
from hypothesis import strategies as st

from routstr.core.hold import charge
from routstr.core.order import Medium, Order
from routstr.core.pricing import NOTHING_USED, RATES, Model, Price, Usage, cost_of
from routstr.core.quote import (
    TOOLS_TOKENS_MAX,
    from_snapshot,
    max_cost_msat,
    price_snapshot,
    quote_of,
)

COUNTS = st.integers(0, 2_000)
PRICES = st.integers(0, 5_000_000)
MEDIA: list[Medium] = ["audio_input", "image_input", "audio_output", "image_output"]
UNITS = ("images", "seconds", "web_searches", "characters")


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


@st.composite
def uses(draw: st.DrawFn, order: Order, model: Model) -> Usage:
    """What an honest upstream can have used: prompt and answer share a context, per input."""
    limit = model.max_output_tokens if order.output_limit is None else order.output_limit
    outputs = [draw(st.integers(0, limit if order.writes else 0)) for _ in range(order.n)]
    room = model.context_length * order.inputs - max(outputs)
    most = room
    if not order.input_unbounded:
        most = min(room, order.prompt_bytes + (TOOLS_TOKENS_MAX if order.has_tools else 0))
    prompt = draw(st.integers(0, max(0, most)))
    media = {f"{medium}_tokens" for medium in order.media}
    parts: dict[str, int] = {}
    for side, whole in (("input", prompt), ("output", sum(outputs))):
        left = whole
        for each in fields(Usage):
            name = each.name
            is_text = name.startswith("cache") if side == "input" else name == "reasoning_tokens"
            if is_text or (name in media and name.endswith(f"{side}_tokens")):
                parts[name] = draw(st.integers(0, left))
                left -= parts[name]
    units = {name: draw(st.integers(0, getattr(order.units, name))) for name in UNITS}
    return Usage(input_tokens=prompt, output_tokens=sum(outputs), **parts, **units)


@given(st.data())
def test_no_use_costs_more_than_the_quote(data: st.DataObject) -> None:
    model = data.draw(models())
    order = data.draw(orders(model))
    quote = quote_of(order, model)
    # Where an answer is cheaper than the prompt, the published maximum lies below a full context.
    assume(quote.answer_rate_msat >= quote.prompt_rate_msat)
    usage = data.draw(uses(order, model))
    assert usage.is_sane
    cost = cost_of(usage, quote.price)
    assert cost.total_msat <= quote.total_msat
    assert quote.minimum_msat <= quote.total_msat


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
