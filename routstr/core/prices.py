"""From USD prices to the integer msat rates of a price version.

Laws: a rate is the exact USD price, times one plus the fee, at the exchange rate, rounded up once;
so no use is sold below its cost plus fee. A price that is not known is never 0: a zero in a list of
prices means "not said", and only the operator's own word makes a model free. Equal rates of a model
have the same version, whenever they were made.
"""

import hashlib
import re
from collections.abc import Mapping
from decimal import Context, Decimal
from typing import Final

import orjson

from routstr.core.money import ceil_div
from routstr.core.pricing import PRICE_MSAT_MAX, RATES, TOKENS_PER_MTOK, Price
from routstr.core.providers import EMBEDDINGS, EVERY_PATH, HEARING, IMAGES, MODERATIONS, SPEECH
from routstr.errors import InvalidParameter

PPM: Final = 1_000_000
MSAT_PER_BTC: Final = 10**11
FEE_PPM_MAX: Final = 100 * PPM

# The USD prices there are, each with the rate it becomes and how many of its units that is for.
CLASSES: Final[Mapping[str, tuple[str, int]]] = {
    "input": ("input_msat_per_mtok", TOKENS_PER_MTOK),
    "output": ("output_msat_per_mtok", TOKENS_PER_MTOK),
    "request": ("request_msat", 1),
    "cache_read": ("cache_read_msat_per_mtok", TOKENS_PER_MTOK),
    "cache_write": ("cache_creation_msat_per_mtok", TOKENS_PER_MTOK),
    "audio_input": ("audio_input_msat_per_mtok", TOKENS_PER_MTOK),
    "image_input": ("image_input_msat_per_mtok", TOKENS_PER_MTOK),
    "reasoning": ("reasoning_msat_per_mtok", TOKENS_PER_MTOK),
    "audio_output": ("audio_output_msat_per_mtok", TOKENS_PER_MTOK),
    "image_output": ("image_output_msat_per_mtok", TOKENS_PER_MTOK),
    "image": ("image_msat", 1),
    "second": ("second_msat", 1),
    "web_search": ("web_search_msat", 1),
    "character": ("characters_msat_per_million", 1_000_000),
}
UNITS: Final = {"image": IMAGES, "second": HEARING, "character": frozenset({SPEECH})}

UsdPrices = Mapping[str, Decimal]
"""USD per token or unit, by a name of CLASSES, each above 0."""

EXACT: Final = Context(prec=80)
_DECIMAL: Final = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,24})?(?:[eE][+-]?[0-9]{1,2})?")
_USD_STEP: Final = Decimal("1e-24")
_USD_MAX: Final = Decimal(1_000_000_000)


def decimal_from(text: object) -> Decimal | None:
    """A decimal of at least 0 from a text or number of a stranger's; None for anything else.

    More than 24 places behind the point, and a billion or more, are nobody's price.
    """
    if isinstance(text, float | int) and not isinstance(text, bool):
        text = repr(text)
    if not isinstance(text, str) or _DECIMAL.fullmatch(text) is None:
        return None
    value = EXACT.create_decimal(text)
    if value >= _USD_MAX or (value and value < _USD_STEP):
        return None
    return value


def usd_prices(said: Mapping[str, object]) -> UsdPrices:
    """What a list says, without what it leaves open: unknown names, zeros and nonsense."""
    found = {name: decimal_from(said.get(name)) for name in CLASSES}
    return {name: value for name, value in found.items() if value}


def usd_texts(prices: UsdPrices) -> dict[str, str]:
    """The prices as a row keeps them: exact, without exponent."""
    return {name: usd_text_of(value) for name, value in sorted(prices.items())}


def usd_text_of(value: Decimal) -> str:
    """A decimal as the text of a JSON number without exponent."""
    return format(EXACT.normalize(value), "f") if value else "0"


def sold_paths(prices: UsdPrices) -> frozenset[str]:
    """The paths that such prices are enough for.

    Prices of both sides can meter everything; a price of the input alone only what answers without
    tokens, and images if those have a price of their own; a price per unit what is counted in it.
    """
    if "input" in prices and "output" in prices:
        return EVERY_PATH
    paths = frozenset({EMBEDDINGS, MODERATIONS}) if "input" in prices else frozenset[str]()
    if "input" in prices and "image_output" in prices:
        paths |= IMAGES
    return paths.union(*(counted for unit, counted in UNITS.items() if unit in prices))


def rate_msat(usd: Decimal, *, per: int, fee_ppm: int, btc_usd: Decimal) -> int:
    """What `per` units cost in msat, fee included, rounded up."""
    usd_above, usd_below = usd.as_integer_ratio()
    btc_above, btc_below = btc_usd.as_integer_ratio()
    return ceil_div(
        usd_above * per * (PPM + fee_ppm) * MSAT_PER_BTC * btc_below,
        usd_below * PPM * btc_above,
    )


def rates_msat(prices: UsdPrices, *, fee_ppm: int, btc_usd: Decimal) -> dict[str, int]:
    """Every rate that `prices` set, by its name in `Price`.

    The side of the tokens that has no price costs what the other one does: it is never for nothing.
    Raises InvalidParameter for a fee or a result out of range.
    """
    if not 0 <= fee_ppm <= FEE_PPM_MAX:
        raise InvalidParameter(f"A fee is from 0 to {FEE_PPM_MAX} ppm.", param="fee_ppm")
    rates = {
        CLASSES[name][0]: rate_msat(usd, per=CLASSES[name][1], fee_ppm=fee_ppm, btc_usd=btc_usd)
        for name, usd in prices.items()
    }
    input_, output = rates.get("input_msat_per_mtok", 0), rates.get("output_msat_per_mtok", 0)
    rates["input_msat_per_mtok"] = input_ or output
    rates["output_msat_per_mtok"] = output or input_
    if max(rates.values()) > PRICE_MSAT_MAX:
        raise InvalidParameter("That price is out of all proportion.", param="price")
    return rates


def priced(model_id: str, rates: Mapping[str, int]) -> Price:
    """The price version of a model with those rates; equal ones have the same name."""
    named = [model_id, sorted((name, rate) for name, rate in rates.items())]
    digest = hashlib.sha256(orjson.dumps(named)).hexdigest()
    return Price(version=f"pv_{digest[:32]}", **rates)


def price_rates(price: Price) -> dict[str, int]:
    """The rates that a price sets, by their names."""
    rates = ((name, getattr(price, name)) for name in RATES)
    return {name: rate for name, rate in rates if rate is not None}


def before_fee(amount_msat: int, fee_ppm: int) -> int:
    """What of an amount with the operator's fee in it is the upstream's, rounded up."""
    return ceil_div(amount_msat * PPM, PPM + fee_ppm)


def with_fee(usd: Decimal, fee_ppm: int) -> Decimal:
    """A USD price as it is shown: the fee included, exactly."""
    return EXACT.multiply(usd, EXACT.multiply(Decimal(PPM + fee_ppm), Decimal("1e-6")))
