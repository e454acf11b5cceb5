import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from routstr.core.money import INT64_MAX
from routstr.core.order import Order
from routstr.core.pricing import (
    CONTEXT_TOKENS_MAX,
    NOTHING_USED,
    PRICE_MSAT_MAX,
    Model,
    Price,
    Usage,
    cost_of,
)
from routstr.core.quote import Quote, from_snapshot, max_cost_msat, price_snapshot, quote_of
from routstr.errors import InvalidModel, InvalidParameter, RoutstrError

OrderOf = Callable[..., Order]
ModelOf = Callable[..., Model]

TOKENS = st.integers(min_value=0, max_value=3_000)
PRICES = st.integers(min_value=0, max_value=5_000_000)


def test_published_maximum(model_of: ModelOf) -> None:
    assert max_cost_msat(model_of(request_msat=5)) == 900 + 400 + 5
    assert max_cost_msat(model_of(cache_creation=2_000_000)) == 1_800 + 400


def test_a_quote_is_prompt_bytes_and_output_limit(order_of: OrderOf, model_of: ModelOf) -> None:
    order = order_of(max_tokens=50)
    quote = quote_of(order, model_of(request_msat=3))
    bytes_bound = len(b'{"model":"m","messages":[{"role":"user","content":"hi"}],"max_tokens":50}')
    assert quote.input_tokens_max == order.prompt_bytes == bytes_bound
    assert quote.total_msat == bytes_bound + 50 * 4 + 3
    assert quote.minimum_msat == bytes_bound + 16 * 4 + 3
    assert quote.output_tokens_max == 50
    assert quote.usage_cap == 1_000


def test_each_choice_is_quoted(order_of: OrderOf, model_of: ModelOf) -> None:
    order = order_of(max_completion_tokens=50, n=3)
    quote = quote_of(order, model_of())
    assert quote.total_msat == order.prompt_bytes + 150 * 4
    assert quote.minimum_msat == order.prompt_bytes + 48 * 4
    assert (quote.output_tokens_max, quote.usage_cap) == (150, 3_000)


def test_the_model_limits_what_the_client_does_not(order_of: OrderOf, model_of: ModelOf) -> None:
    order = order_of()
    quote = quote_of(order, model_of())
    assert quote.total_msat == order.prompt_bytes + 100 * 4


def test_a_small_limit_is_its_own_minimum(order_of: OrderOf, model_of: ModelOf) -> None:
    quote = quote_of(order_of(max_tokens=3), model_of())
    assert quote.minimum_msat == quote.total_msat == quote.msat_for(3) == quote.msat_for(99)


@pytest.mark.parametrize("members", [{"tools": [{"type": "function"}]}, {"functions": [{}]}])
def test_tools_have_a_template(
    members: dict[str, object], order_of: OrderOf, model_of: ModelOf
) -> None:
    order, model = order_of(max_tokens=1, **members), model_of(context_length=10_000)
    assert quote_of(order, model).input_tokens_max == order.prompt_bytes + 1_024


def test_an_unbounded_body_is_quoted_at_the_whole_context(
    order_of: OrderOf, model_of: ModelOf
) -> None:
    image = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u"}}]}
    quote = quote_of(order_of(messages=[image]), model_of())
    assert quote.input_tokens_max == 1_000
    assert quote.total_msat == max_cost_msat(model_of()) == 900 + 400
    # several choices share one prompt: each leaves the context less its own output
    two = quote_of(order_of(messages=[image], n=2, max_tokens=50), model_of())
    assert two.total_msat == 950 + 2 * 50 * 4
    # where output is the cheaper one, an answer of input alone is the dearest
    cheap = model_of(output_price=500_000, max_output_tokens=0)
    assert quote_of(order_of(messages=[image]), cheap).total_msat == 1_000


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_a_limit_above_the_models_is_refused(
    field: str, order_of: OrderOf, model_of: ModelOf
) -> None:
    with pytest.raises(InvalidParameter) as refusal:
        quote_of(order_of(**{field: 101}), model_of())
    assert refusal.value.param == field


ORDERS = st.fixed_dictionaries(
    {
        "content": st.text(max_size=600),
        "n": st.integers(1, 4),
        "limit": st.none() | st.integers(1, 1_000),
        "image": st.booleans(),
    }
)
MODELS = st.fixed_dictionaries(
    {
        "context_length": st.integers(1, 1_000),
        "max_output_tokens": st.integers(1, 1_000),
        "input_price": PRICES,
        "output_price": PRICES,
        "request_msat": st.integers(0, 50),
        "cache_creation": st.none() | PRICES,
        "cache_read": st.none() | PRICES,
    }
)


def quoted(
    order: dict[str, object], model: dict[str, int], order_of: OrderOf, model_of: ModelOf
) -> tuple[Quote, Model]:
    sold = model_of(
        **{**model, "max_output_tokens": min(model["max_output_tokens"], model["context_length"])}
    )
    limit = order["limit"]
    members: dict[str, object] = {"n": order["n"]}
    if isinstance(limit, int):
        members["max_tokens"] = min(limit, sold.max_output_tokens)
    content: object = order["content"]
    if order["image"]:
        content = [{"type": "image_url"}]
    members["messages"] = [{"role": "user", "content": content}]
    return quote_of(order_of(**members), sold), sold


@given(order=ORDERS, model=MODELS, data=st.data())
def test_no_use_within_the_bounds_costs_more_than_the_quote(
    order: dict[str, object],
    model: dict[str, int],
    data: st.DataObject,
    order_of: OrderOf,
    model_of: ModelOf,
) -> None:
    quote, sold = quoted(order, model, order_of, model_of)
    outputs = [data.draw(st.integers(0, quote.output_limit)) for _ in range(quote.n)]
    room = quote.context_length - max(outputs)
    price = quote.price
    if price.output_msat_per_mtok < price.prompt_msat_per_mtok():
        # there the published maximum, which no quote exceeds, is below what a context can hold
        room = min(room, sold.context_length - sold.max_output_tokens)
    prompt = data.draw(st.integers(0, max(0, min(quote.input_tokens_max, room))))
    read = data.draw(st.integers(0, prompt))
    usage = Usage(
        input_tokens=prompt,
        output_tokens=sum(outputs),
        cache_read_tokens=read,
        cache_creation_tokens=data.draw(st.integers(0, prompt - read)),
    )
    cost_msat = cost_of(usage, price).total_msat
    assert cost_msat <= quote.msat_for(sum(outputs)) <= quote.total_msat
    assert all(0 <= tokens <= quote.usage_cap for tokens in (prompt, sum(outputs)))


@given(order=ORDERS, model=MODELS)
def test_no_quote_exceeds_the_published_maximum(
    order: dict[str, object], model: dict[str, int], order_of: OrderOf, model_of: ModelOf
) -> None:
    quote, sold = quoted(order, model, order_of, model_of)
    assert quote.total_msat <= max_cost_msat(sold) * quote.n
    assert quote.minimum_msat <= quote.total_msat


@given(order=ORDERS, model=MODELS, amount=st.integers(0, 10_000))
def test_a_lowered_limit_is_the_highest_that_is_paid_for(
    order: dict[str, object],
    model: dict[str, int],
    amount: int,
    order_of: OrderOf,
    model_of: ModelOf,
) -> None:
    quote, _ = quoted(order, model, order_of, model_of)
    bounds = [quote.msat_for(limit * quote.n) for limit in range(quote.output_limit + 1)]
    assert bounds == sorted(bounds)
    steps = [quote.msat_for(tokens) for tokens in range(min(quote.output_tokens_max, 50))]
    assert steps == sorted(steps)
    limit = quote.output_limit_for(amount)
    assert limit == max([place for place, msat in enumerate(bounds) if msat <= amount], default=0)
    assume(amount >= quote.minimum_msat)
    lowered = quote.lowered_to(limit)
    assert lowered.total_msat == bounds[limit] <= amount
    assert lowered.lowered_to(10**9) == lowered


def test_everything_fits_64_bits() -> None:
    price = Price(
        version="v",
        input_msat_per_mtok=PRICE_MSAT_MAX,
        output_msat_per_mtok=PRICE_MSAT_MAX,
        request_msat=PRICE_MSAT_MAX,
    )
    model = Model(
        id="m",
        name="M",
        context_length=CONTEXT_TOKENS_MAX,
        max_output_tokens=CONTEXT_TOKENS_MAX,
        price=price,
    )
    most = CONTEXT_TOKENS_MAX * 128
    assert max_cost_msat(model) * 128 < INT64_MAX
    assert cost_of(Usage(input_tokens=most, output_tokens=most), price).total_msat < INT64_MAX


def test_dear_media_count_only_where_they_may_occur(order_of: OrderOf, model_of: ModelOf) -> None:
    model = model_of()
    dear = replace(model, price=replace(model.price, image_input_msat_per_mtok=9_000_000))
    text = order_of(max_tokens=10)
    image = order_of(messages=[{"role": "user", "content": [{"type": "image_url"}]}], max_tokens=10)
    assert quote_of(text, dear).total_msat == quote_of(text, model).total_msat
    assert quote_of(image, dear).total_msat > 8 * quote_of(image, model).total_msat


def test_what_nothing_prices_is_refused(order_of: OrderOf, model_of: ModelOf) -> None:
    unpriced = model_of(input_price=0, output_price=0, is_free=False)
    with pytest.raises(InvalidModel, match="no price"):
        quote_of(order_of(), unpriced)
    assert quote_of(order_of(), replace(unpriced, is_free=True)).total_msat == 0
    drawn = replace(order_of(), sold_by=("image_msat", "image_output_msat_per_mtok"))
    with pytest.raises(InvalidModel, match="not sold"):
        quote_of(drawn, model_of())


def test_units_come_on_top_of_the_tokens(order_of: OrderOf, model_of: ModelOf) -> None:
    model = model_of(request_msat=3)
    model = replace(model, price=replace(model.price, image_msat=1_000))
    order = order_of(max_tokens=20)
    drawn = replace(order, units=replace(NOTHING_USED, images=2))
    assert quote_of(drawn, model).total_msat == quote_of(order, model).total_msat + 2_000


# ── snapshots ───────────────────────────────────────────────────────────────────────────────────


def test_a_snapshot_pins_the_quote(order_of: OrderOf, model_of: ModelOf) -> None:
    quote = quote_of(order_of(n=2), model_of(cache_creation=5, cache_read=0, request_msat=9))
    snapshot = price_snapshot(quote)
    assert all(type(value) in (int, str) for value in snapshot.values())
    assert from_snapshot(json.loads(json.dumps(snapshot))) == quote


def test_a_snapshot_without_cache_prices_costs_the_same(
    order_of: OrderOf, model_of: ModelOf
) -> None:
    quote = quote_of(order_of(), model_of())
    pinned = from_snapshot(price_snapshot(quote))
    usage = Usage(input_tokens=9, output_tokens=2, cache_read_tokens=4)
    assert cost_of(usage, pinned.price) == cost_of(usage, quote.price)
    assert pinned.msat_for(7) == quote.msat_for(7)


@pytest.mark.parametrize("name", ["price_version", "n", "total_msat", "model_id"])
@pytest.mark.parametrize("value", [None, True, []])
def test_a_broken_snapshot_is_no_quote(
    name: str, value: object, order_of: OrderOf, model_of: ModelOf
) -> None:
    snapshot = {**price_snapshot(quote_of(order_of(), model_of())), name: value}
    with pytest.raises(RoutstrError) as refusal:
        from_snapshot(snapshot)
    assert refusal.value.status == 500


def test_nothing_used_costs_the_request_alone(model_of: ModelOf) -> None:
    assert cost_of(NOTHING_USED, model_of(request_msat=4).price).total_msat == 4
