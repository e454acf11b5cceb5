"""What a use costs, and at most can cost.

Laws: the cost of a use is the exact sum, rounded up once, and is the sum of its parts; a use
within a quote's bounds never costs more than the quote; no quote exceeds the published maximum of
its model, per choice. Prices are integers: msat per million tokens, msat per request.
"""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from routstr.core.money import INT64_MAX, ceil_div, floor_div
from routstr.core.order import ChatOrder
from routstr.errors import InvalidParameter, RoutstrError

TOKENS_PER_MTOK: Final = 1_000_000
OUTPUT_TOKENS_MIN: Final = 16
TOOLS_TOKENS_MAX: Final = 512  # what a template writes around tool definitions

# With these no quote and no possible cost leaves 64 bits, whatever `n` (128) is.
PRICE_MSAT_MAX: Final = 10**12
CONTEXT_TOKENS_MAX: Final = 10**8
assert 2 * 128 * CONTEXT_TOKENS_MAX * PRICE_MSAT_MAX < INT64_MAX * TOKENS_PER_MTOK


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """One version of a model's price, in msat.

    Cached input is priced as other input unless it has a price of its own. Raises
    InvalidParameter unless every price is an integer from 0 to `PRICE_MSAT_MAX`.
    """

    version: str
    input_msat_per_mtok: int
    output_msat_per_mtok: int
    request_msat: int = 0
    cache_read_msat_per_mtok: int | None = None
    cache_creation_msat_per_mtok: int | None = None

    def __post_init__(self) -> None:
        _check_range("input_msat_per_mtok", self.input_msat_per_mtok, 0, PRICE_MSAT_MAX)
        _check_range("output_msat_per_mtok", self.output_msat_per_mtok, 0, PRICE_MSAT_MAX)
        _check_range("request_msat", self.request_msat, 0, PRICE_MSAT_MAX)
        _check_range("cache_read_msat_per_mtok", self.read_msat_per_mtok, 0, PRICE_MSAT_MAX)
        _check_range("cache_creation_msat_per_mtok", self.creation_msat_per_mtok, 0, PRICE_MSAT_MAX)

    @property
    def read_msat_per_mtok(self) -> int:
        """What a million input tokens read from a cache cost."""
        own = self.cache_read_msat_per_mtok
        return self.input_msat_per_mtok if own is None else own

    @property
    def creation_msat_per_mtok(self) -> int:
        """What a million input tokens written to a cache cost."""
        own = self.cache_creation_msat_per_mtok
        return self.input_msat_per_mtok if own is None else own

    @property
    def prompt_msat_per_mtok(self) -> int:
        """The dearest that a million input tokens can be."""
        return max(self.input_msat_per_mtok, self.read_msat_per_mtok, self.creation_msat_per_mtok)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What this node sells under one id; times in Unix seconds.

    Raises InvalidParameter unless 0 <= max_output_tokens <= context_length <= 10^8.
    """

    id: str
    name: str
    context_length: int
    max_output_tokens: int
    price: Price
    created: int = 0
    description: str = ""

    def __post_init__(self) -> None:
        _check_range("context_length", self.context_length, 1, CONTEXT_TOKENS_MAX)
        _check_range("max_output_tokens", self.max_output_tokens, 0, self.context_length)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens used. Cached tokens lie within the input, reasoning tokens within the output."""

    input_tokens: int
    output_tokens: int
    cache_read_tokens: int = 0
    cache_creation_tokens: int = 0
    reasoning_tokens: int = 0


NOTHING_USED: Final = Usage(input_tokens=0, output_tokens=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """A cost by its parts, in msat: total = base + input + output; cache lies within input."""

    base_msat: int
    input_msat: int
    output_msat: int
    cache_read_msat: int = 0
    cache_creation_msat: int = 0
    usage: Usage = NOTHING_USED

    @property
    def total_msat(self) -> int:
        """The whole cost."""
        return self.base_msat + self.input_msat + self.output_msat

    def capped_at(self, amount_msat: int) -> "Cost":
        """The cost as charged when only `amount_msat` is: output gives way first, then input."""
        base = min(self.base_msat, amount_msat)
        input_ = min(self.input_msat, amount_msat - base)
        read = min(self.cache_read_msat, input_)
        return replace(
            self,
            base_msat=base,
            input_msat=input_,
            output_msat=min(self.output_msat, amount_msat - base - input_),
            cache_read_msat=read,
            cache_creation_msat=min(self.cache_creation_msat, input_ - read),
        )


NO_COST: Final = Cost(base_msat=0, input_msat=0, output_msat=0)


def cost_of(usage: Usage, price: Price) -> Cost:
    """The cost of `usage`: the exact sum rounded up once; each part is off by less than 1 msat."""
    plain_tokens = usage.input_tokens - usage.cache_read_tokens - usage.cache_creation_tokens
    assert plain_tokens >= 0
    read = usage.cache_read_tokens * price.read_msat_per_mtok
    creation = usage.cache_creation_tokens * price.creation_msat_per_mtok
    input_exact = plain_tokens * price.input_msat_per_mtok + read + creation
    output_exact = usage.output_tokens * price.output_msat_per_mtok
    tokens_msat = ceil_div(input_exact + output_exact, TOKENS_PER_MTOK)
    # The rounding goes to the output, as far as the output has something to round.
    output_msat = min(
        ceil_div(output_exact, TOKENS_PER_MTOK),
        tokens_msat - floor_div(input_exact, TOKENS_PER_MTOK),
    )
    return Cost(
        base_msat=price.request_msat,
        input_msat=tokens_msat - output_msat,
        output_msat=output_msat,
        cache_read_msat=floor_div(read, TOKENS_PER_MTOK),
        cache_creation_msat=floor_div(creation, TOKENS_PER_MTOK),
        usage=usage,
    )


def max_cost_msat(model: Model) -> int:
    """The published maximum of one answer (contract, section 3), in msat."""
    price, output_tokens = model.price, model.max_output_tokens
    prompt = (model.context_length - output_tokens) * price.prompt_msat_per_mtok
    completion = output_tokens * price.output_msat_per_mtok
    return ceil_div(prompt + completion, TOKENS_PER_MTOK) + price.request_msat


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """The most an order can cost, pinned with its price until the hold ends.

    `input_tokens_max` bounds the prompt by the body, `output_limit` is tokens per choice,
    `ceiling_msat` the published maximum times `n`.
    """

    model_id: str
    price: Price
    n: int
    context_length: int
    input_tokens_max: int
    output_limit: int
    ceiling_msat: int
    total_msat: int

    @property
    def minimum_msat(self) -> int:
        """What the smallest answer worth starting takes: 16 output tokens, or the limit if less."""
        return self.msat_for(min(OUTPUT_TOKENS_MIN, self.output_limit) * self.n)

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
        return replace(self, output_limit=limit, total_msat=_bound_msat(self, limit * self.n))


def _bound_msat(quote: Quote, output_tokens: int) -> int:
    """The bound for `output_tokens` in total; it never falls as they grow.

    Prompt and answer share the context. Each output token takes the place of one input token, so
    where output is the dearer one, the context less the output bounds the prompt.
    """
    price = quote.price
    prompt_price, output_price = price.prompt_msat_per_mtok, price.output_msat_per_mtok
    room = quote.context_length
    if output_price >= prompt_price:
        room -= floor_div(output_tokens, quote.n)
    exact = min(quote.input_tokens_max, room) * prompt_price + output_tokens * output_price
    return min(ceil_div(exact, TOKENS_PER_MTOK) + price.request_msat, quote.ceiling_msat)


def quote_of(order: ChatOrder, model: Model) -> Quote:
    """The quote for `order`. Raises InvalidParameter if its limit is above the model's own.

    Each token of the prompt is at least one byte of the body, whose syntax outweighs what chat
    templates add, except around tools; a body that refers to more is quoted at the whole context.
    """
    limit = model.max_output_tokens if order.output_limit is None else order.output_limit
    if limit > model.max_output_tokens:
        raise InvalidParameter(
            f"{model.id} gives at most {model.max_output_tokens} output tokens.",
            param=order.output_limit_field,
        )
    body_tokens = order.prompt_bytes + (TOOLS_TOKENS_MAX if order.has_tools else 0)
    quote = Quote(
        model_id=model.id,
        price=model.price,
        n=order.n,
        context_length=model.context_length,
        input_tokens_max=(
            model.context_length
            if order.input_unbounded
            else min(body_tokens, model.context_length)
        ),
        output_limit=limit,
        ceiling_msat=max_cost_msat(model) * order.n,
        total_msat=0,
    )
    return quote.lowered_to(limit)


# ── price fixity: what a reservation keeps ────────────────────────────────────────────────────

Snapshot = Mapping[str, int | str]


def price_snapshot(quote: Quote) -> dict[str, int | str]:
    """The quote with its price as integers and strings, for the reservation's row."""
    price = quote.price
    return {
        "model_id": quote.model_id,
        "price_version": price.version,
        "input_msat_per_mtok": price.input_msat_per_mtok,
        "output_msat_per_mtok": price.output_msat_per_mtok,
        "cache_read_msat_per_mtok": price.read_msat_per_mtok,
        "cache_creation_msat_per_mtok": price.creation_msat_per_mtok,
        "request_msat": price.request_msat,
        "n": quote.n,
        "context_length": quote.context_length,
        "input_tokens_max": quote.input_tokens_max,
        "output_limit": quote.output_limit,
        "ceiling_msat": quote.ceiling_msat,
        "total_msat": quote.total_msat,
    }


def from_snapshot(snapshot: Mapping[str, object]) -> Quote:
    """The quote that was pinned. Raises RoutstrError if the row holds something else."""
    price = Price(
        version=_text(snapshot, "price_version"),
        input_msat_per_mtok=_int(snapshot, "input_msat_per_mtok"),
        output_msat_per_mtok=_int(snapshot, "output_msat_per_mtok"),
        request_msat=_int(snapshot, "request_msat"),
        cache_read_msat_per_mtok=_int(snapshot, "cache_read_msat_per_mtok"),
        cache_creation_msat_per_mtok=_int(snapshot, "cache_creation_msat_per_mtok"),
    )
    return Quote(
        model_id=_text(snapshot, "model_id"),
        price=price,
        n=_int(snapshot, "n"),
        context_length=_int(snapshot, "context_length"),
        input_tokens_max=_int(snapshot, "input_tokens_max"),
        output_limit=_int(snapshot, "output_limit"),
        ceiling_msat=_int(snapshot, "ceiling_msat"),
        total_msat=_int(snapshot, "total_msat"),
    )


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


def _check_range(name: str, value: int, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        raise InvalidParameter(f"{name} must be an integer from {low} to {high}.", param=name)
