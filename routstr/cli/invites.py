"""`routstr invites`: codes that let somebody make a key, where NEEDS_INVITE asks for one."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import typer

from routstr.cli.shared import acting, print_table, quiet_settings, watching
from routstr.config import Settings
from routstr.flows.house.invites import NewInvite, end_invite, invites, make_invite

ACTOR: Final = "cli"
LISTED_MAX: Final = 500

cli = typer.Typer(help="Codes that let somebody make a key.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]


@cli.command("list")
def list_invites(as_json: AsJson = False) -> None:
    """The newest invites, how often they were used, and until when they are good."""
    told = asyncio.run(_list(quiet_settings()))
    if as_json:
        typer.echo(json.dumps(told))
        return
    rows = [
        (
            each["id"],
            each["note"] or "",
            each["uses"],
            each["uses_left"],
            _day(each["expires_at"]),
        )
        for each in told
    ]
    names = ("invite", "note", "used", "left", "until (UTC)")
    print_table(names, rows, empty="no invites yet: `routstr invites make`")


async def _list(settings: Settings) -> list[dict[str, Any]]:
    async with watching(settings) as ctx:
        found, _ = await invites(ctx, limit=LISTED_MAX)
    return [
        {
            "id": each.id,
            "note": each.note,
            "uses": each.uses,
            "uses_left": each.uses_left,
            "created_at": int(each.created_at.timestamp()),
            "expires_at": None if each.expires_at is None else int(each.expires_at.timestamp()),
        }
        for each in found
    ]


@cli.command()
def make(
    uses: Annotated[int, typer.Option(min=1, help="For so many keys.")] = 1,
    note: Annotated[str, typer.Option(help="What you call it.")] = "",
    days: Annotated[int | None, typer.Option(min=1, max=36_500, help="Good so long.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make one; its code is shown once. On SQLite the node must be stopped for it."""
    made = asyncio.run(_make(quiet_settings(), uses, note, days))
    typer.echo(json.dumps({"id": made.id, "code": made.code}) if as_json else made.code)


async def _make(settings: Settings, uses: int, note: str, days: int | None) -> NewInvite:
    async with acting(settings) as ctx:
        ends = None if days is None else ctx.clock.now() + timedelta(days=days)
        return await make_invite(ctx, uses=uses, note=note, expires_at=ends, actor=ACTOR)


@cli.command()
def end(
    invite_id: Annotated[str, typer.Argument(help="As `routstr invites list` has it.")],
    as_json: AsJson = False,
) -> None:
    """Let nobody in with it any more; keys that were made stay."""
    asyncio.run(_end(quiet_settings(), invite_id))
    typer.echo(json.dumps({"ok": True}) if as_json else "It lets nobody in any more.")


async def _end(settings: Settings, invite_id: str) -> None:
    async with acting(settings) as ctx:
        await end_invite(ctx, invite_id, actor=ACTOR)


def _day(unix_s: int | None) -> str:
    return "" if unix_s is None else f"{datetime.fromtimestamp(unix_s, UTC):%Y-%m-%d %H:%M}"
