"""Prices, what is used, and what the use costs.

Laws: the cost of a use is the exact sum of its lines, rounded up once, and is the sum of its
parts. Prices are integers: msat per million tokens or characters, msat per request, image, second
and web search. A class of tokens without a price of its own costs what its side costs; a unit
without a price is not sold.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Final, Literal

from routstr.core.money import INT64_MAX, ceil_div, floor_div
from routstr.errors import InvalidParameter

TOKENS_PER_MTOK: Final = 1_000_000

# With these no quote and no possible cost leaves 64 bits, whatever `n` (128) is.
PRICE_MSAT_MAX: Final = 10**12
CONTEXT_TOKENS_MAX: Final = 10**8
UNITS_MAX: Final = 10**6  # images, seconds and searches, each
CHARACTERS_MAX: Final = 10**9
assert (
    2 * 128 * CONTEXT_TOKENS_MAX * PRICE_MSAT_MAX + CHARACTERS_MAX * PRICE_MSAT_MAX
) // TOKENS_PER_MTOK + (3 * UNITS_MAX + 1) * PRICE_MSAT_MAX < INT64_MAX

Side = Literal["base", "input", "output"]

# Tokens within the input and within the output: usage's field, price's field.
INPUT_CLASSES: Final = {
    "cache_read_tokens": "cache_read_msat_per_mtok",
    "cache_creation_tokens": "cache_creation_msat_per_mtok",
    "audio_input_tokens": "audio_input_msat_per_mtok",
    "image_input_tokens": "image_input_msat_per_mtok",
}
_CACHE: Final = ("cache_read", "cache_creation")
OUTPUT_CLASSES: Final = {
    "reasoning_tokens": "reasoning_msat_per_mtok",
    "audio_output_tokens": "audio_output_msat_per_mtok",
    "image_output_tokens": "image_output_msat_per_mtok",
}
_UNITS: Final = (
    ("images", "image_msat", 1),
    ("seconds", "second_msat", 1),
    ("web_searches", "web_search_msat", 1),
    ("characters", "characters_msat_per_million", TOKENS_PER_MTOK),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """One version of a model's price, in msat; None is no price of its own.

    Raises InvalidParameter unless every price is an integer from 0 to `PRICE_MSAT_MAX`.
    """

    version: str
    input_msat_per_mtok: int
    output_msat_per_mtok: int
    request_msat: int = 0
    # classes of input; None: as other input
    cache_read_msat_per_mtok: int | None = None
    cache_creation_msat_per_mtok: int | None = None
    audio_input_msat_per_mtok: int | None = None
    image_input_msat_per_mtok: int | None = None
    # classes of output; None: as other output
    reasoning_msat_per_mtok: int | None = None
    audio_output_msat_per_mtok: int | None = None
    image_output_msat_per_mtok: int | None = None
    # units; None: not sold by that unit
    image_msat: int | None = None
    second_msat: int | None = None
    web_search_msat: int | None = None
    characters_msat_per_million: int | None = None

    def __post_init__(self) -> None:
        for name in RATES:
            value = getattr(self, name)
            if value is not None or name in _REQUIRED_RATES:
                _check_range(name, value, 0, PRICE_MSAT_MAX)

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
    def thought_msat_per_mtok(self) -> int:
        """What a million tokens of reasoning cost."""
        own = self.reasoning_msat_per_mtok
        return self.output_msat_per_mtok if own is None else own

    def prompt_msat_per_mtok(self, *, audio: bool = True, image: bool = True) -> int:
        """The dearest that a million input tokens can be, with or without those media."""
        own = [self.audio_input_msat_per_mtok if audio else None]
        own.append(self.image_input_msat_per_mtok if image else None)
        text = (self.input_msat_per_mtok, self.read_msat_per_mtok, self.creation_msat_per_mtok)
        return max(*text, *(rate for rate in own if rate is not None))

    def answer_msat_per_mtok(self, *, audio: bool = True, image: bool = True) -> int:
        """The dearest that a million output tokens can be, with or without those media."""
        own = [self.audio_output_msat_per_mtok if audio else None]
        own.append(self.image_output_msat_per_mtok if image else None)
        text = (self.output_msat_per_mtok, self.thought_msat_per_mtok)
        return max(*text, *(rate for rate in own if rate is not None))


RATES: Final = tuple(each.name for each in fields(Price) if each.name != "version")
"""The names of every price, in order."""
_REQUIRED_RATES: Final = frozenset({"input_msat_per_mtok", "output_msat_per_mtok", "request_msat"})


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
    is_free: bool = False  # the operator's word; otherwise nothing is given away

    def __post_init__(self) -> None:
        _check_range("context_length", self.context_length, 1, CONTEXT_TOKENS_MAX)
        _check_range("max_output_tokens", self.max_output_tokens, 0, self.context_length)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What was used. Classes of tokens lie within their side and do not overlap."""

    input_tokens: int
    output_tokens: int
    # within the input
    cache_read_tokens: int = 0
    cache_creation_tokens: int = 0
    audio_input_tokens: int = 0
    image_input_tokens: int = 0
    # within the output
    reasoning_tokens: int = 0
    audio_output_tokens: int = 0
    image_output_tokens: int = 0
    # units
    images: int = 0
    seconds: int = 0
    web_searches: int = 0
    characters: int = 0

    @property
    def is_sane(self) -> bool:
        """Whether no count is negative and the classes of each side lie within it."""
        inner: int = sum(getattr(self, name) for name in INPUT_CLASSES)
        outer: int = sum(getattr(self, name) for name in OUTPUT_CLASSES)
        is_negative = any(getattr(self, each.name) < 0 for each in fields(self))
        return not is_negative and inner <= self.input_tokens and outer <= self.output_tokens

    def counts(self) -> dict[str, int]:
        """Tokens by name, and the units that were used."""
        units = {name for name, _, _ in _UNITS}
        named = ((each.name, getattr(self, each.name)) for each in fields(self))
        return {name: count for name, count in named if count or name not in units}


NOTHING_USED: Final = Usage(input_tokens=0, output_tokens=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of a bill: `count` at `rate_msat` for every `per` of them."""

    name: str
    side: Side
    count: int
    rate_msat: int
    per: int

    @property
    def exact(self) -> int:
        """What it comes to, in millionths of a msat."""
        return self.count * self.rate_msat * (TOKENS_PER_MTOK // self.per)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """A cost by its parts, in msat: total = base + input + output; cache lies within input.

    Units and the request itself are the base.
    """

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


def cost_lines(usage: Usage, price: Price) -> list[Line]:
    """The bill of `usage`, line by line, without what was not used; its sum is the exact cost."""
    return [line for line in _lines(usage, price) if line.count]


def cost_of(usage: Usage, price: Price) -> Cost:
    """The cost of `usage`: the exact sum rounded up once; each part is off by less than 1 msat."""
    exact = {"base": 0, "input": 0, "output": 0, "cache_read": 0, "cache_creation": 0}
    for line in _lines(usage, price):
        exact[line.side] += line.exact
        if line.name in _CACHE:
            exact[line.name] += line.exact
    total_msat = ceil_div(exact["base"] + exact["input"] + exact["output"], TOKENS_PER_MTOK)
    # The rounding goes to the output, else to the input, as far as they have something to round.
    output_msat = min(
        ceil_div(exact["output"], TOKENS_PER_MTOK),
        total_msat - floor_div(exact["base"] + exact["input"], TOKENS_PER_MTOK),
    )
    input_msat = min(
        ceil_div(exact["input"], TOKENS_PER_MTOK),
        total_msat - output_msat - floor_div(exact["base"], TOKENS_PER_MTOK),
    )
    return Cost(
        base_msat=total_msat - output_msat - input_msat,
        input_msat=input_msat,
        output_msat=output_msat,
        cache_read_msat=floor_div(exact["cache_read"], TOKENS_PER_MTOK),
        cache_creation_msat=floor_div(exact["cache_creation"], TOKENS_PER_MTOK),
        usage=usage,
    )


def _lines(usage: Usage, price: Price) -> Iterator[Line]:
    yield Line(name="request", side="base", count=1, rate_msat=price.request_msat, per=1)
    for used, priced, per in _UNITS:
        rate_msat = getattr(price, priced) or 0
        yield Line(name=used, side="base", count=getattr(usage, used), rate_msat=rate_msat, per=per)
    yield from _side("input", usage.input_tokens, usage, price)
    yield from _side("output", usage.output_tokens, usage, price)


def _side(
    side: Literal["input", "output"], tokens: int, usage: Usage, price: Price
) -> Iterator[Line]:
    """The plain tokens of a side, then its classes."""
    plain_rate = price.input_msat_per_mtok if side == "input" else price.output_msat_per_mtok
    plain = tokens
    classes = INPUT_CLASSES if side == "input" else OUTPUT_CLASSES
    for used, priced in classes.items():
        count = getattr(usage, used)
        if not count:
            continue
        own = getattr(price, priced)
        rate_msat = plain_rate if own is None else own
        name = used.removesuffix("_tokens")
        yield Line(name=name, side=side, count=count, rate_msat=rate_msat, per=TOKENS_PER_MTOK)
        plain -= count
    assert plain >= 0
    yield Line(name=side, side=side, count=plain, rate_msat=plain_rate, per=TOKENS_PER_MTOK)


def _check_range(name: str, value: object, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        raise InvalidParameter(f"{name} must be an integer from {low} to {high}.", param=name)
