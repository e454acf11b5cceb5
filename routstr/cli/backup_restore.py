"""`routstr backup restore`: a node had back from a backup, and made safe to live on."""

import asyncio
import json
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final

import typer

from routstr.assembly import KEY_FILE, WallClock
from routstr.cli.audit import print_report
from routstr.cli.backup import Name, directory_of, opener
from routstr.cli.shared import acting, check_free, print_table, quiet_settings
from routstr.config import Settings
from routstr.core.money import sats_text
from routstr.errors import ConfigError
from routstr.flows.house.place import Placing, put_in_place
from routstr.flows.house.recover import Recovery, Terms, recover
from routstr.flows.restore import BATCH, EMPTY_BATCHES
from routstr.ledger.audit import report_json
from routstr.ledger.backups import BackupStore
from routstr.ledger.copies import mints_of
from routstr.ledger.engine import PoolSettings, lock_directory, open_database, sqlite_directories
from routstr.ledger.keyfile import make_key_file
from routstr.ledger.target import sqlite_path

DRAFT: Final = ".restore-"

Force = Annotated[
    bool, typer.Option("--force", help="Put a SQLite database that is there aside, and go on.")
]
AcceptanceKey = Annotated[
    int, typer.Option(help="As `routstr wallet seed` told, if this backup was restored before.")
]
Gap = Annotated[
    int,
    typer.Option(
        min=BATCH, help="So many outputs in a row that no mint signed end the search at a keyset."
    ),
]
Mints = Annotated[
    list[str] | None,
    typer.Option("--mint", help="A mint beside CASHU_MINTS and those it knows; repeatable."),
]
Without = Annotated[
    list[str] | None,
    typer.Option("--without-mint", help="Give up a mint that is gone for good; repeatable."),
]
WriteOff = Annotated[
    bool,
    typer.Option("--write-off-pending", help="Give up coins in payments that are not over."),
]


def command(
    name: Name,
    force: Force = False,
    acceptance_key: AcceptanceKey = 1,
    gap: Gap = EMPTY_BATCHES * BATCH,
    mint: Mints = None,
    without_mint: Without = None,
    write_off_pending: WriteOff = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Put a backup in place of a lost database, and ask the mints what has happened since.

    Nothing is touched before the file has opened whole and the place is known to be empty. No node
    starts on it before every mint has answered; until then, run the same command again. Exit 0 when
    it is done and the books are whole, 1 otherwise.
    """
    settings = quiet_settings()
    check_free(settings)
    path = directory_of(settings).find(name)
    store = opener(settings, path)
    aside = asyncio.run(_put_in_place(settings, store, path, force, acceptance_key))
    if aside is not None:
        typer.echo(f"routstr: the database that was here is now {aside}", err=True)
    terms = Terms(
        empty_batches=gap // BATCH,
        writes_off=write_off_pending,
        without=frozenset(without_mint or ()),
    )
    recovery = asyncio.run(_recover(settings, terms, mint or ()))
    typer.echo(json.dumps(_json(recovery))) if as_json else _print(recovery)
    for url, reason in recovery.failed:
        typer.echo(f"routstr: {url}: {reason}", err=True)
    if not recovery.is_done:
        typer.echo("routstr: no node starts here yet: run this again", err=True)
    is_whole = recovery.report is not None and recovery.report.ok
    raise typer.Exit(0 if is_whole else 1)


# ── putting it in place ───────────────────────────────────────────────────────────────────────


async def _put_in_place(
    settings: Settings, store: BackupStore, path: Path, force: bool, acceptance_key: int
) -> Path | None:
    """Where the database is now that was there before, if there was one."""
    with ExitStack() as stack:
        _own(settings, stack)
        on_sqlite = store.engine == "sqlite"
        place = sqlite_path(settings.database_url).parent if on_sqlite else settings.data_dir
        for left in place.glob(f"{DRAFT}*"):  # by one that was killed: a copy in clear
            shutil.rmtree(left, ignore_errors=True)
        draft = stack.enter_context(tempfile.TemporaryDirectory(prefix=DRAFT, dir=place))
        placing = Placing(
            backup=path,
            draft=Path(draft),
            force=force,
            acceptance_key=acceptance_key,
            now=WallClock().now(),
            before=lambda: _keep_key(settings, store),
        )
        return await put_in_place(store, placing)


def _own(settings: Settings, stack: ExitStack) -> None:
    """Keep nodes from starting on SQLite meanwhile. Raises ConfigError when one is at work."""
    try:
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        for directory in sqlite_directories(settings.database_url, settings.data_dir):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            stack.callback(lock_directory(directory).release)
    except OSError as error:
        raise ConfigError(f"DATA_DIR: {settings.data_dir}: {error.strerror}") from error


def _keep_key(settings: Settings, store: BackupStore) -> None:
    """The master key, if it came from the backup, becomes the node's."""
    path = settings.data_dir / KEY_FILE
    if settings.secret_key is None and not path.exists():
        make_key_file(path, random_bytes=lambda _: store.master)


# ── asking the mints ──────────────────────────────────────────────────────────────────────────


async def _recover(settings: Settings, terms: Terms, more_mints: Sequence[str]) -> Recovery:
    database = open_database(settings.database_url, PoolSettings(size=1, overflow=0))
    try:
        async with database.reading() as connection:
            known = await mints_of(connection)
    finally:
        await database.close()
    left = tuple(each for each in settings.cashu_mints if each not in terms.without)
    settings = settings.model_copy(update={"cashu_mints": left})
    more = [each for each in (*known, *more_mints) if each not in terms.without]
    async with acting(settings, more_mints=more, is_restoring=True) as ctx:
        return await recover(ctx, terms)


def _json(recovery: Recovery) -> dict[str, object]:
    report = recovery.report
    return {
        "is_done": recovery.is_done,
        "short_msat": recovery.short_msat,
        "mints": [asdict(each) for each in recovery.mints],
        "failed": dict(recovery.failed),
        "holds_ended": recovery.holds_ended,
        "open_operations": recovery.open_operations,
        "report": None if report is None else report_json(report),
    }


def _print(recovery: Recovery) -> None:
    rows = [
        (each.mint_url, sats_text(each.found_msat), sats_text(each.lost_msat),
         sats_text(each.fee_msat))
        for each in recovery.mints
    ]  # fmt: skip
    print_table(("mint", "found since", "spent since", "fee of new coins"), rows)
    if recovery.open_operations:
        typer.echo(
            f"{recovery.open_operations} calls to mints are open; the node goes on with them"
        )
    if recovery.report is None:
        return
    print_report(recovery.report)
    if recovery.short_msat:
        typer.echo(
            f"The node owes {sats_text(recovery.short_msat)} sat more than it holds, and pauses"
            " withdrawals until you bring them: `routstr wallet receive`.",
            err=True,
        )
