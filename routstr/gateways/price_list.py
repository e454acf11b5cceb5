"""The list of public USD prices that comes with the package `genai-prices`.

The package is only read: what it bundles is what counts, and its own update from the network is
never started; a newer list comes with a newer release. Where one of its prices depends on the time
of day or on the length of the prompt, the dearest is taken, so that no use is sold below cost.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_UP, Decimal
from functools import cache
from typing import TYPE_CHECKING, Final

from routstr.core.prices import usd_prices, usd_texts
from routstr.core.pricing import CONTEXT_TOKENS_MAX

if TYPE_CHECKING:
    from genai_prices.data_snapshot import DataSnapshot
    from genai_prices.types import ModelInfo

SOURCE: Final = "genai-prices"
HOURS: Final = 24
_PER_MILLION: Final = Decimal("1e-6")
_PER_THOUSAND: Final = Decimal("1e-3")
_STEP: Final = Decimal("1e-15")
_PER_HOUR: Final = (Decimal(1) / 3600).quantize(_STEP, rounding=ROUND_UP)

# Of two fields for one price the dearer counts. A cache that lives for an hour is not sold.
_FIELDS: Final[Mapping[str, tuple[str, Decimal]]] = {
    "input_mtok": ("input", _PER_MILLION),
    "output_mtok": ("output", _PER_MILLION),
    "cache_read_mtok": ("cache_read", _PER_MILLION),
    "cache_write_mtok": ("cache_write", _PER_MILLION),
    "input_audio_mtok": ("audio_input", _PER_MILLION),
    "input_image_mtok": ("image_input", _PER_MILLION),
    "output_reasoning_mtok": ("reasoning", _PER_MILLION),
    "output_audio_mtok": ("audio_output", _PER_MILLION),
    "output_image_mtok": ("image_output", _PER_MILLION),
    "input_mchars": ("character", _PER_MILLION),
    "requests_kcount": ("request", _PER_THOUSAND),
    "web_searches_kcount": ("web_search", _PER_THOUSAND),
    "audio_hours": ("second", _PER_HOUR),
    "input_audio_hours": ("second", _PER_HOUR),
}
# A model with such a word in its name uses what is dearer than text: it needs that price, too.
_NEEDED: Final = {"audio": "audio_output", "image": "image_output"}
# What these do by themselves (searches, sessions, screens) has prices that no usage tells: the
# operator sets one, or they are not sold.
_UNTOLD: Final = ("search", "research", "realtime", "-live", "computer-use")


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownPrice:
    """Exact USD prices as text, by their names in `core.prices`; a context of 0 is unknown."""

    usd: Mapping[str, str]
    context_length: int


def known_price(
    model_id: str,
    *,
    provider: str | None,
    base_url: str,
    now: datetime,
    context_length: int = 0,
) -> KnownPrice | None:
    """What the list says of a model of that provider, or of whoever is at that URL.

    `context_length` is what the upstream says it has: a prompt as long as that can be meant.
    None when it does not know the place or the model, or not all that the model's use would cost.
    """
    name = model_id.lower()
    if any(word in name for word in _UNTOLD):
        return None
    try:
        _, model = _bundled().find_provider_model(
            model_id, None, provider, None if provider else base_url
        )
    except LookupError:
        return None
    longest = max(context_length, model.context_window or CONTEXT_TOKENS_MAX)
    dearest: dict[str, Decimal] = {}
    for hour in range(HOURS):
        for kind, value in _prices(model, now + timedelta(hours=hour), longest).items():
            dearest[kind] = max(value, dearest.get(kind, value))
    usd = usd_prices({name: format(value, "f") for name, value in dearest.items()})
    lacks = (needed for word, needed in _NEEDED.items() if word in name)
    if not usd or any(needed not in usd for needed in lacks):
        return None
    return KnownPrice(usd=usd_texts(usd), context_length=model.context_window or 0)


@cache
def _bundled() -> "DataSnapshot":
    from genai_prices.data import providers  # noqa: PLC0415 - 7 MB that only some nodes need
    from genai_prices.data_snapshot import DataSnapshot  # noqa: PLC0415 - as above

    return DataSnapshot(providers=providers, from_auto_update=False)


def _prices(model: "ModelInfo", at: datetime, longest: int) -> dict[str, Decimal]:
    from genai_prices.types import TieredPrices  # noqa: PLC0415 - as above

    listed = model.get_prices(at)
    found: dict[str, Decimal] = {}
    for field, (name, per) in _FIELDS.items():
        value = getattr(listed, field)
        if isinstance(value, TieredPrices):
            reached = (tier.price for tier in value.tiers if tier.start < longest)
            value = max((value.base, *reached))
        if isinstance(value, Decimal):
            found[name] = max(value * per, found.get(name, value * per))
    return found
