"""What the node sells and whom it takes money from, as people look at it; asks nobody."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from routstr.core.dialects import CHAT
from routstr.core.pricing import TOKENS_PER_MTOK
from routstr.flows.catalog import Listing, Picture
from routstr.flows.context import Context
from routstr.flows.mints import UNITS, remembered_mint

MSAT_PER_BTC: Final = Decimal(10**11)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ware:
    """A model on sale: msat and USD per million tokens, None where it is not sold by them.

    `besides` are prices of other units: an amount in msat, and the unit's name. It `chats` if
    `/v1/chat/completions` sells it.
    """

    id: str
    name: str
    context: int
    output_tokens_max: int
    input_msat: int
    output_msat: int
    request_msat: int
    input_usd: Decimal | None
    output_usd: Decimal | None
    besides: tuple[tuple[int, str], ...]
    chats: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Till:
    """A mint whose ecash is taken. `fees_ppk` are its keysets' fees as last seen, by their ids."""

    url: str
    fees_ppk: Mapping[str, int]


def wares(picture: Picture) -> list[Ware]:
    """Every model on sale, as listed."""
    return [_ware(each, picture.btc_usd) for each in picture.listings.values()]


async def tills(ctx: Context) -> list[Till]:
    """The mints that are accepted, the one that is best liked first."""
    found = []
    for url in ctx.facts.mints:
        seen = ctx.shelf.find(url)
        mint = await remembered_mint(ctx, url) if seen is None else seen.mint
        keysets = () if mint is None else mint.keysets
        fees = {each.id: each.input_fee_ppk for each in keysets if each.unit in UNITS}
        found.append(Till(url=url, fees_ppk=fees))
    return found


def chats(listing: Listing) -> bool:
    """Whether it is sold at `/v1/chat/completions`."""
    return any(CHAT.path in each.paths for each in listing.candidates)


def _ware(listing: Listing, btc_usd: Decimal | None) -> Ware:
    model, usd = listing.model, listing.shown.usd
    price = model.price
    units = (
        (price.request_msat, "request"),
        (price.image_msat, "image"),
        (price.second_msat, "second"),
        (price.web_search_msat, "search"),
    )
    return Ware(
        id=model.id,
        name=model.name,
        context=model.context_length,
        output_tokens_max=model.max_output_tokens,
        input_msat=price.input_msat_per_mtok,
        output_msat=price.output_msat_per_mtok,
        request_msat=price.request_msat,
        input_usd=_usd(usd.get("input"), price.input_msat_per_mtok, btc_usd),
        output_usd=_usd(usd.get("output"), price.output_msat_per_mtok, btc_usd),
        besides=tuple((amount, unit) for amount, unit in units if amount),
        chats=chats(listing),
    )


def _usd(listed: Decimal | None, msat: int, btc_usd: Decimal | None) -> Decimal | None:
    """USD per million tokens: as listed, else by the rate that amounts are shown with."""
    if listed is not None:
        return listed * TOKENS_PER_MTOK
    return None if btc_usd is None else msat * btc_usd / MSAT_PER_BTC
