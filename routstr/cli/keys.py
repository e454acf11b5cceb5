"""`routstr keys`: users' keys, by their id or preview; nobody but their owner has their text."""

import asyncio
import json
from datetime import datetime
from typing import Annotated, Any, Final, cast

import typer

from routstr.cli.shared import acting, print_table, quiet_settings, watching
from routstr.config import Settings
from routstr.core.money import sats_text
from routstr.flows.house.actions import note_action
from routstr.flows.house.keys import (
    KeyFilter,
    KeyRow,
    find_keys,
    key_rows,
    key_shown,
    revive_key,
    revoke_key,
)
from routstr.ledger.reads_house_lists import ChainRow

ACTOR: Final = "cli"
ROWS: Final = 20

cli = typer.Typer(help="Users' keys.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]
KeyId = Annotated[str, typer.Argument(help="As `routstr keys list` has it.")]


@cli.command("list")
def list_keys(
    search: Annotated[str, typer.Option(help="The beginning of an id or of a preview.")] = "",
    shown: Annotated[str, typer.Option(help="all, funded, children, expired or revoked.")] = "all",
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many.")] = 50,
    after: Annotated[str | None, typer.Option(help="From behind this id on.")] = None,
    as_json: AsJson = False,
) -> None:
    """The newest keys. Works beside a running node and on a stopped one."""
    rows = asyncio.run(_list(quiet_settings(), search, shown, limit, after))
    if as_json:
        typer.echo(json.dumps([_json(row) for row in rows]))
        return
    table = [
        (
            row.key.id,
            row.key.preview or "",
            sats_text(row.key.balance_msat),
            sats_text(row.key.total_spent_msat),
            row.key.total_requests,
            "revoked" if row.key.revoked_at else "",
            _day(row.last_used_at),
        )
        for row in rows
    ]
    names = ("key", "preview", "sats", "spent", "requests", "", "last used (UTC)")
    nobody = "no keys yet: users make them with a token or an invoice"
    is_part = bool(search or after) or shown != "all"
    print_table(names, table, empty="no key fits" if is_part else nobody)


async def _list(
    settings: Settings, search: str, shown: str, limit: int, after: str | None
) -> tuple[KeyRow, ...]:
    async with watching(settings) as ctx:
        page = await find_keys(
            ctx, search=search, shown=cast(KeyFilter, shown), limit=limit, after=after
        )
    return page.keys


@cli.command()
def show(key_id: KeyId, as_json: AsJson = False) -> None:
    """One key, and the newest rows of its audit chain."""
    row, chain = asyncio.run(_show(quiet_settings(), key_id))
    if as_json:
        typer.echo(json.dumps({**_json(row), "transactions": [_row(each) for each in chain]}))
        return
    for name, value in _json(row).items():
        typer.echo(f"{name:<16} {'' if value is None else value}")
    table = [
        (
            each.row.sequence,
            each.row.type,
            _signed(each.row.amount_msat),
            sats_text(each.row.balance_after_msat),
            _day(each.row.created_at),
        )
        for each in chain
    ]
    print_table(("row", "type", "sats", "balance", "at (UTC)"), table)


async def _show(settings: Settings, key_id: str) -> tuple[KeyRow, list[ChainRow]]:
    async with watching(settings) as ctx:
        found = await key_shown(ctx, key_id)
        return found.key, await key_rows(ctx, key_id, limit=ROWS)


@cli.command()
def revoke(
    key_id: KeyId,
    undo: Annotated[bool, typer.Option("--undo", help="Let it live again.")] = False,
    as_json: AsJson = False,
) -> None:
    """End a key; what is on it stays on it. On SQLite the node must be stopped for it."""
    asyncio.run(_revoke(quiet_settings(), key_id, undo=undo))
    said = f"{key_id} {'lives again' if undo else 'is revoked'}"
    typer.echo(json.dumps({"key_id": key_id, "revoked": not undo}) if as_json else said)


async def _revoke(settings: Settings, key_id: str, *, undo: bool) -> None:
    async with acting(settings) as ctx:
        end = revive_key if undo else revoke_key
        await end(ctx, key_id, actor=ACTOR)
        action = "key.revive" if undo else "key.revoke"
        await note_action(ctx, actor=ACTOR, action=action, target=key_id)


def _json(row: KeyRow) -> dict[str, Any]:
    key = row.key
    return {
        "key_id": key.id,
        "preview": key.preview,
        "balance_msat": key.balance_msat,
        "reserved_msat": key.held_msat,
        "total_spent_msat": key.total_spent_msat,
        "total_requests": key.total_requests,
        "parent_id": key.parent_id,
        "balance_limit_msat": key.balance_limit_msat,
        "limit_reset": key.limit_reset,
        "created_at": _unix_s(key.created_at),
        "last_used_at": _unix_s(row.last_used_at),
        "expires_at": _unix_s(key.expires_at),
        "revoked_at": _unix_s(key.revoked_at),
    }


def _row(each: ChainRow) -> dict[str, Any]:
    return {
        "sequence": each.row.sequence,
        "type": each.row.type,
        "amount_msat": each.row.amount_msat,
        "balance_after_msat": each.row.balance_after_msat,
        "created_at": _unix_s(each.row.created_at),
    }


def _signed(amount_msat: int) -> str:
    return f"-{sats_text(-amount_msat)}" if amount_msat < 0 else sats_text(amount_msat)


def _unix_s(time: datetime | None) -> int | None:
    return None if time is None else int(time.timestamp())


def _day(time: datetime | None) -> str:
    return "" if time is None else f"{time:%Y-%m-%d %H:%M}"
