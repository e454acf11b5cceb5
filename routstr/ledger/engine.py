"""The two doors to the one database: a writing engine for the executor, a reading one for the rest.

SQLite: driver autocommit and our own `BEGIN IMMEDIATE`, one writing connection, WAL,
`synchronous=FULL`, readers `query_only`, and a lock on the data directory so that a second process
refuses to start. PostgreSQL: asyncpg, READ COMMITTED with row locks, time-outs set on the session,
and a check at start that the server really keeps what it confirms.
"""

import fcntl
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, NewType, Protocol, TypeVar

from sqlalchemy import URL, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    InterfaceError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry, QueuePool

from routstr.errors import ConfigError, ServiceUnavailable
from routstr.ledger.connection import BlockingConnection, LedgerConnection, finish
from routstr.ledger.thread import WorkThread

Dialect = Literal["sqlite", "postgresql"]
ReadConnection = NewType("ReadConnection", AsyncConnection)
ResultT = TypeVar("ResultT")

SQLITE_PRAGMAS: Final = (
    "journal_mode=WAL",
    "synchronous=FULL",
    "fullfsync=ON",
    "busy_timeout=5000",
    "foreign_keys=ON",
    "trusted_schema=OFF",
    "cell_size_check=ON",
    "mmap_size=0",
    "cache_size=-8192",  # KiB: the hot indexes' roots; the system caches the rest
    "wal_autocheckpoint=10000",  # pages, 40 MB: a checkpoint costs as much as many commits
)
# There are many readers, and what is resident would grow with the database until each has its fill.
SQLITE_READER: Final = (*SQLITE_PRAGMAS, "cache_size=-2048", "query_only=ON")
POSTGRES_SESSION: Final = {
    "application_name": "routstr",
    "statement_timeout": "5000",
    "lock_timeout": "2000",
    "idle_in_transaction_session_timeout": "10000",
    "jit": "off",
    "timezone": "UTC",
}
# Connections that are lost or refused, a server that stops or has no room, a statement's time-out.
AWAY_SQLSTATES: Final = ("08", "57P", "53", "57014")
POSTGRES_MUST_BE_ON: Final = ("fsync", "full_page_writes", "synchronous_commit")


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    """How many connections reading may use, how long to wait for one, and when to renew them."""

    size: int = 8
    overflow: int = 8
    timeout_s: float = 5.0
    recycle_s: int = 1800
    pre_ping: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """The engines of one database. Writing is the executor's alone, once the node runs.

    `thread_writer` is there on SQLite only: the executor's one writing connection, used in a
    thread of its own. `writer` serves what comes before the executor: migrations and the seed.
    `thread_reader` is there on SQLite only too, for `read`.
    """

    dialect: Dialect
    writer: AsyncEngine
    reader: AsyncEngine
    thread_writer: Engine | None = None
    thread_reader: Engine | None = None
    _thread: WorkThread = field(default_factory=lambda: WorkThread("reader"), repr=False)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[ReadConnection]:
        """A connection that can only read, given back at the end.

        Raises ServiceUnavailable when the database is away, as the executor does for what writes.
        """
        is_connected = False
        try:
            async with self.reader.connect() as connection:
                is_connected = True
                yield ReadConnection(connection)
        except (SQLAlchemyError, OSError) as error:
            if not (_is_away(error) if isinstance(error, SQLAlchemyError) else not is_connected):
                raise
            raise ServiceUnavailable("The database is not available.") from error

    async def read(
        self, query: Callable[[LedgerConnection], Coroutine[Any, Any, ResultT]]
    ) -> ResultT:
        """What a quick query finds, for the paths where each tenth of a millisecond counts.

        On SQLite it costs one hand-over to a thread, where `reading` costs one for every step of a
        connection, a dozen in all. The query may await nothing but its connection. Raises as
        `reading` does.
        """
        if self.thread_reader is None:
            async with self.reading() as connection:
                return await query(connection)
        try:
            return await self._thread.run(partial(_query, self.thread_reader, query))
        except SQLAlchemyError as error:
            if not _is_away(error):
                raise
            raise ServiceUnavailable("The database is not available.") from error

    async def close(self) -> None:
        """Close every connection."""
        await self.reader.dispose()
        await self.writer.dispose()
        for engine in (self.thread_writer, self.thread_reader):
            if engine is not None:
                engine.dispose()
        self._thread.stop()


def _query(
    engine: Engine, query: Callable[[LedgerConnection], Coroutine[Any, Any, ResultT]]
) -> ResultT:
    with engine.connect() as connection:
        return finish(query(BlockingConnection(connection)))


def _is_away(error: SQLAlchemyError) -> bool:
    """Whether the database did not answer, rather than refuse what was asked."""
    if not isinstance(error, DBAPIError):
        return isinstance(error, PoolTimeout)
    state = str(getattr(error.orig, "sqlstate", "") or "")
    # SQLite names no state: its file is locked, full, or cannot be read.
    is_mute = not state and isinstance(error, OperationalError | InterfaceError)
    return error.connection_invalidated or is_mute or state.startswith(AWAY_SQLSTATES)


def open_database(url: str, pool: PoolSettings) -> Database:
    """Engines for `sqlite+aiosqlite://` or `postgresql+asyncpg://`; no connection is made yet.

    Plain `sqlite://`, `postgres://` and `postgresql://` mean those drivers. Raises ConfigError for
    any other database, and for SQLite in memory, which no two connections share.
    """
    parsed = _parsed(url)
    match parsed.get_backend_name():
        case "sqlite":
            return _open_sqlite(parsed.set(drivername="sqlite+aiosqlite").render_as_string(), pool)
        case "postgresql":
            address = parsed.set(drivername="postgresql+asyncpg")
            return _open_postgres(address.render_as_string(hide_password=False), pool)
        case other:
            raise ConfigError(f"DATABASE_URL: {other} is not supported; use sqlite or postgresql")


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url.replace("postgres://", "postgresql://", 1))
    except (ArgumentError, ValueError) as error:
        raise ConfigError("DATABASE_URL: not the URL of a database") from error
    if parsed.get_backend_name() == "sqlite" and parsed.database in {None, "", ":memory:"}:
        raise ConfigError("DATABASE_URL: a SQLite database needs a file")
    return parsed


def sqlite_directories(url: str, data_dir: Path) -> list[Path]:
    """The directories one process must own: none on PostgreSQL.

    Two nodes with different data directories could share a database file; so its own counts too.
    """
    parsed = _parsed(url)
    if parsed.get_backend_name() != "sqlite":
        return []
    return sorted({data_dir.resolve(), Path(str(parsed.database)).resolve().parent})


async def has_schema(database: Database) -> bool:
    """Whether a node's tables are there; a SQLite file that is missing is not made.

    Raises ConfigError for a database that cannot be read.
    """
    if _lacks_file(database):
        return False
    await check_reachable(database)
    async with database.reading() as connection:
        return await connection.run_sync(lambda sync: inspect(sync).has_table("setting"))


async def check_reachable(database: Database) -> None:
    """Raises ConfigError for a database that does not let us in, or is none."""
    try:
        async with database.reader.connect() as connection:
            await connection.execute(text("SELECT 1"))
    except (OSError, OverflowError, SQLAlchemyError) as error:
        inner = getattr(error, "orig", None) or error
        reason = type(inner.__cause__ or inner).__name__
        raise ConfigError(f"DATABASE_URL: the database cannot be used ({reason})") from error


def _lacks_file(database: Database) -> bool:
    return database.dialect == "sqlite" and not Path(str(database.reader.url.database)).exists()


def _open_sqlite(url: str, pool: PoolSettings) -> Database:
    writer = create_async_engine(
        url,
        poolclass=AsyncAdaptedQueuePool,
        pool_size=1,
        max_overflow=0,
        pool_timeout=pool.timeout_s,
        pool_reset_on_return="rollback",
        connect_args={"isolation_level": None},
    )
    reader = create_async_engine(
        url,
        poolclass=AsyncAdaptedQueuePool,
        pool_size=pool.size,
        max_overflow=pool.overflow,
        pool_timeout=pool.timeout_s,
        connect_args={"isolation_level": None},
    )
    thread_writer, thread_reader = (
        create_engine(
            make_url(url).set(drivername="sqlite"),
            poolclass=QueuePool,
            pool_size=1,
            max_overflow=0,
            connect_args={"isolation_level": None, "check_same_thread": False},
        )
        for _ in range(2)
    )
    for engine in (writer.sync_engine, thread_writer):
        _on_connect(engine, SQLITE_PRAGMAS)
        _on_begin(engine, "BEGIN IMMEDIATE")
    for engine in (reader.sync_engine, thread_reader):
        _on_connect(engine, SQLITE_READER)
        _on_begin(engine, "BEGIN")
    return Database(
        dialect="sqlite",
        writer=writer,
        reader=reader,
        thread_writer=thread_writer,
        thread_reader=thread_reader,
    )


def _on_connect(engine: Engine, pragmas: tuple[str, ...]) -> None:
    @event.listens_for(engine, "connect")
    def configure(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
        cursor = connection.cursor()
        for pragma in pragmas:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()


class _Executes(Protocol):
    def exec_driver_sql(self, statement: str) -> object: ...


def _on_begin(engine: Engine, statement: str) -> None:
    @event.listens_for(engine, "begin")
    def begin(connection: _Executes) -> None:
        connection.exec_driver_sql(statement)


def _open_postgres(url: str, pool: PoolSettings) -> Database:
    writer = create_async_engine(
        url,
        pool_size=2,
        max_overflow=0,
        pool_timeout=pool.timeout_s,
        pool_recycle=pool.recycle_s,
        pool_pre_ping=False,
        isolation_level="READ COMMITTED",
        connect_args={"server_settings": POSTGRES_SESSION},
    )
    reader = create_async_engine(
        url,
        pool_size=pool.size,
        max_overflow=pool.overflow,
        pool_timeout=pool.timeout_s,
        pool_recycle=pool.recycle_s,
        pool_pre_ping=pool.pre_ping,
        connect_args={
            "server_settings": {**POSTGRES_SESSION, "default_transaction_read_only": "on"}
        },
    )
    return Database(dialect="postgresql", writer=writer, reader=reader)


async def check_durability(database: Database) -> None:
    """Refuse a PostgreSQL that confirms what it may lose. Raises ConfigError naming the setting."""
    if database.dialect != "postgresql":
        return
    async with database.reading() as connection:
        for name in POSTGRES_MUST_BE_ON:
            value = (await connection.execute(text(f"SHOW {name}"))).scalar_one()
            if value not in {"on", "remote_apply", "remote_write"}:
                raise ConfigError(f"DATABASE_URL: PostgreSQL has {name}={value}; it must be on")


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryLock:
    """An exclusive lock on the data directory, held as long as the process lives."""

    descriptor: int

    def release(self) -> None:
        """Give the directory up."""
        os.close(self.descriptor)


def lock_directory(directory: Path) -> DirectoryLock:
    """Take the data directory for this process. Raises ConfigError when another one has it."""
    descriptor = -1
    try:
        descriptor = os.open(directory / "routstr.lock", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if descriptor >= 0:
            os.close(descriptor)
        raise ConfigError(
            f"DATA_DIR: {directory} is in use by another node, or cannot be locked;"
            " on SQLite one process owns it"
        ) from error
    return DirectoryLock(descriptor=descriptor)
