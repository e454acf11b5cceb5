"""What the operator does to the catalog: upstreams, models, and routes sold by the request.

Everything he says is checked here, once, for the command line and for every page: names, URLs,
margins in percent, prices as price lists have them (USD per million tokens or characters, and USD
per image, second, search or request).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final
from urllib.parse import urlsplit

from routstr.core.dialects import DIALECTS
from routstr.core.prices import CLASSES, EXACT, FEE_PPM_MAX, decimal_from, usd_text_of
from routstr.core.pricing import CONTEXT_TOKENS_MAX, PRICE_MSAT_MAX
from routstr.core.providers import EVERY_PATH, PROVIDERS
from routstr.core.url import BadUrl, joined, upstream_base
from routstr.errors import InvalidParameter, NotFound
from routstr.flows.context import Context
from routstr.gateways.listing import ID_CHARS_MAX
from routstr.gateways.upstream_config import BUILT_IN
from routstr.ledger.rates import RemoveRoute, SaveRoute
from routstr.ledger.reads_catalog import UpstreamRow, stored_routes, stored_upstreams
from routstr.ledger.upstreams import AddUpstream, ChangeUpstream, RemoveUpstream, SetModel

ALIASES_MAX: Final = 32
WEIGHT_MAX: Final = 1_000_000
METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
# What the node itself answers for, by the first part behind an optional `/v1`: never for sale.
OWN_PATHS: Final = frozenset(
    {"admin", "balance", "docs", "health", "info", "key", "lightning", "metrics", "models"}
    | {"openapi.json", "quote", "ready", "receipts", "static", "v2", "wallet"}
)
_SLUG: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?")
_KEY: Final = re.compile(r"[!-~]{0,512}")
_PPM_PER_PERCENT: Final = Decimal(10_000)
_SOMEWHERE: Final = "https://some.example"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamWish:
    """What the operator says of an upstream; None leaves it as it is, or at its default.

    One that `is_local` is on his own network: it may be plain http, and nothing else is called. No
    `paths` at all are those of its kind.
    """

    provider_type: str | None = None
    base_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    api_version: str | None = None
    margin_percent: Decimal | None = None
    weight: int | None = None
    sells_new: bool | None = None
    enabled: bool | None = None
    is_local: bool | None = None
    paths: Sequence[str] | None = None


async def add_upstream(ctx: Context, slug: str, wish: UpstreamWish) -> str:
    """Keep a new upstream; its id. Raises InvalidParameter."""
    kind = wish.provider_type or slug
    if kind not in PROVIDERS:
        raise InvalidParameter(f"The kind is one of {', '.join(PROVIDERS)}.", param="type")
    base_url = wish.base_url or PROVIDERS[kind].base_url
    if not base_url:
        raise InvalidParameter("Say the base URL of that upstream.", param="base_url")
    _checked(wish)
    return await ctx.ledger.submit(
        AddUpstream(
            upstream_id=ctx.new_id("up"),
            slug=_slug(slug),
            provider_type=kind,
            base_url=_base(ctx, base_url, is_local=wish.is_local is True),
            api_key=_key(wish.api_key or ""),
            api_version=wish.api_version or None,
            fee_ppm=0 if wish.margin_percent is None else margin_ppm(wish.margin_percent),
            weight=wish.weight or 0,
            sells_new=True if wish.sells_new is None else wish.sells_new,
            provider_settings=_settings(wish, {}),
        )
    )


async def change_upstream(
    ctx: Context, slug: str, wish: UpstreamWish, *, new_slug: str | None = None
) -> None:
    """Change what the wish says. Raises InvalidParameter, NotFound.

    A key is for the place it was given for: who moves an upstream elsewhere gives its key again, or
    none (empty). Else whoever may change an address could read the key there.
    """
    changes = _checked(wish)
    row = next((each for each in await _upstreams(ctx) if each.slug == slug), None)
    known = {} if row is None else row.provider_settings
    settings = _settings(wish, known)
    if settings != known:
        changes["provider_settings"] = settings
    if row is not None and (wish.base_url is not None or wish.is_local is not None):
        is_local = settings.get("local") is True
        base_url = _base(ctx, wish.base_url or row.base_url, is_local=is_local)
        if row.sealed_key and wish.api_key is None and _origin(base_url) != _origin(row.base_url):
            raise InvalidParameter(
                "The key that is kept is for another address: give the key as well.",
                param="api_key",
            )
        changes["base_url"] = base_url
    if new_slug is not None:
        changes["slug"] = _slug(new_slug)
    key = None if wish.api_key is None else _key(wish.api_key)
    await ctx.ledger.submit(ChangeUpstream(slug=slug, changes=changes, api_key=key))


async def remove_upstream(ctx: Context, slug: str) -> bool:
    """Forget it with its models; False if routes need it, and it was only switched off.

    Raises NotFound.
    """
    if all(each.slug != slug for each in await _upstreams(ctx)):
        raise NotFound("There is no upstream of that name.", param="slug")
    return await ctx.ledger.submit(RemoveUpstream(slug=slug))


def _checked(wish: UpstreamWish) -> dict[str, object]:
    changes: dict[str, object] = {}
    if wish.provider_type is not None:
        if wish.provider_type not in PROVIDERS:
            raise InvalidParameter(f"The kind is one of {', '.join(PROVIDERS)}.", param="type")
        changes["provider_type"] = wish.provider_type
    if wish.api_version is not None:
        changes["api_version"] = _key(wish.api_version) or None
    if wish.margin_percent is not None:
        changes["fee_ppm"] = margin_ppm(wish.margin_percent)
    if wish.weight is not None:
        changes["weight"] = _within("weight", wish.weight, WEIGHT_MAX)
    if wish.sells_new is not None:
        changes["sells_new"] = wish.sells_new
    if wish.enabled is not None:
        changes["enabled"] = wish.enabled
    return changes


def _settings(wish: UpstreamWish, known: Mapping[str, object]) -> dict[str, object]:
    """What is kept beside the columns: whether it is local, and what it speaks if that is said."""
    settings = dict(known)
    if wish.is_local is not None:
        settings["local"] = wish.is_local
    if wish.paths is not None:
        if set(wish.paths) - EVERY_PATH:
            raise InvalidParameter(f"Paths are {', '.join(sorted(EVERY_PATH))}.", param="paths")
        if wish.paths:
            settings["paths"] = sorted(wish.paths)
        else:
            settings.pop("paths", None)
    return settings


async def _upstreams(ctx: Context) -> Sequence[UpstreamRow]:
    async with ctx.database.reading() as connection:
        return await stored_upstreams(connection)


# ── models ────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelWish:
    """What the operator says of a model; None leaves it as it is.

    `prices` are USD as price lists have them, by the names of `core.prices.CLASSES`; they replace
    all he said before, and win over those that were found, each by itself.
    """

    sold_as: str | None = None
    forwarded_as: str | None = None
    name: str | None = None
    margin_percent: Decimal | None = None
    keeps_margin: bool = True
    prices: Mapping[str, str] | None = None
    is_free: bool | None = None
    enabled: bool | None = None
    aliases: Sequence[str] | None = None
    context_length: int | None = None
    max_output_tokens: int | None = None


async def set_model(
    ctx: Context, slug: str, model_id: str, wish: ModelWish, *, adds: bool = False
) -> None:
    """Change what the wish says; with `adds` make the model if the upstream has none of that name.

    With `keeps_margin` false the model goes back to its upstream's margin, and a length of 0 goes
    back to what was found. Raises InvalidParameter, NotFound.
    """
    if adds:
        _model_id(model_id)
    changes = {**_named(wish), **_sized(wish)}
    if wish.margin_percent is not None or not wish.keeps_margin:
        percent = wish.margin_percent
        changes["fee_ppm"] = None if percent is None else margin_ppm(percent)
    if wish.prices is not None:
        changes["own_usd"] = own_prices(wish.prices) or None
    if wish.is_free is not None:
        changes["is_free"] = wish.is_free
    if wish.enabled is not None:
        changes["enabled"] = wish.enabled
    await ctx.ledger.submit(SetModel(slug=slug, model_id=model_id, changes=changes, adds=adds))


def _named(wish: ModelWish) -> dict[str, object]:
    changes: dict[str, object] = {}
    if wish.sold_as is not None:
        changes["model_id"] = _model_id(wish.sold_as)
    if wish.forwarded_as is not None:
        changes["forwarded_model_id"] = _model_id(wish.forwarded_as)
    if wish.name is not None:
        changes["name"] = wish.name[:ID_CHARS_MAX]
    if wish.aliases is not None:
        if len(wish.aliases) > ALIASES_MAX:
            raise InvalidParameter(f"At most {ALIASES_MAX} aliases.", param="aliases")
        changes["aliases"] = [_model_id(each) for each in dict.fromkeys(wish.aliases)]
    return changes


def _sized(wish: ModelWish) -> dict[str, object]:
    lengths = {
        "own_context_length": wish.context_length,
        "own_max_output_tokens": wish.max_output_tokens,
    }
    return {
        name: _within(name.removeprefix("own_"), value, CONTEXT_TOKENS_MAX) or None
        for name, value in lengths.items()
        if value is not None
    }


def own_prices(said: Mapping[str, str]) -> dict[str, str]:
    """Prices per million tokens, or per unit, as they are stored. Raises InvalidParameter."""
    found = {}
    for name, text in said.items():
        value = decimal_from(text)
        if name not in CLASSES:
            raise InvalidParameter(f"A price is for one of {', '.join(CLASSES)}.", param=name)
        if not value:
            raise InvalidParameter(f"{text!r} is no price of {name}.", param=name)
        per = Decimal("1e-6") if CLASSES[name][1] > 1 else Decimal(1)
        found[name] = usd_text_of(EXACT.multiply(value, per))
    return found


# ── routes ────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteWish:
    """A path to sell by the request, for exactly one of the prices.

    `upstream` None is the one of the settings; `upstream_path` None is the same path there.
    """

    path: str
    method: str = "POST"
    upstream: str | None = None
    upstream_path: str | None = None
    price_msat: int | None = None
    price_usd: str | None = None


async def set_route(ctx: Context, wish: RouteWish) -> str:
    """Sell it, or change how it is sold; its id. Raises InvalidParameter, NotFound."""
    if (wish.price_msat is None) == (wish.price_usd is None):
        raise InvalidParameter("Say one price, in msat or in USD.", param="price")
    usd = None if wish.price_usd is None else decimal_from(wish.price_usd)
    if wish.price_usd is not None and not usd:
        raise InvalidParameter("That is no price in USD.", param="price_usd")
    if wish.price_msat is not None:
        _within("price_msat", wish.price_msat, PRICE_MSAT_MAX)
    path, method = _path(wish.path), wish.method.upper()
    if method not in METHODS:
        raise InvalidParameter(f"The method is one of {', '.join(METHODS)}.", param="method")
    bare = path.removeprefix("/v1")
    if "%" in path or not bare.startswith("/") or bare.startswith("/v1/"):
        raise InvalidParameter("Nobody could ask for that path.", param="path")
    if bare.split("/")[1] in OWN_PATHS:
        raise InvalidParameter("That path is the node's own.", param="path")
    if method == "POST" and bare in DIALECTS:
        raise InvalidParameter("That path sells models already.", param="path")
    return await ctx.ledger.submit(
        SaveRoute(
            route_id=ctx.new_id("route"),
            method=method,
            path=path,
            upstream_slug=None if wish.upstream in (None, BUILT_IN) else wish.upstream,
            upstream_path=_path(wish.upstream_path or path.removeprefix("/v1")),
            price_msat=wish.price_msat,
            price_usd=None if usd is None else usd_text_of(usd),
        )
    )


async def remove_route(ctx: Context, path: str, method: str = "POST") -> None:
    """Sell it no more. Raises NotFound."""
    async with ctx.database.reading() as connection:
        sold = {(each.method, each.path) for each in await stored_routes(connection)}
    if (method.upper(), path) not in sold:
        raise NotFound("That path is not sold with that method.", param="path")
    await ctx.ledger.submit(RemoveRoute(method=method.upper(), path=path))


# ── what is a name, a URL, a margin ───────────────────────────────────────────────────────────


def margin_ppm(percent: Decimal) -> int:
    """A margin as the ledger keeps it. Raises InvalidParameter."""
    if percent.is_finite() and 0 <= percent <= FEE_PPM_MAX // _PPM_PER_PERCENT:
        ppm = percent * _PPM_PER_PERCENT
        if ppm == ppm.to_integral_value():
            return int(ppm)
    raise InvalidParameter(
        "A margin is 0 to 10000 percent, with at most four decimals.", param="margin"
    )


def _slug(text: str) -> str:
    if _SLUG.fullmatch(text) is None or text == BUILT_IN:
        raise InvalidParameter(
            "A name is of 1 to 32 of a-z, 0-9 and -; `upstream` is the one of the settings.",
            param="slug",
        )
    return text


def _base(ctx: Context, text: str, *, is_local: bool) -> str:
    may_loop = ctx.facts.allow_loopback_http
    try:
        return upstream_base(text, allow_loopback_http=may_loop, is_local=is_local)
    except BadUrl as error:
        raise InvalidParameter(
            f"That base URL cannot be used: {error}.", param="base_url"
        ) from error


def _origin(base_url: str) -> tuple[str, str]:
    return urlsplit(base_url)[:2]


def _path(text: str) -> str:
    try:
        joined(_SOMEWHERE, text)
    except BadUrl as error:
        raise InvalidParameter(f"That path cannot be used: {error}.", param="path") from error
    return text


def _key(text: str) -> str:
    if _KEY.fullmatch(text) is None:
        raise InvalidParameter("That key has a character that no header can carry.", param="key")
    return text


def _model_id(text: str) -> str:
    if not 0 < len(text) <= ID_CHARS_MAX or not text.isascii() or not text.isprintable():
        raise InvalidParameter("That is no model id.", param="model")
    if " " in text:
        raise InvalidParameter("A model id has no spaces.", param="model")
    return text


def _within(name: str, value: int, highest: int) -> int:
    if not 0 <= value <= highest:
        raise InvalidParameter(f"{name} is from 0 to {highest}.", param=name)
    return value
