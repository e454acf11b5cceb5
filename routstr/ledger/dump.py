"""Copies of a whole database, as a file: taken beside a running node, looked at, and put back.

SQLite: the online backup API on a connection that holds one read transaction. So the copy is of one
moment, writers never wait for it, and their commits never make it begin anew. PostgreSQL: `pg_dump`
and `pg_restore` of the server's own version or later. Credentials reach them by the environment,
which other users cannot read, never by the command line, which all can.

Everything here blocks: callers use a thread. `check` is called every moment and may raise.
"""

import shutil
import sqlite3
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from sqlalchemy import URL, make_url

from routstr.errors import ConfigError, RestoreRefused

Check = Callable[[], None]

STEP_PAGES: Final = 256
PAUSE_S: Final = 0.002
POLL_S: Final = 0.1
ERROR_CHARS_MAX: Final = 300
VERSION_UNIT: Final = 10_000  # server_version_num: 180001 is 18.1

COUNTED: Final = ("apikey", "transaction", "withdrawal", "proof", "mint_operation")
"""The tables whose rows are counted, so that whoever looks at a backup knows what is in it."""


# ── SQLite ────────────────────────────────────────────────────────────────────────────────────


def copy_sqlite(source: Path, target: Path, *, check: Check) -> None:
    """Copy a database as it is at one moment, step by step; `target` has no WAL beside it.

    Raises ConfigError when the source cannot be read.
    """
    pause = threading.Event()

    def between_steps(_status: int, _remaining: int, _total: int) -> None:
        check()
        pause.wait(PAUSE_S)

    try:
        reading = sqlite3.connect(f"file:{source}?mode=rw", uri=True, isolation_level=None)
        try:
            reading.execute("PRAGMA query_only=ON")
            reading.execute("BEGIN")
            reading.execute("SELECT count(*) FROM sqlite_master").fetchone()
            copy = sqlite3.connect(target, isolation_level=None)
            try:
                reading.backup(copy, pages=STEP_PAGES, progress=between_steps)
                copy.execute("PRAGMA journal_mode=DELETE")
            finally:
                copy.close()
        finally:
            reading.close()
    except sqlite3.Error as error:
        raise ConfigError(f"DATABASE_URL: {source} cannot be copied ({error})") from error


def check_sqlite(path: Path) -> tuple[str, Mapping[str, int]]:
    """The schema's revision and the counts of a copy that is whole. Raises RestoreRefused."""
    try:
        copy = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)
        try:
            found = copy.execute("PRAGMA integrity_check(1)").fetchone()
            if found != ("ok",):
                raise RestoreRefused("the copy of the database is damaged")
            (revision,) = copy.execute("SELECT version_num FROM alembic_version").fetchone()
            counts = {
                table: int(copy.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0])
                for table in COUNTED
            }
        finally:
            copy.close()
    except (sqlite3.Error, TypeError) as error:
        raise RestoreRefused("the copy is no database of a node") from error
    return str(revision), counts


# ── PostgreSQL ────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresTools:
    """`pg_dump` and `pg_restore` for one database; `directory` is where they are, else PATH."""

    database_url: str
    directory: Path | None = None

    def check_version(self, name: str, server_version: int) -> None:
        """Raises ConfigError for a program that is missing or older than the server.

        `server_version` is the server's `server_version_num`.
        """
        told = subprocess.run(  # noqa: S603 - the operator's own program
            [self._program(name), "--version"], capture_output=True, text=True, check=False
        )
        major = "".join(each if each.isdigit() else " " for each in told.stdout).split()
        if told.returncode or not major:
            raise ConfigError(f"PG_BIN_DIR: {name} does not run")
        if int(major[0]) < server_version // VERSION_UNIT:
            raise ConfigError(
                f"PG_BIN_DIR: {name} is of version {major[0]} and the server of version"
                f" {server_version // VERSION_UNIT}: install the server's own version"
            )

    def dump(self, target: Path, *, check: Check) -> None:
        """Write the database into a file of pg_dump's custom format. Raises ConfigError."""
        options = ("--format=custom", "--compress=0", "--no-owner", "--no-privileges")
        with target.open("wb") as file:
            self._run("pg_dump", options, check=check, stdout=file)

    def list_tables(self, dump: Path, *, check: Check) -> int:
        """How many tables' rows a dump has. Raises ConfigError, and RestoreRefused for none."""
        with tempfile.TemporaryFile() as listing:
            self._run("pg_restore", ("--list", str(dump)), check=check, stdout=listing)
            listing.seek(0)
            tables = sum(b" TABLE DATA " in line for line in listing)
        if not tables:
            raise RestoreRefused("the copy is no database of a node")
        return tables

    def restore(self, dump: Path, *, check: Check) -> None:
        """Fill the database from a dump, in one transaction. Raises ConfigError."""
        options = ("--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges")
        database = str(make_url(self.database_url).database)
        self._run("pg_restore", (*options, f"--dbname={database}", str(dump)), check=check)

    def _program(self, name: str) -> str:
        place = None if self.directory is None else str(self.directory)
        found = shutil.which(name, path=place)
        if found is None:
            where = "on PATH" if place is None else f"in {place}"
            raise ConfigError(f"PG_BIN_DIR: there is no {name} {where}; it is PostgreSQL's client")
        return found

    def _run(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        check: Check,
        stdout: IO[bytes] | None = None,
    ) -> None:
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(  # noqa: S603 - the operator's own program
                [self._program(name), *arguments],
                env=_environment(make_url(self.database_url)),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL if stdout is None else stdout,
                stderr=errors,
            )
            try:
                while not _ended_within(process, POLL_S):
                    check()
            finally:
                process.kill()  # nothing, if it has ended
                process.wait()
            if process.returncode:
                raise ConfigError(f"{name} failed: {_first_line(errors)}")


def _ended_within(process: "subprocess.Popen[bytes]", seconds_s: float) -> bool:
    try:
        process.wait(seconds_s)
    except subprocess.TimeoutExpired:
        return False
    return True


def _first_line(errors: IO[bytes]) -> str:
    """What went wrong, without the rows that PostgreSQL names in the lines after it."""
    errors.seek(0)
    line = errors.readline(ERROR_CHARS_MAX).decode(errors="replace").strip()
    return line or "it did not say why"


def _environment(url: URL) -> dict[str, str]:
    """All that the programs are told, in libpq's own variables."""
    query = {name: value for name, value in url.query.items() if isinstance(value, str)}
    told = {
        "PGHOST": url.host or query.get("host"),
        "PGPORT": str(url.port) if url.port else query.get("port"),
        "PGUSER": url.username,
        "PGPASSWORD": url.password,
        "PGDATABASE": url.database,
        "PGSSLMODE": query.get("sslmode") or query.get("ssl"),
        "PGAPPNAME": "routstr backup",
        "LC_ALL": "C",
        "TZ": "UTC",
    }
    return {name: str(value) for name, value in told.items() if value}


def without_password(database_url: str) -> str:
    """Where a database is, for people to read."""
    return make_url(database_url).set(query={}).render_as_string(hide_password=True)
