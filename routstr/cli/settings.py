"""`routstr settings`: what can be changed without a restart, and what was."""

import asyncio
import json
from typing import Annotated, Any, Final

import typer

from routstr.cli.shared import acting, print_table, quiet_settings, watching
from routstr.config import Settings
from routstr.errors import NotFound
from routstr.flows.house.settings import SettingShown, change_settings, settings_shown

ACTOR: Final = "cli"

cli = typer.Typer(help="What can be changed while the node runs.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]
Name = Annotated[str, typer.Argument(help="As `routstr settings list` has it.")]


@cli.command("list")
def list_settings(
    all_: Annotated[bool, typer.Option("--all", help="Also what needs a restart.")] = False,
    as_json: AsJson = False,
) -> None:
    """Each setting, its value, and where that comes from; secrets are masked."""
    shown = [each for each in asyncio.run(_list(quiet_settings())) if all_ or each.is_editable]
    if as_json:
        typer.echo(json.dumps({each.name: _json(each) for each in shown}))
        return
    rows = [(each.name, _said(each), each.source, _meaning(each)) for each in shown]
    print_table(("setting", "value", "from", "what it is"), rows)


async def _list(settings: Settings) -> tuple[SettingShown, ...]:
    async with watching(settings) as ctx:
        return await settings_shown(ctx)


@cli.command("set")
def set_(
    name: Name,
    value: Annotated[str, typer.Argument(help="As the environment would have it.")],
    as_json: AsJson = False,
) -> None:
    """Change one; it wins over the environment until `reset`.

    On SQLite the node must be stopped for it; beside a running one use its dashboard.
    """
    _tell(asyncio.run(_change(quiet_settings(), name, {name: value}, [])), as_json=as_json)


@cli.command()
def reset(name: Name, as_json: AsJson = False) -> None:
    """Take a change back: the environment decides again."""
    _tell(asyncio.run(_change(quiet_settings(), name, {}, [name])), as_json=as_json)


async def _change(
    settings: Settings, name: str, values: dict[str, object], resets: list[str]
) -> SettingShown:
    async with acting(settings) as ctx:
        await change_settings(ctx, values, resets=resets, changed_by=ACTOR)
        for each in await settings_shown(ctx):
            if each.name == name:
                return each
    raise NotFound(f"There is no setting {name}.")


def _tell(each: SettingShown, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({each.name: _json(each)}))
    else:
        typer.echo(f"{each.name} is {_said(each) or 'empty'} ({each.source})")


def _json(each: SettingShown) -> dict[str, Any]:
    return {
        "value": each.value,
        "source": each.source,
        "editable": each.is_editable,
        "started_with": each.started_with,
        "changed_by": each.changed_by,
        "changed_at": None if each.changed_at is None else int(each.changed_at.timestamp()),
    }


def _said(each: SettingShown) -> str:
    value = each.value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, float):
        value = f"{value:g}" if value < 1e6 else int(value)
    return "" if value in (None, "") else f"{value} {each.unit}".rstrip()


def _meaning(each: SettingShown) -> str:
    return "" if each.about is None else each.about.meaning
