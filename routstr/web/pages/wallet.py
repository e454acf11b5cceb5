"""`/` for people: what this node is and sells, and a wallet that lives in their own browser.

Laws: the page is whole without a script but for what needs a key; a key or a token is never in it,
nor in an address; no script may run that is not a file of ours, and none may turn text into markup.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final
from urllib.parse import urlsplit

from fastapi import Request, Response
from markupsafe import Markup

from routstr.flows.context import Context
from routstr.flows.storefront import Till, Ware, chats, tills, wares
from routstr.web.here import address_of
from routstr.web.pages.kit import POLICY, fragment, page

MODELS_MAX: Final = 500
NO_MODEL: Final = "model-id"
# Text that a model, a mint or a node wrote cannot become markup, whatever a script does with it.
WALLET_POLICY: Final = f"{POLICY}; require-trusted-types-for 'script'; trusted-types 'none'"
CENT: Final = Decimal("0.01")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A model as the page lists it; amounts in msat, USD as text."""

    id: str
    name: str
    context: int
    input_msat: int
    output_msat: int
    input_usd: str
    output_usd: str
    besides: tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mint:
    """A mint by its address and by the name people know it by."""

    url: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What the page says beside the models; `data` is for its scripts."""

    name: str
    description: str
    version: str
    npub: str | None
    base_url: str
    model: str
    mints: tuple[Mint, ...]
    data: dict[str, Any]


async def wallet_page(request: Request, ctx: Context) -> Response:
    """The page of this node, as it stands now."""
    facts, taken = ctx.facts, await tills(ctx)
    base_url = f"{address_of(request, ctx)}/v1"
    card = Card(
        name=facts.name,
        description=facts.description,
        version=facts.version,
        npub=facts.npub,
        base_url=base_url,
        model=next(
            (each.model.id for each in ctx.catalog.picture.listings.values() if chats(each)),
            NO_MODEL,
        ),
        mints=tuple(Mint(url=each.url, name=_mint_name(each.url)) for each in taken),
        data=_data(ctx, taken),
    )
    headers = {"Content-Security-Policy": WALLET_POLICY, "Vary": "Accept"}
    return page("wallet/home.html", headers=headers, card=card, models=await _models(ctx))


async def _models(ctx: Context) -> Markup:
    """The list of models, made once for each picture, and beside the requests that are paid."""
    picture, painted = ctx.catalog.picture, ctx.catalog.painted
    if painted is None or painted[0] is not picture:
        painted = (picture, await asyncio.to_thread(_painted, wares(picture)))
        ctx.catalog.painted = painted
    return Markup(painted[1])  # noqa: S704 - a fragment of ours, which escapes


def _painted(sold: list[Ware]) -> Markup:
    return fragment(
        "wallet/models.html",
        models=[_row(each) for each in sold[:MODELS_MAX]],
        left_out=max(0, len(sold) - MODELS_MAX),
        chatting=[
            {
                "id": each.id,
                "name": each.name,
                "input_msat": each.input_msat,
                "output_msat": each.output_msat,
                "request_msat": each.request_msat,
            }
            for each in sold
            if each.chats
        ],
    )


def _data(ctx: Context, taken: Iterable[Till]) -> dict[str, Any]:
    btc_usd = ctx.catalog.btc_usd
    lock = None if ctx.limits.p2pk_lock == "off" else ctx.acceptance.current
    return {
        "btc_usd": None if btc_usd is None else str(btc_usd),
        "lock": lock,
        "mints": [{"url": each.url, "fees_ppk": dict(each.fees_ppk)} for each in taken],
    }


def _row(ware: Ware) -> Row:
    return Row(
        id=ware.id,
        name=ware.name,
        context=ware.context,
        input_msat=ware.input_msat,
        output_msat=ware.output_msat,
        input_usd=dollars(ware.input_usd),
        output_usd=dollars(ware.output_usd),
        besides=ware.besides,
    )


def dollars(amount: Decimal | None) -> str:
    """An amount in USD for people: cents, and below one two digits that count."""
    if amount is None:
        return ""
    if amount and amount < CENT:
        return f"${amount.quantize(Decimal(1).scaleb(amount.adjusted() - 1)).normalize():f}"
    return f"${amount.quantize(CENT):,f}"


def _mint_name(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.netloc}{parts.path.rstrip('/')}"
