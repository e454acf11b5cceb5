"""`routstr upstreams`: the APIs that are resold, their keys and margins."""

import asyncio
import json
import sys
from collections import Counter
from datetime import datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from routstr.app import observing
from routstr.cli.shared import acting, print_table, quiet_settings
from routstr.config import Settings
from routstr.core.providers import PROVIDERS
from routstr.errors import ConfigError, NotFound
from routstr.flows.context import Context
from routstr.flows.refresh import config_of, read_stored, refresh, show
from routstr.flows.upstreams import (
    UpstreamWish,
    add_upstream,
    change_upstream,
    remove_upstream,
)
from routstr.gateways.listing_http import NoListing
from routstr.ledger.reads_catalog import UpstreamRow

KEY_HELP: Final = "A file with the node's key there; - is standard input. Never an argument."
KINDS: Final = ", ".join(PROVIDERS)

cli = typer.Typer(help="The APIs you resell.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]
Slug = Annotated[str, typer.Argument(help="Your name for it.")]
Kind = Annotated[str | None, typer.Option("--type", help=f"One of {KINDS}; else as it is named.")]
Url = Annotated[str | None, typer.Option("--url", help="Its base URL, up to and including /v1.")]
KeyFile = Annotated[str | None, typer.Option("--key-file", help=KEY_HELP)]
Margin = Annotated[str | None, typer.Option(help="Percent on top of its USD prices.")]
Weight = Annotated[
    int | None, typer.Option(min=0, help="The share of requests among equally dear ones.")
]
New = Annotated[
    bool | None, typer.Option("--sell-new/--pick", help="New models: sold at once, or not.")
]
Version = Annotated[str | None, typer.Option("--api-version", help="Where it wants one.")]
Local = Annotated[
    bool | None, typer.Option("--local/--public", help="On your own network; may be plain http.")
]
Paths = Annotated[
    list[str] | None, typer.Option("--path", help="It speaks only this path (repeat it).")
]


def percent(text: str | None) -> Decimal | None:
    """A margin as it was typed. Raises ConfigError."""
    try:
        return None if text is None else Decimal(text.removesuffix("%"))
    except InvalidOperation:
        raise ConfigError(f"--margin: {text!r} is no number of percent") from None


def read_key(key_file: str | None) -> str | None:
    """A key out of a file, or of standard input for `-`, never an empty one. Raises ConfigError."""
    if key_file is None:
        return None
    key = _key_in(key_file)
    if not key:
        raise ConfigError(f"--key-file: there is no key in {key_file}")
    return key


def _key_in(key_file: str) -> str:
    if key_file == "-":
        if sys.stdin.isatty():
            return str(typer.prompt("Key", hide_input=True, err=True)).strip()
        return sys.stdin.readline().strip()
    try:
        return Path(key_file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"--key-file: {key_file} cannot be read") from error


@cli.command("list")
def list_(as_json: AsJson = False) -> None:
    """Every upstream, what it sells, and when it last listed its models."""
    told = asyncio.run(_list(quiet_settings()))
    if as_json:
        typer.echo(json.dumps(told))
        return
    rows = [
        (
            each["slug"],
            each["type"],
            each["base_url"],
            "yes" if each["has_key"] else "no",
            f"{each['margin_percent']} %",
            each["weight"],
            f"{each['sold']} of {each['models']}" if each["enabled"] else "off",
            (each["listed_at"] or "never")[:16].replace("T", " "),
        )
        for each in told
    ]
    names = ("name", "kind", "URL", "key", "margin", "weight", "sells", "listed (UTC)")
    print_table(names, rows, empty="no upstreams yet: `routstr upstreams add --help`")


async def _list(settings: Settings) -> list[dict[str, Any]]:
    async with observing(settings) as ctx:
        stored = await read_stored(ctx)
        picture = show(ctx, stored)
    models = Counter(each.upstream_id for each in stored.models)
    sold = Counter(
        each.upstream_id for listing in picture.listings.values() for each in listing.candidates
    )
    return [
        {
            "slug": row.slug,
            "type": row.provider_type,
            "base_url": row.base_url,
            "has_key": row.sealed_key is not None,
            "margin_percent": percent_text(row.fee_ppm),
            "weight": row.weight,
            "enabled": row.enabled,
            "sells_new": row.sells_new,
            "models": models[row.id],
            "sold": sold[row.id],
            "listed_at": time_text(row.listed_at),
        }
        for row in stored.upstreams
    ]


@cli.command()
def add(
    slug: Slug,
    kind: Kind = None,
    url: Url = None,
    key_file: KeyFile = None,
    margin: Margin = None,
    weight: Weight = None,
    sells_new: New = None,
    api_version: Version = None,
    local: Local = None,
    paths: Paths = None,
) -> None:
    """Resell another API, and ask it for its models."""
    wish = UpstreamWish(
        provider_type=kind or (None if slug in PROVIDERS else "openai-compatible"),
        base_url=url,
        api_key=read_key(key_file),
        api_version=api_version,
        margin_percent=percent(margin),
        weight=weight,
        sells_new=sells_new,
        is_local=local,
        paths=paths or None,
    )
    typer.echo(asyncio.run(_add(quiet_settings(), slug, wish)))


async def _add(settings: Settings, slug: str, wish: UpstreamWish) -> str:
    async with acting(settings) as ctx:
        await add_upstream(ctx, slug, wish)
        return await _told(ctx, slug)


async def _told(ctx: Context, slug: str) -> str:
    """Asks for the models if that is due, and says what came of it."""
    done = await refresh(ctx)
    row = await _row(ctx, slug)
    if slug in done.silent:
        return f"{slug} is kept, but {done.silent[slug]}; see `routstr upstreams test {slug}`"
    if not row.enabled:
        return f"{slug} is off"
    listings = ctx.catalog.picture.listings.values()
    sold = sum(row.id in {c.upstream_id for c in each.candidates} for each in listings)
    known = sum(each.upstream_id == row.id for each in (await read_stored(ctx)).models)
    return f"{slug}: {known} models, {sold} of them sold; see `routstr models list`"


@cli.command("set")
def set_(
    slug: Slug,
    name: Annotated[str | None, typer.Option(help="Another name for it.")] = None,
    kind: Kind = None,
    url: Url = None,
    key_file: KeyFile = None,
    margin: Margin = None,
    weight: Weight = None,
    sells_new: New = None,
    enabled: Annotated[bool | None, typer.Option("--enable/--disable")] = None,
    api_version: Version = None,
    local: Local = None,
    paths: Paths = None,
) -> None:
    """Change what is said; the rest stays. Reached in another way, it is asked for its models."""
    wish = UpstreamWish(
        provider_type=kind,
        base_url=url,
        api_key=read_key(key_file),
        api_version=api_version,
        margin_percent=percent(margin),
        weight=weight,
        sells_new=sells_new,
        enabled=enabled,
        is_local=local,
        paths=paths or None,
    )
    typer.echo(asyncio.run(_set(quiet_settings(), slug, wish, name)))


async def _set(settings: Settings, slug: str, wish: UpstreamWish, name: str | None) -> str:
    async with acting(settings) as ctx:
        await change_upstream(ctx, slug, wish, new_slug=name)
        return await _told(ctx, name or slug)


@cli.command()
def test(slug: Slug) -> None:
    """Ask it for its models, and say what comes back; nothing is changed."""
    typer.echo(asyncio.run(_test(quiet_settings(), slug)))


async def _test(settings: Settings, slug: str) -> str:
    async with observing(settings) as ctx:
        config = config_of(ctx, await _row(ctx, slug))
        if config is None or ctx.lists is None:
            raise NotFound("Its key or its URL cannot be used with these settings.")
        try:
            listed = await ctx.lists.fetch(config)
        except NoListing as error:
            raise NotFound(f"{slug}: {error}") from error
        priced = sum(bool(each.usd) for each in listed)
        return f"{slug}: it lists {len(listed)} models, {priced} of them with a price of its own"


@cli.command()
def remove(slug: Slug) -> None:
    """Forget it, its key and its models."""
    if asyncio.run(_remove(quiet_settings(), slug)):
        typer.echo(f"{slug} is forgotten")
    else:
        typer.echo(f"{slug} is switched off: a route needs it, see `routstr routes list`")


async def _remove(settings: Settings, slug: str) -> bool:
    async with acting(settings) as ctx:
        return await remove_upstream(ctx, slug)


async def _row(ctx: Context, slug: str) -> UpstreamRow:
    for row in (await read_stored(ctx)).upstreams:
        if row.slug == slug:
            return row
    raise NotFound("There is no upstream of that name.", param="slug")


def percent_text(fee_ppm: int) -> str:
    """Parts per million as percent."""
    return format((Decimal(fee_ppm) / 10_000).normalize(), "f")


def time_text(value: datetime | None) -> str | None:
    """A time for people and programs, to the second."""
    return None if value is None else value.isoformat(timespec="seconds")
