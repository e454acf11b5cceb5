"""The executor's one open transaction, and the driver under it.

The bulk statements of a batch go straight to the driver: prepared once, plain tuples back. What
SQLAlchemy adds to each statement would cost more than the statement. Commands with rows of their
own are written against SQLAlchemy, so a batch that has one gets a SQLAlchemy connection as well, of
the same transaction.

Laws
- A transaction that is left by an exception leaves nothing, whatever statement it came to.
- Every change that is guarded changes as many rows as it was given, or raises LostRace.
- A PostgreSQL connection that failed is dropped: its next user gets a new one.

asyncpg is imported where PostgreSQL is used: a node on SQLite has its 3 MB for something else.
"""

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast

from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from routstr.ledger.changes import Change, together
from routstr.ledger.commands import LostRace
from routstr.ledger.connection import BlockingConnection, LedgerConnection, Savepoint
from routstr.ledger.engine import Dialect

Row = Sequence[Any]

RETRIED_SQLSTATES: Final = frozenset({"40001", "40P01", "55P03", "57P01", "57P03", "53300"})
# Lost connections, and rows that somebody else has just written: a repeat finds them.
RETRIED_SQLSTATE_CLASSES: Final = ("08", "23")
# What was asked for cannot be had: not supported, wrong data, a wrong statement, a trigger's no.
REFUSED_SQLSTATE_CLASSES: Final = ("0A", "21", "22", "42", "P0")
BEGIN_ON_POSTGRES: Final = "BEGIN ISOLATION LEVEL READ COMMITTED"
BEGIN_NOW: Final = text("SELECT 1")  # SQLAlchemy's transaction begins with its first statement


class Driver(Protocol):
    """What the bulk statements need."""

    async def fetch(self, statement: str, *parameters: object) -> Sequence[Row]:
        """All rows of a query."""

    async def change(self, changes: Sequence[tuple[Change, Sequence[Row]]]) -> None:
        """Make changes, each to many rows. Raises LostRace when a guard finds another state."""


@dataclass(frozen=True, slots=True)
class Session:
    """An open transaction; with SQLAlchemy's connection if a command needs one."""

    driver: Driver
    connection: LedgerConnection | None = None
    begin_nested: Callable[[], Awaitable[Savepoint]] | None = None


# ── SQLite ────────────────────────────────────────────────────────────────────────────────────


class LiteDriver:
    """The driver of SQLite, blocking, behind the asynchronous interface."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """`connection` is in a transaction, and used in this thread only."""
        self._cursor = connection.cursor()

    async def fetch(self, statement: str, *parameters: object) -> Sequence[Row]:
        """All rows, at once."""
        return self._cursor.execute(statement, cast(Any, parameters)).fetchall()

    async def change(self, changes: Sequence[tuple[Change, Sequence[Row]]]) -> None:
        """One statement for each, prepared once and run for every row."""
        for change, rows in changes:
            if not rows:
                continue
            done = self._cursor.executemany(change.statement, rows)
            if change.is_guarded and done.rowcount != len(rows):
                raise LostRace


@contextmanager
def sqlite_transaction(engine: Engine, *, with_rows: bool) -> Iterator[Session]:
    """A transaction of the writing thread, committed at the end of the block."""
    if with_rows:
        with engine.begin() as connection:
            blocking = BlockingConnection(connection)
            driver = LiteDriver(cast(sqlite3.Connection, connection.connection.driver_connection))
            yield Session(driver, blocking, blocking.begin_nested)
        return
    pooled = engine.raw_connection()
    try:
        raw = cast(sqlite3.Connection, pooled.driver_connection)
        raw.execute("BEGIN IMMEDIATE")
        yield Session(LiteDriver(raw))
        raw.execute("COMMIT")
    finally:
        pooled.close()  # rolls back what is not committed


# ── PostgreSQL ────────────────────────────────────────────────────────────────────────────────


class PostgresDriver:
    """asyncpg's connection; it keeps the statements it has prepared."""

    def __init__(self, connection: Any) -> None:
        """`connection` is in a transaction."""
        self._connection = connection

    async def fetch(self, statement: str, *parameters: object) -> Sequence[Row]:
        """All rows."""
        return cast(Sequence[Row], await self._connection.fetch(statement, *parameters))

    async def change(self, changes: Sequence[tuple[Change, Sequence[Row]]]) -> None:
        """All in one statement, so that they cost one round trip; the rows travel as columns."""
        changes = [(change, rows) for change, rows in changes if rows]
        if not changes:
            return
        statement = together(tuple(change for change, _ in changes))
        columns = [column for _, rows in changes for column in zip(*rows, strict=True)]
        done = await self._connection.fetchrow(statement, *columns)
        for (change, rows), count in zip(changes, done, strict=True):
            if change.is_guarded and count != len(rows):
                raise LostRace


@asynccontextmanager
async def postgres_transaction(engine: AsyncEngine, *, with_rows: bool) -> AsyncIterator[Session]:
    """A transaction over the asynchronous driver, committed at the end of the block."""
    import asyncpg  # noqa: PLC0415 - see above

    # What it may raise and still be there, at the same place of its protocol as we are.
    answers = (DBAPIError, asyncpg.PostgresError, LostRace)
    async with engine.connect() as connection:
        raw = (await connection.get_raw_connection()).driver_connection
        assert raw is not None
        try:
            if with_rows:
                async with connection.begin():
                    await connection.execute(BEGIN_NOW)
                    yield Session(PostgresDriver(raw), connection, connection.begin_nested)
            else:
                await raw.execute(BEGIN_ON_POSTGRES)
                yield Session(PostgresDriver(raw))
                await raw.execute("COMMIT;")
        except BaseException as error:
            if raw.is_closed() or not isinstance(error, answers):
                await connection.invalidate()
            elif not with_rows:
                await raw.execute("ROLLBACK")
            raise


# ── what a failure means ──────────────────────────────────────────────────────────────────────


def failures(dialect: Dialect) -> tuple[type[Exception], ...]:
    """What a database of that kind raises that fails or is away."""
    common = (SQLAlchemyError, LostRace, OSError, TimeoutError)
    if dialect == "sqlite":
        return (*common, sqlite3.Error)
    import asyncpg  # noqa: PLC0415 - see above

    return (
        *common,
        asyncpg.PostgresError,
        asyncpg.InterfaceError,
        asyncpg.InternalClientError,
    )


def is_passing(error: Exception) -> bool:
    """Whether a repeat can help: lost races and connections, locks, and a unique key just taken."""
    if isinstance(error, LostRace | IntegrityError | OSError | TimeoutError):
        return True
    if isinstance(error, DBAPIError):
        state = str(getattr(error.orig, "sqlstate", "") or "")
        # SQLite names no state: a lock or a full disk may pass, and retries are bounded.
        return error.connection_invalidated or not state or _passes(state)
    if isinstance(error, sqlite3.Error):
        return True
    import asyncpg  # noqa: PLC0415 - see above

    if isinstance(error, asyncpg.PostgresError):
        return _passes(str(error.sqlstate or ""))
    return isinstance(error, asyncpg.InterfaceError | asyncpg.InternalClientError)


def is_refusal(error: Exception) -> bool:
    """Whether the database is well and refuses what one command asked for, now and ever."""
    state = getattr(getattr(error, "orig", error), "sqlstate", None)
    return str(state or "").startswith(REFUSED_SQLSTATE_CLASSES)


def _passes(state: str) -> bool:
    return state in RETRIED_SQLSTATES or state.startswith(RETRIED_SQLSTATE_CLASSES)
