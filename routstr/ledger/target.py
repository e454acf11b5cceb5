"""The database that a backup is restored into: looked at first, filled whole or not at all.

Laws
- Nothing is touched before the target is known to be empty, or to be this restore's own, begun
  before. Only on SQLite, and only if the operator says so, is a database put aside.
- A node that starts at any moment finds the old database, or one that says it is half restored. On
  SQLite the copy is marked before it gets its name. On PostgreSQL a table says so before the first
  row comes, and goes with the commit that marks the copy.
"""

import os
import sqlite3
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Final, Literal

from sqlalchemy import make_url, text

from routstr.errors import ConfigError, RestoreRefused
from routstr.ledger.copies import begin_copy, copy_mark
from routstr.ledger.dump import Check, PostgresTools
from routstr.ledger.engine import Database, PoolSettings, has_schema, open_database
from routstr.ledger.keyfile import sync_directory
from routstr.ledger.migrate import migrate

Target = Literal["empty", "filled", "begun", "other"]

FILLING: Final = "restore_under_way"
HAS_FILLING: Final = text(f"SELECT to_regclass('public.{FILLING}') IS NOT NULL")
RELATIONS: Final = text(
    "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')"
    f" AND n.nspname NOT LIKE 'pg_temp%' AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')"
    f" AND c.relname <> '{FILLING}'"
)
BESIDE: Final = ("-wal", "-shm")
FEW: Final = PoolSettings(size=1, overflow=0)


async def check_filled(database: Database) -> None:
    """Raises ConfigError for a PostgreSQL database that a backup is being put into."""
    if database.dialect == "postgresql":
        async with database.reading() as connection:
            if (await connection.execute(HAS_FILLING)).scalar_one():
                raise ConfigError(
                    "a backup is being restored into this database: run"
                    " `routstr backup restore` again, or drop the database"
                )


async def look_at(database_url: str, *, backup: str) -> Target:
    """What there is: nothing, this backup (marked, or only filled), or something else.

    Raises ConfigError for a database that cannot be used.
    """
    database = open_database(database_url, FEW)
    try:
        if database.dialect == "postgresql":
            return await _look_at_postgres(database, backup)
        if not sqlite_path(database_url).exists():
            return "empty"
        with suppress(ConfigError):
            return await _marked(database, backup)
        return "other"
    finally:
        await database.close()


async def _look_at_postgres(database: Database, backup: str) -> Target:
    if await has_schema(database):  # asks whether the database lets us in, too
        marked = await _marked(database, backup)
        if marked == "begun":
            return marked
    async with database.reading() as connection:
        has_rows = bool((await connection.execute(RELATIONS)).scalar_one())
        if not (await connection.execute(HAS_FILLING)).scalar_one():
            return "other" if has_rows else "empty"
        filling = (await connection.execute(text(f"SELECT backup FROM {FILLING}"))).scalar()
    if not has_rows:
        return "empty"
    return "filled" if filling == backup else "other"


async def _marked(database: Database, backup: str) -> Target:
    if not await has_schema(database):
        return "other"
    async with database.reading() as connection:
        mark = await copy_mark(connection)
    return "begun" if mark is not None and mark.backup == backup else "other"


# ── SQLite ────────────────────────────────────────────────────────────────────────────────────


def sqlite_path(database_url: str) -> Path:
    """The file of a SQLite database."""
    return Path(str(make_url(database_url).database)).absolute()


async def make_ready(copy: Path, *, backup: str, acceptance_key: int, now: datetime) -> None:
    """Bring a copy's schema up to date, and mark it; it is one file again at the end."""
    url = f"sqlite+aiosqlite:///{copy}"
    await migrate(url)
    database = open_database(url, FEW)
    try:
        await begin_copy(database, backup=backup, acceptance_key=acceptance_key, now=now)
    finally:
        await database.close()
    last = sqlite3.connect(copy, isolation_level=None)
    try:
        last.execute("PRAGMA journal_mode=DELETE")
    finally:
        last.close()


def place_sqlite(copy: Path, target: Path, *, now: datetime) -> Path | None:
    """Put the copy where the node looks for it; where the database that was there is now.

    At no moment is there none, if there was one. Raises ConfigError.
    """
    aside: Path | None = None
    try:
        with copy.open("rb") as file:
            os.fsync(file.fileno())
        if target.exists():
            aside = target.with_name(f"{target.name}.before-{now:%Y%m%dT%H%M%SZ}")
            _fold(target)
            for end in BESIDE:  # of a database that nobody can open
                with suppress(FileNotFoundError):
                    os.replace(f"{target}{end}", f"{aside}{end}")
            os.link(target, aside)
        os.replace(copy, target)
        target.chmod(0o600)
        sync_directory(target.parent)
    except OSError as error:
        raise ConfigError(f"DATABASE_URL: {target}: {error.strerror}") from error
    return aside


def _fold(database: Path) -> None:
    """Write what is in the log of a stopped database into its file, if it can be read at all."""
    with suppress(sqlite3.Error):
        last = sqlite3.connect(database, isolation_level=None)
        try:
            last.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            last.execute("PRAGMA journal_mode=DELETE")
        finally:
            last.close()


# ── PostgreSQL ────────────────────────────────────────────────────────────────────────────────


async def begin_filling(database_url: str, *, backup: str) -> None:
    """Say that a backup comes into this empty database, before it does."""
    database = open_database(database_url, FEW)
    try:
        async with database.writer.begin() as connection:
            await connection.execute(text(f"DROP TABLE IF EXISTS {FILLING}"))
            await connection.execute(text(f"CREATE TABLE {FILLING} (backup text NOT NULL)"))
            await connection.execute(
                text(f"INSERT INTO {FILLING} (backup) VALUES (:backup)"), {"backup": backup}
            )
    finally:
        await database.close()


def fill(tools: PostgresTools, dump: Path, *, check: Check) -> None:
    """Put the rows in, in one transaction. Raises RestoreRefused; then there are none."""
    try:
        tools.restore(dump, check=check)
    except ConfigError as error:
        raise RestoreRefused(str(error)) from error


async def end_filling(
    database_url: str, *, backup: str, acceptance_key: int, now: datetime
) -> None:
    """Bring the schema up to date and mark the copy; from then on the mark says what it is."""
    await migrate(database_url)
    database = open_database(database_url, FEW)
    try:
        await begin_copy(database, backup=backup, acceptance_key=acceptance_key, now=now)
    finally:
        await database.close()
    await forget_filling(database_url)


async def forget_filling(database_url: str) -> None:
    """The mark is there, so the table may go; a repeat is fine."""
    database = open_database(database_url, FEW)
    try:
        if database.dialect == "postgresql":
            async with database.writer.begin() as connection:
                await connection.execute(text(f"DROP TABLE IF EXISTS {FILLING}"))
    finally:
        await database.close()
