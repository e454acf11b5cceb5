"""What an order can cost at most, pinned with its price until the hold ends.

Laws: a use within a quote's bounds never costs more than the quote; no quote of tokens exceeds the
published maximum of its model, per choice; what nothing prices is refused, never given away.
"""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from routstr.core.money import ceil_div, floor_div
from routstr.core.order import Order
from routstr.core.pricing import (
    NOTHING_USED,
    OUTPUT_CLASSES,
    RATES,
    TOKENS_PER_MTOK,
    Model,
    Price,
    cost_of,
)
from routstr.errors import InvalidModel, InvalidParameter, RoutstrError

OUTPUT_TOKENS_MIN: Final = 16
TOOLS_TOKENS_MAX: Final = 1_024  # what a template writes around tool definitions


def max_cost_msat(model: Model) -> int:
    """The published maximum of one answer (contract, section 3), in msat; units come on top."""
    price, output_tokens = model.price, model.max_output_tokens
    prompt = (model.context_length - output_tokens) * price.prompt_msat_per_mtok()
    completion = output_tokens * price.answer_msat_per_mtok()
    return ceil_div(prompt + completion, TOKENS_PER_MTOK) + price.request_msat


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """The most an order can cost.

    `prompt_rate_msat` and `answer_rate_msat` (per million tokens) are the dearest it can meet,
    `base_msat` the request with the most units it can use, `input_tokens_max` bounds the prompt,
    `output_limit` is tokens per choice and `output_least` of the smallest answer worth starting,
    `ceiling_msat` the published maximum of all choices.
    """

    model_id: str
    price: Price
    n: int
    context_length: int
    prompt_rate_msat: int
    answer_rate_msat: int
    base_msat: int
    input_tokens_max: int
    output_limit: int
    ceiling_msat: int
    total_msat: int
    output_least: int = OUTPUT_TOKENS_MIN

    @property
    def minimum_msat(self) -> int:
        """What the smallest answer worth starting takes, or all of it if the limit is less."""
        return self.msat_for(min(self.output_least, self.output_limit) * self.n)

    @property
    def output_tokens_max(self) -> int:
        """Output tokens of all choices together."""
        return self.output_limit * self.n

    @property
    def usage_cap(self) -> int:
        """The most tokens a sane usage can report, of input or of output."""
        return self.context_length * self.n

    def msat_for(self, output_tokens_total: int) -> int:
        """The most it costs while all choices together have at most so many output tokens."""
        tokens = min(output_tokens_total, self.output_tokens_max)
        return _bound_msat(self, tokens)

    def output_limit_for(self, amount_msat: int) -> int:
        """The highest limit per choice that `amount_msat` pays for; 0 if it pays for none."""
        limits = range(self.output_limit + 1)
        affordable = bisect_right(
            limits, amount_msat, key=lambda limit: _bound_msat(self, limit * self.n)
        )
        return max(0, affordable - 1)

    def lowered_to(self, output_limit: int) -> "Quote":
        """The quote after the limit per choice was lowered; a higher limit changes nothing."""
        limit = min(output_limit, self.output_limit)
        total_msat = _bound_msat(self, limit * self.n)
        if limit == self.output_limit and total_msat == self.total_msat:
            return self
        return replace(self, output_limit=limit, total_msat=total_msat)


def _bound_msat(quote: Quote, output_tokens: int) -> int:
    """The bound for `output_tokens` in total."""
    return _bound(
        output_tokens,
        n=quote.n,
        context_length=quote.context_length,
        prompt_rate_msat=quote.prompt_rate_msat,
        answer_rate_msat=quote.answer_rate_msat,
        base_msat=quote.base_msat,
        input_tokens_max=quote.input_tokens_max,
        ceiling_msat=quote.ceiling_msat,
    )


def _bound(
    output_tokens: int,
    *,
    n: int,
    context_length: int,
    prompt_rate_msat: int,
    answer_rate_msat: int,
    base_msat: int,
    input_tokens_max: int,
    ceiling_msat: int,
) -> int:
    """A quote's bound for `output_tokens` in total; it never falls as they grow.

    Prompt and answer share the context. Each output token takes the place of one input token, so
    where output is the dearer one, the context less the output bounds the prompt.
    """
    room = context_length
    if answer_rate_msat >= prompt_rate_msat:
        room -= floor_div(output_tokens, n)
    prompt_exact = min(input_tokens_max, max(room, 0)) * prompt_rate_msat
    exact = prompt_exact + output_tokens * answer_rate_msat
    return min(ceil_div(exact, TOKENS_PER_MTOK) + base_msat, ceiling_msat)


def quote_of(order: Order, model: Model) -> Quote:
    """The quote for `order`.

    Each token of the prompt is at least one byte of the body, whose syntax outweighs what chat
    templates add, except around tools; a body that refers to more is quoted at the whole context.
    Raises InvalidParameter if its limit is above the model's own, or if it is several requests to
    who bills those, InvalidModel if nothing of the
    model is priced that the order would use.
    """
    limit = _output_limit(order, model)
    price, media = model.price, order.media
    if order.sold_by and not _is_sold(order, price, limit):
        raise InvalidModel(f"{model.id} is not sold here for this endpoint.", param="model")
    if order.calls > 1 and price.request_msat:
        raise InvalidParameter(f"This is billed as {order.calls} requests: send fewer at once.")
    context_length = model.context_length * order.inputs
    body_tokens = order.prompt_bytes + (TOOLS_TOKENS_MAX if order.has_tools else 0)
    units_msat = 0
    if order.units is not NOTHING_USED:
        units_msat = cost_of(order.units, price).base_msat - price.request_msat
    request_msat = 0 if order.is_free else price.request_msat
    bounds = {
        "n": order.n,
        "context_length": context_length,
        "prompt_rate_msat": price.prompt_msat_per_mtok(
            audio="audio_input" in media, image="image_input" in media
        ),
        "answer_rate_msat": price.answer_msat_per_mtok(
            audio="audio_output" in media, image="image_output" in media
        ),
        "base_msat": request_msat + units_msat,
        "input_tokens_max": (
            context_length if order.input_unbounded else min(body_tokens, context_length)
        ),
        "ceiling_msat": max_cost_msat(model) * max(order.n, order.inputs) + units_msat,
    }
    total_msat = _bound(limit * order.n, **bounds)
    if total_msat == 0 and not (model.is_free or order.is_free):
        raise InvalidModel(f"{model.id} has no price for this.", param="model")
    return Quote(
        model_id=model.id,
        price=price,
        output_limit=limit,
        total_msat=total_msat,
        output_least=limit if order.is_fixed else OUTPUT_TOKENS_MIN,
        **bounds,
    )


def _is_sold(order: Order, price: Price, limit: int) -> bool:
    """Whether one of the prices that it needs is there, and bounded if it is one of tokens."""
    sold_by = {name for name in order.sold_by if getattr(price, name) is not None}
    is_by_output = sold_by <= set(OUTPUT_CLASSES.values())
    return bool(sold_by) and (limit > 0 or not is_by_output)


def _output_limit(order: Order, model: Model) -> int:
    """Output tokens per choice. Raises InvalidParameter for more than the model gives."""
    if not order.writes:
        return 0
    limit = model.max_output_tokens if order.output_limit is None else order.output_limit
    if limit > model.max_output_tokens:
        raise InvalidParameter(
            f"{model.id} gives at most {model.max_output_tokens} output tokens.",
            param=order.output_limit_field,
        )
    return limit


# ── price fixity: what a reservation keeps ────────────────────────────────────────────────────

_NUMBERS: Final = (
    "n",
    "context_length",
    "prompt_rate_msat",
    "answer_rate_msat",
    "base_msat",
    "input_tokens_max",
    "output_limit",
    "ceiling_msat",
    "total_msat",
    "output_least",
)


def price_snapshot(quote: Quote) -> dict[str, int | str]:
    """The quote with its price as integers and strings, for the reservation's row."""
    price = quote.price
    rates = {name: rate for name in RATES if (rate := getattr(price, name)) is not None}
    return {
        "model_id": quote.model_id,
        "price_version": price.version,
        **rates,
        **{name: getattr(quote, name) for name in _NUMBERS},
    }


def from_snapshot(snapshot: Mapping[str, object]) -> Quote:
    """The quote that was pinned. Raises RoutstrError if the row holds something else."""
    price = Price(
        version=_text(snapshot, "price_version"),
        **{name: _int(snapshot, name) for name in RATES if name in _KEPT or name in snapshot},
    )
    older = {
        "prompt_rate_msat": price.prompt_msat_per_mtok(),
        "answer_rate_msat": price.answer_msat_per_mtok(),
        "base_msat": price.request_msat,
        "output_least": OUTPUT_TOKENS_MIN,
    }
    return Quote(
        model_id=_text(snapshot, "model_id"),
        price=price,
        **{name: _int({**older, **snapshot}, name) for name in _NUMBERS},
    )


_KEPT: Final = frozenset({"input_msat_per_mtok", "output_msat_per_mtok", "request_msat"})


def _int(snapshot: Mapping[str, object], name: str) -> int:
    value = snapshot.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise RoutstrError(f"The reservation's price snapshot lacks {name}.")
    return value


def _text(snapshot: Mapping[str, object], name: str) -> str:
    value = snapshot.get(name)
    if not isinstance(value, str):
        raise RoutstrError(f"The reservation's price snapshot lacks {name}.")
    return value
