"""`routstr backup`: copies of the node that can be restored, made, looked at and opened."""

import asyncio
import json
import sys
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final

import typer

from routstr.assembly import KEY_FILE, WallClock, backup_store, master_key
from routstr.cli.shared import looking, print_table, quiet_settings
from routstr.config import Settings
from routstr.errors import ConfigError
from routstr.flows.house.backup import BackupSeen, in_thread, make_backup
from routstr.ledger.backup_file import Header, read_header, unwrap_master
from routstr.ledger.backups import BackupStore, Manifest

UNITS: Final = ((86_400, "d"), (3600, "h"), (60, "min"))
KEEP: Final = (
    "To restore it you need this file, and SECRET_KEY (or secret.key of the data directory) or"
    " BACKUP_PASSPHRASE: keep both away from the node."
)

cli = typer.Typer(help="Copies of the node, and having it back.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]
Name = Annotated[str, typer.Argument(help="As `routstr backup list` names it, or a path.")]


@cli.command()
def create(as_json: AsJson = False) -> None:
    """Make a backup now, beside a running node or of a stopped one, and open it again."""
    settings = quiet_settings()
    seen = asyncio.run(_create(settings))
    if as_json:
        typer.echo(json.dumps(_json(seen)))
    else:
        typer.echo(directory_of(settings).directory / seen.name)
        typer.echo(KEEP, err=True)


@cli.command(name="list")
def list_all(as_json: AsJson = False) -> None:
    """Show the backups there are, newest first."""
    found = directory_of(quiet_settings()).listed()
    if as_json:
        typer.echo(json.dumps([_json(each) for each in found]))
        return
    now = WallClock().now()
    rows = [
        (each.name, _age(now - each.created_at), f"{each.bytes:,}", each.engine, each.revision,
         "whole" if each.is_verified else "not looked at")
        for each in found
    ]  # fmt: skip
    names = ("backup", "age", "bytes", "engine", "schema", "found")
    print_table(names, rows, empty="no backup yet: `routstr backup create` makes one")


@cli.command()
def verify(name: Name, as_json: AsJson = False) -> None:
    """Open a backup to its last byte, and check the database in it; exit 1 if it is not whole."""
    settings = quiet_settings()
    store = directory_of(settings)
    store = opener(settings, store.find(name))
    header, manifest = asyncio.run(_verify(store, name))
    if as_json:
        typer.echo(json.dumps({"ok": True, **shown(header, manifest)}))
        return
    typer.echo(f"whole: {header.engine}, schema {header.revision}, of {header.created_at}")
    for table, count in manifest.counts.items():
        typer.echo(f"  {table}: {count}")


async def _create(settings: Settings) -> BackupSeen:
    async with looking(settings) as (database, _):
        store = backup_store(settings, master_key(settings, may_write=False))
        return await make_backup(store, database, now=WallClock().now())


async def _verify(store: BackupStore, name: str) -> tuple[Header, Manifest]:
    now = WallClock().now()
    return await in_thread(lambda check: store.verify(name, now=now, check=check))


def directory_of(settings: Settings) -> BackupStore:
    """The directory, to look at only: no key is needed for that."""
    return backup_store(settings, b"")


def opener(settings: Settings, path: Path) -> BackupStore:
    """What opens that file: the node's master key, else the backup's own under its passphrase.

    Raises ConfigError when there is neither, RestoreRefused for another passphrase.
    """
    if settings.secret_key is not None or (settings.data_dir / KEY_FILE).exists():
        return backup_store(settings, master_key(settings, may_write=False))
    with path.open("rb") as file:
        header = read_header(file)
    if header.wrapped is None:
        raise ConfigError("SECRET_KEY: the backup opens with the master key it was made with only")
    return backup_store(settings, unwrap_master(header.wrapped, _passphrase(settings)))


def _passphrase(settings: Settings) -> str:
    if settings.backup_passphrase is not None:
        return settings.backup_passphrase.get_secret_value()
    if not sys.stdin.isatty():
        raise ConfigError("BACKUP_PASSPHRASE: without it, or SECRET_KEY, the backup does not open")
    return str(typer.prompt("The backup's passphrase", hide_input=True, err=True))


def shown(header: Header, manifest: Manifest) -> dict[str, object]:
    """What a backup is, as JSON takes it."""
    return {
        "created_at": header.created_at,
        "engine": header.engine,
        "engine_version": header.engine_version,
        "revision": header.revision,
        "has_passphrase": header.wrapped is not None,
        **asdict(manifest),
    }


def _json(seen: BackupSeen) -> dict[str, object]:
    return {**asdict(seen), "created_at": seen.created_at.isoformat()}


def _age(age: timedelta) -> str:
    seconds = max(0, int(age.total_seconds()))
    for size, unit in UNITS:
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
