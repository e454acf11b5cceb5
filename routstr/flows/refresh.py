"""Keeping the catalog true: the exchange rate, what upstreams list, and the prices made of both.

What was good stays when the world is away: an upstream that gives no list keeps its models, and
the last rate sells until it is too old. Processes that share a database share what is asked: one
that finds fresh rows only reads them.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import structlog

from routstr.core.prices import price_rates, usd_text_of
from routstr.core.providers import PROVIDERS
from routstr.core.rates import NoRate, agreed_rate, rate_in_force
from routstr.core.url import BadUrl, upstream_base
from routstr.flows.catalog import Picture
from routstr.flows.context import Context
from routstr.flows.picture import GENERIC, Rate, Stored, picture_of, rate_of
from routstr.flows.shown import models_page
from routstr.gateways.listing import ListedModel
from routstr.gateways.listing_http import NoListing
from routstr.gateways.price_list import SOURCE, known_price
from routstr.gateways.upstream_config import UpstreamConfig
from routstr.ledger.notices import CATALOG
from routstr.ledger.rates import NewVersion, SavePriceVersions, SaveRate
from routstr.ledger.reads_catalog import (
    RateRow,
    UpstreamRow,
    last_rate,
    models_stamp,
    stored_models,
    stored_routes,
    stored_upstreams,
)
from routstr.ledger.upstreams import FoundModel, SaveModels, opened_key
from routstr.ledger.vault import CannotOpen
from routstr.log import Secret

log = structlog.get_logger()

LISTED: Final = "upstream"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refreshed:
    """What a refresh came to; `silent` are the upstreams that gave no list, and why."""

    sold: int
    not_sold: int
    silent: Mapping[str, str]


async def open_catalog(ctx: Context) -> None:
    """Before the doors open: sell what is stored, and wait for the world only if it must.

    It must while an upstream never gave its list, or the last rate is too old to sell at.
    """
    stored, now = await read_stored(ctx), ctx.clock.now()
    rate = _rate(ctx, stored)
    is_old = rate is None or (rate.good_until is not None and rate.good_until <= now)
    asks = any(row.listed_at is None or is_old for row in stored.upstreams if row.enabled)
    if asks or (is_old and stored.routes):
        await refresh(ctx)
    else:
        await _show_and_keep(ctx, stored)


async def refresh(ctx: Context, *, asks_all: bool = False) -> Refreshed:
    """Ask for what is due (with `asks_all` for everything), then put a new picture in force."""
    now, limits = ctx.clock.now(), ctx.limits
    async with ctx.database.reading() as connection:
        last, upstreams = await last_rate(connection), await stored_upstreams(connection)
    rate_at = None if last is None else last.taken_at
    if limits.btc_usd_price is None and (asks_all or _is_due(rate_at, now, limits.rate_every_s)):
        await _ask_rate(ctx, last, now)
    due = [
        row
        for row in upstreams
        if row.enabled and (asks_all or _is_due(row.listed_at, now, limits.models_every_s))
    ]
    heard = await asyncio.gather(*(ask_models(ctx, row) for row in due))
    silent = {row.slug: why for row, why in zip(due, heard, strict=True) if why is not None}
    await follow(ctx)
    picture = ctx.catalog.picture
    return Refreshed(sold=len(picture.listings), not_sold=len(picture.not_sold), silent=silent)


async def follow(ctx: Context, *, tells: bool = True) -> None:
    """Put in force what is stored, if it has changed since; nobody is asked.

    Other processes hear of it, unless it `tells` nobody because they know.
    """
    async with ctx.database.reading() as connection:
        stamp = (
            await models_stamp(connection),
            await stored_upstreams(connection),
            await stored_routes(connection),
            await last_rate(connection),
        )
    if stamp != ctx.catalog.stamp:
        await _show_and_keep(ctx, await read_stored(ctx))
        ctx.catalog.stamp = stamp
        if tells:
            ctx.tell(CATALOG)


async def read_stored(ctx: Context) -> Stored:
    """What the database has of the catalog."""
    async with ctx.database.reading() as connection:
        return Stored(
            upstreams=await stored_upstreams(connection),
            models=await stored_models(connection),
            routes=await stored_routes(connection),
            rate=await last_rate(connection),
        )


def show(ctx: Context, stored: Stored) -> Picture:
    """Put in force what is stored; nobody is asked."""
    picture = picture_of(
        stored,
        rate=_rate(ctx, stored),
        fixed=ctx.catalog.fixed,
        settings_upstream=ctx.catalog.upstream,
        config_of=lambda row: config_of(ctx, row),
    )
    ctx.catalog.replace(picture)
    return picture


async def _show_and_keep(ctx: Context, stored: Stored) -> None:
    """Beside the loop: a thousand models take a while, and requests are served meanwhile."""
    picture = await asyncio.to_thread(show, ctx, stored)
    await asyncio.to_thread(models_page, ctx.catalog)
    await _save_versions(ctx, picture)


def _rate(ctx: Context, stored: Stored) -> Rate | None:
    limits = ctx.limits
    return rate_of(stored.rate, fixed=limits.btc_usd_price, max_age_s=limits.rate_max_age_s)


def _is_due(last: datetime | None, now: datetime, every_s: float) -> bool:
    return last is None or (now - last).total_seconds() >= every_s


# ── the exchange rate ─────────────────────────────────────────────────────────────────────────


async def _ask_rate(ctx: Context, last: RateRow | None, now: datetime) -> None:
    """A new rate, if enough sources agree on one; else the last one stays, until it is too old."""
    if ctx.rates is None:
        return
    said = await ctx.rates.ask()
    try:
        seen = agreed_rate(said, last=None if last is None else last.btc_usd)
    except NoRate as error:
        log.warning("no_exchange_rate", reason=str(error), count=len(said))
        return
    in_force = rate_in_force(
        seen, None if last is None else last.in_force, step_ppm=ctx.limits.rate_step_ppm
    )
    await ctx.ledger.submit(
        SaveRate(
            btc_usd=usd_text_of(seen),
            in_force=usd_text_of(in_force),
            sources={name: usd_text_of(value) for name, value in said.items()},
            taken_at=now,
        )
    )


# ── models and their prices ───────────────────────────────────────────────────────────────────


async def ask_models(ctx: Context, row: UpstreamRow) -> str | None:
    """Fetch and keep the list of an upstream; what is wrong if there was none."""
    config = config_of(ctx, row)
    if config is None:
        return "its key does not open"
    if ctx.lists is None:
        return None
    try:
        listed = await ctx.lists.fetch(config)
    except NoListing as error:
        log.warning("upstream_gave_no_list", upstream=row.slug, reason=str(error))
        return str(error)
    now = ctx.clock.now()
    models = [_found(each, config, now) for each in listed]
    await ctx.ledger.submit(SaveModels(upstream_id=row.id, models=models))
    return None


def config_of(ctx: Context, row: UpstreamRow) -> UpstreamConfig | None:
    """How to reach a stored upstream; None when its key or URL cannot be used any more."""
    is_local = row.provider_settings.get("local") is True
    may_loop = ctx.facts.allow_loopback_http
    try:
        return UpstreamConfig(
            id=row.id,
            slug=row.slug,
            provider_type=row.provider_type if row.provider_type in PROVIDERS else GENERIC,
            base_url=upstream_base(row.base_url, allow_loopback_http=may_loop, is_local=is_local),
            api_key=Secret(opened_key(ctx.wallet.vault, row.id, row.sealed_key)),
            api_version=row.api_version,
            allow_loopback_http=may_loop,
            is_local=is_local,
        )
    except (CannotOpen, BadUrl) as error:
        log.error("upstream_unusable", upstream=row.slug, error_type=type(error).__name__)
        return None


def _found(model: ListedModel, config: UpstreamConfig, now: datetime) -> FoundModel:
    """A listed model with its prices: the upstream's own, else those of the public list."""
    provider = PROVIDERS[config.provider_type]
    known = known_price(
        model.id,
        provider=provider.prices_from,
        base_url=config.base_url,
        now=now,
        context_length=model.context_length,
    )
    usd, source = model.usd, LISTED if model.usd else None
    if not usd and not model.is_priceless and known is not None:
        usd, source = known.usd, SOURCE
    context = model.context_length or (0 if known is None else known.context_length)
    return FoundModel(
        forwarded_model_id=model.id,
        name=model.name,
        context_length=context,
        max_output_tokens=min(model.max_output_tokens, context or model.max_output_tokens),
        usd=usd,
        usd_source=source,
        facts=model.facts,
    )


async def _save_versions(ctx: Context, picture: Picture) -> None:
    """Keep every price version in force that was not kept before."""
    prices = {
        each.price.version: (name, each.price)
        for name, listing in picture.listings.items()
        for each in listing.candidates
    }
    new = [
        NewVersion(id=version, model_id=name, rates=price_rates(price))
        for version, (name, price) in prices.items()
        if version not in ctx.catalog.saved_versions
    ]
    if new:
        btc_usd = None if picture.btc_usd is None else usd_text_of(picture.btc_usd)
        await ctx.ledger.submit(SavePriceVersions(versions=new, btc_usd=btc_usd))
    ctx.catalog.saved_versions = frozenset(prices)
