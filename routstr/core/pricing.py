"""Prices, what is used, and what the use costs.

Laws: the cost of a use is the exact sum of its lines, rounded up once, and is the sum of its
parts. Prices are integers: msat per million tokens or characters, msat per request, image, second
and web search. A class of tokens without a price of its own costs what its side costs; a unit
without a price is not sold.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Final, Literal, NamedTuple

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
OUTPUT_CLASSES: Final = {
    "reasoning_tokens": "reasoning_msat_per_mtok",
    "audio_output_tokens": "audio_output_msat_per_mtok",
    "image_output_tokens": "image_output_msat_per_mtok",
}
# The same with the name of its line in a bill.
_CLASSES: Final[Mapping[str, tuple[tuple[str, str, str], ...]]] = {
    side: tuple((used, priced, used.removesuffix("_tokens")) for used, priced in classes.items())
    for side, classes in (("input", INPUT_CLASSES), ("output", OUTPUT_CLASSES))
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
        text = (self.input_msat_per_mtok, self.read_msat_per_mtok, self.creation_msat_per_mtok)
        own_audio = (self.audio_input_msat_per_mtok if audio else None) or 0
        own_image = (self.image_input_msat_per_mtok if image else None) or 0
        return max(*text, own_audio, own_image)

    def answer_msat_per_mtok(self, *, audio: bool = True, image: bool = True) -> int:
        """The dearest that a million output tokens can be, with or without those media."""
        own_audio = (self.audio_output_msat_per_mtok if audio else None) or 0
        own_image = (self.image_output_msat_per_mtok if image else None) or 0
        return max(self.output_msat_per_mtok, self.thought_msat_per_mtok, own_audio, own_image)


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
        counts = {name: getattr(self, name) for name in _TOKENS}
        for name, _, _ in _UNITS:
            count = getattr(self, name)
            if count:
                counts[name] = count
        return counts


_TOKENS: Final = tuple(
    each.name for each in fields(Usage) if each.name not in {name for name, _, _ in _UNITS}
)
NOTHING_USED: Final = Usage(input_tokens=0, output_tokens=0)


class Line(NamedTuple):
    """A line of a bill: `units` at `rate_msat` for every `per` of them."""

    name: str
    side: Side
    units: int
    rate_msat: int
    per: int


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
        if self.total_msat <= amount_msat:
            return self
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
    return list(_lines(usage, price))


def cost_of(usage: Usage, price: Price) -> Cost:
    """The cost of `usage`: the exact sum rounded up once; each part is off by less than 1 msat."""
    base = input_ = output = cache_read = cache_creation = 0
    for name, side, count, rate_msat, per in _lines(usage, price):
        exact = count * rate_msat * (TOKENS_PER_MTOK // per)
        if side == "base":
            base += exact
        elif side == "output":
            output += exact
        else:
            input_ += exact
            if name == "cache_read":
                cache_read += exact
            elif name == "cache_creation":
                cache_creation += exact
    total_msat = ceil_div(base + input_ + output, TOKENS_PER_MTOK)
    # The rounding goes to the output, else to the input, as far as they have something to round.
    output_msat = min(
        ceil_div(output, TOKENS_PER_MTOK), total_msat - floor_div(base + input_, TOKENS_PER_MTOK)
    )
    input_msat = min(
        ceil_div(input_, TOKENS_PER_MTOK),
        total_msat - output_msat - floor_div(base, TOKENS_PER_MTOK),
    )
    return Cost(
        base_msat=total_msat - output_msat - input_msat,
        input_msat=input_msat,
        output_msat=output_msat,
        cache_read_msat=floor_div(cache_read, TOKENS_PER_MTOK),
        cache_creation_msat=floor_div(cache_creation, TOKENS_PER_MTOK),
        usage=usage,
    )


def _lines(usage: Usage, price: Price) -> Iterator[Line]:
    """Every line with a count, and that of the request."""
    yield Line("request", "base", 1, price.request_msat, 1)
    for used, priced, per in _UNITS:
        count = getattr(usage, used)
        if count:
            yield Line(used, "base", count, getattr(price, priced) or 0, per)
    yield from _side("input", usage.input_tokens, usage, price, price.input_msat_per_mtok)
    yield from _side("output", usage.output_tokens, usage, price, price.output_msat_per_mtok)


def _side(
    side: Literal["input", "output"], plain: int, usage: Usage, price: Price, plain_rate_msat: int
) -> Iterator[Line]:
    """A side's classes, then its plain tokens: of all that it has, what is left of them."""
    for used, priced, name in _CLASSES[side]:
        count = getattr(usage, used)
        if count:
            own = getattr(price, priced)
            rate_msat = plain_rate_msat if own is None else own
            yield Line(name, side, count, rate_msat, TOKENS_PER_MTOK)
            plain -= count
    assert plain >= 0
    if plain:
        yield Line(side, side, plain, plain_rate_msat, TOKENS_PER_MTOK)


def _check_range(name: str, value: object, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        raise InvalidParameter(f"{name} must be an integer from {low} to {high}.", param=name)
