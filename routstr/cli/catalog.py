"""`routstr models`, `routstr routes` and `routstr prices`: what is sold, at which price."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from dataclasses import replace
from decimal import Decimal
from typing import Annotated, Any, Final

import typer

from routstr.app import observing
from routstr.cli.shared import acting, print_table, quiet_settings
from routstr.cli.upstreams import AsJson, Margin, percent, percent_text
from routstr.config import Settings
from routstr.core.money import sats_text
from routstr.core.prices import CLASSES, usd_texts
from routstr.errors import ConfigError, InvalidParameter, NotFound
from routstr.flows.catalog import Candidate
from routstr.flows.context import Context
from routstr.flows.picture import Stored
from routstr.flows.refresh import read_stored, refresh, show
from routstr.flows.upstreams import ModelWish, RouteWish, remove_route, set_model, set_route
from routstr.ledger.reads_catalog import StoredModel

PER_MILLION: Final = Decimal(1_000_000)
ALL: Final = "*"

models = typer.Typer(help="The models you sell.", no_args_is_help=True)
routes = typer.Typer(help="Paths that are sold by the request.", no_args_is_help=True)
prices = typer.Typer(help="Prices and the exchange rate.", no_args_is_help=True)

Upstream = Annotated[str, typer.Argument(help="The upstream's name.")]
ModelId = Annotated[str, typer.Argument(help="The model, as it is sold.")]
Path = Annotated[str, typer.Argument(help="The path at this node, such as /v1/weather.")]
Method = Annotated[str, typer.Option(help="The method it is called with.")]


def _do(work: Callable[[Context], Coroutine[Any, Any, None]]) -> None:
    async def doing(settings: Settings) -> None:
        async with acting(settings) as ctx:
            await work(ctx)

    asyncio.run(doing(quiet_settings()))


# ── models ────────────────────────────────────────────────────────────────────────────────────


@models.command("list")
def list_models(
    upstream: Annotated[str | None, typer.Option(help="Only of this one.")] = None,
    search: Annotated[str, typer.Option(help="Only with this in the name.")] = "",
    unsold: Annotated[bool, typer.Option("--unsold", help="Those that are not sold, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """The models with their sale prices, margin included, and why some are not sold."""
    told = asyncio.run(_models(quiet_settings()))
    told = [
        each
        for each in told
        if search in each["model"]
        and upstream in (None, each["upstream"])
        and (unsold or each["not_sold"] is None)
    ]
    if as_json:
        typer.echo(json.dumps(told))
        return
    rows = [
        (
            each["model"],
            each["upstream"],
            _both(_usd(each["usd"].get("input")), _usd(each["usd"].get("output"))),
            _both(_sats(each["input_msat_per_mtok"]), _sats(each["output_msat_per_mtok"])),
            f"{each['margin_percent']} %",
            each["context_length"],
            each["not_sold"] or "yes",
        )
        for each in told
    ]
    names = ("model", "upstream", "USD/Mtok in, out", "sat/Mtok in, out", "margin", "context")
    print_table((*names, "sold"), rows, empty="none: see `--unsold`, and `routstr upstreams list`")


def _both(first: str, second: str) -> str:
    return f"{first or '-'}, {second or '-'}" if first or second else ""


def _usd(per_token: str | None) -> str:
    return "" if per_token is None else format((Decimal(per_token) * PER_MILLION).normalize(), "f")


def _sats(msat: int | None) -> str:
    return "" if msat is None else sats_text(msat)


async def _models(settings: Settings) -> list[dict[str, Any]]:
    """Each model of each upstream, sold or not; the fixed ones of the settings, too."""
    async with observing(settings) as ctx:
        stored = await read_stored(ctx)
        picture = show(ctx, stored)
    rows = {(each.upstream_id, each.model_id): each for each in stored.models}
    told = [
        _told(listing.model.id, candidate, rows.get((candidate.upstream_id, listing.model.id)))
        for listing in picture.listings.values()
        for candidate in listing.candidates
    ]
    sold = {(each["upstream"], each["model"]) for each in told}
    slugs = {each.id: each.slug for each in stored.upstreams}
    for model in stored.models:
        if (slugs[model.upstream_id], model.model_id) not in sold:
            why = picture.reasons.get((model.upstream_id, model.model_id), "Its upstream is off.")
            told.append(_untold(model, slugs[model.upstream_id], stored, why))
    return sorted(told, key=lambda each: (each["model"], each["upstream"]))


def _told(name: str, candidate: Candidate, row: StoredModel | None) -> dict[str, Any]:
    return {
        "model": name,
        "upstream": candidate.upstream_slug,
        "forwarded_as": candidate.forwarded_model_id,
        "aliases": [] if row is None else list(row.aliases),
        "usd": usd_texts(candidate.usd),
        "usd_source": None if row is None else "operator" if row.own_usd else row.usd_source,
        "input_msat_per_mtok": candidate.price.input_msat_per_mtok,
        "output_msat_per_mtok": candidate.price.output_msat_per_mtok,
        "request_msat": candidate.price.request_msat,
        "price_version": candidate.price.version,
        "margin_percent": percent_text(candidate.fee_ppm),
        "context_length": candidate.context_length,
        "max_output_tokens": candidate.max_output_tokens,
        "not_sold": None,
    }


def _untold(model: StoredModel, slug: str, stored: Stored, why: str) -> dict[str, Any]:
    fees = {each.id: each.fee_ppm for each in stored.upstreams}
    fee_ppm = fees[model.upstream_id] if model.fee_ppm is None else model.fee_ppm
    return {
        "model": model.model_id,
        "upstream": slug,
        "forwarded_as": model.forwarded_model_id,
        "aliases": list(model.aliases),
        "usd": dict(model.usd),
        "usd_source": model.usd_source,
        "input_msat_per_mtok": None,
        "output_msat_per_mtok": None,
        "request_msat": None,
        "price_version": None,
        "margin_percent": percent_text(fee_ppm),
        "context_length": model.own_context_length or model.context_length,
        "max_output_tokens": model.own_max_output_tokens or model.max_output_tokens,
        "not_sold": why,
    }


@models.command("set")
def set_(
    upstream: Upstream,
    model: ModelId,
    margin: Margin = None,
    upstream_margin: Annotated[
        bool, typer.Option("--upstream-margin", help="Back to the margin of its upstream.")
    ] = False,
    price: Annotated[
        list[str] | None,
        typer.Option(
            help="Your own price in USD, as input=0.15: per million tokens or characters, or per"
            f" unit. One of {', '.join(CLASSES)}. Repeat it; these replace your earlier ones."
        ),
    ] = None,
    listed_prices: Annotated[
        bool, typer.Option("--listed-prices", help="Forget your own prices.")
    ] = False,
    free: Annotated[bool | None, typer.Option("--free/--not-free", help="Give it away.")] = None,
    context: Annotated[int | None, typer.Option(help="Tokens; 0: as listed.")] = None,
    max_output: Annotated[int | None, typer.Option(help="Output tokens; 0: as listed.")] = None,
    sell_as: Annotated[str | None, typer.Option(help="Another id at this node.")] = None,
    forward_as: Annotated[str | None, typer.Option(help="Its id at the upstream.")] = None,
    new: Annotated[bool, typer.Option("--new", help="Add it: the upstream lists it not.")] = False,
) -> None:
    """Change what you say of a model; the rest stays."""
    wish = ModelWish(
        sold_as=sell_as,
        forwarded_as=forward_as,
        margin_percent=percent(margin),
        keeps_margin=not upstream_margin,
        prices=_prices(price) if price else {} if listed_prices else None,
        is_free=free,
        context_length=context,
        max_output_tokens=max_output,
    )
    _do(lambda ctx: set_model(ctx, upstream, model, wish, adds=new))


def _prices(said: list[str]) -> dict[str, str]:
    pairs = [each.partition("=") for each in said]
    if not all(equals for _, equals, _ in pairs):
        raise ConfigError("--price: name what it is for, as in --price input=0.15")
    return {name: value for name, _, value in pairs}


@models.command()
def alias(
    upstream: Upstream,
    model: ModelId,
    aliases: Annotated[
        list[str] | None, typer.Argument(help="All it has; none: it has none.")
    ] = None,
) -> None:
    """Further names that lead to a model; they replace those it had."""
    wish = ModelWish(aliases=aliases or [])
    _do(lambda ctx: _alias(ctx, upstream, model, wish))


async def _alias(ctx: Context, slug: str, model_id: str, wish: ModelWish) -> None:
    """Says of each name that leads elsewhere, because it is taken, where it leads."""
    await set_model(ctx, slug, model_id, wish)
    picture = show(ctx, await read_stored(ctx))
    for name in wish.aliases or ():
        leads_to = name if name in picture.listings else picture.by_alias.get(name, model_id)
        if leads_to != model_id:
            typer.echo(f"{name} is kept, but it is taken: it leads to {leads_to}", err=True)


@models.command()
def enable(
    upstream: Upstream, model: Annotated[str, typer.Argument(help="A model; * is all.")]
) -> None:
    """Sell it."""
    _do(lambda ctx: _switch(ctx, upstream, model, enabled=True))


@models.command()
def disable(
    upstream: Upstream, model: Annotated[str, typer.Argument(help="A model; * is all.")]
) -> None:
    """Sell it no more; it keeps its price and names."""
    _do(lambda ctx: _switch(ctx, upstream, model, enabled=False))


async def _switch(ctx: Context, slug: str, model_id: str, *, enabled: bool) -> None:
    names = [model_id]
    if model_id == ALL:
        stored = await read_stored(ctx)
        ids = [each.id for each in stored.upstreams if each.slug == slug]
        if not ids:
            raise NotFound("There is no upstream of that name.", param="slug")
        names = [each.model_id for each in stored.models if each.upstream_id == ids[0]]
    for name in names:
        await set_model(ctx, slug, name, replace(ModelWish(), enabled=enabled))


# ── routes ────────────────────────────────────────────────────────────────────────────────────


@routes.command("list")
def list_routes(as_json: AsJson = False) -> None:
    """Every path that is sold by the request, and its price."""
    told = asyncio.run(_routes(quiet_settings()))
    if as_json:
        typer.echo(json.dumps(told))
        return
    rows = [
        (
            each["method"],
            each["path"],
            each["upstream"],
            each["upstream_path"],
            f"{each['price_usd']} USD" if each["price_usd"] else f"{each['price_msat']} msat",
        )
        for each in told
    ]
    names = ("method", "path", "upstream", "its path", "price of a request")
    print_table(names, rows, empty="no path is sold by the request: `routstr routes add --help`")


async def _routes(settings: Settings) -> list[dict[str, Any]]:
    async with observing(settings) as ctx:
        stored = await read_stored(ctx)
    slugs = {each.id: each.slug for each in stored.upstreams}
    return [
        {
            "method": row.method,
            "path": row.path,
            "upstream": slugs.get(row.upstream_id or "", "upstream"),
            "upstream_path": row.upstream_path,
            "price_msat": row.price_msat,
            "price_usd": None if row.price_usd is None else format(row.price_usd, "f"),
        }
        for row in stored.routes
    ]


@routes.command("add")
def add_route(
    path: Path,
    upstream: Annotated[str | None, typer.Option(help="Else the settings' one.")] = None,
    to: Annotated[str | None, typer.Option(help="The path there, after its base URL.")] = None,
    method: Method = "POST",
    msat: Annotated[int | None, typer.Option(help="What a request costs.", min=0)] = None,
    usd: Annotated[str | None, typer.Option(help="The same, in USD.")] = None,
) -> None:
    """Sell a path by the request, or change how it is sold."""
    if upstream is None and not quiet_settings().upstream_base_url:
        raise InvalidParameter("Say which --upstream; the settings have none.", param="upstream")
    wish = RouteWish(
        path=path,
        method=method,
        upstream=upstream,
        upstream_path=to,
        price_msat=msat,
        price_usd=usd,
    )

    async def adding(ctx: Context) -> None:
        await set_route(ctx, wish)

    _do(adding)


@routes.command("remove")
def forget_route(path: Path, method: Method = "POST") -> None:
    """Sell a path no more."""
    _do(lambda ctx: remove_route(ctx, path, method))


# ── prices ────────────────────────────────────────────────────────────────────────────────────


@prices.command("refresh")
def refresh_prices(as_json: AsJson = False) -> None:
    """Ask the rate's sources and every upstream now, and say what came of it."""
    told = asyncio.run(_refresh(quiet_settings()))
    if as_json:
        typer.echo(json.dumps(told))
        return
    typer.echo(f"BTC/USD: {told['btc_usd'] or 'not known'}, taken {told['taken_at'] or 'never'}")
    for name, value in told["sources"].items():
        typer.echo(f"  {name}: {value} USD")
    typer.echo(f"models: {told['sold']} sold, {told['not_sold']} not")
    for slug, why in told["silent"].items():
        typer.echo(f"  {slug}: {why}")


async def _refresh(settings: Settings) -> dict[str, Any]:
    async with acting(settings) as ctx:
        done = await refresh(ctx, asks_all=True)
        rate = (await read_stored(ctx)).rate
        fixed = settings.btc_usd_price is not None
        return {
            "btc_usd": ctx.catalog.btc_usd_text or None,
            "taken_at": "as set" if fixed else rate and rate.taken_at.isoformat(timespec="seconds"),
            "sources": {} if rate is None or fixed else dict(rate.sources),
            "sold": done.sold,
            "not_sold": done.not_sold,
            "silent": dict(done.silent),
        }
