"""The LedgerExecutor: the only code that writes money, one per process, with group commit.

Requests hand it commands and await a future. It takes what has arrived, opens ONE transaction,
locks the rows of all keys concerned in id order, applies each command, writes the results in bulk,
commits, and only then resolves the futures: an answer about money leaves after COMMIT.

Laws
- A refused command never sinks its batch.
- What failed for a passing reason (a lost connection, a deadlock, a lost COMMIT answer, a lost
  race) runs again: every command is idempotent, so a repeat returns the first result.
- Nobody can cancel a batch: it runs in the executor's own task. A caller that stops waiting
  changes nothing.
- Never a network call other than to the database inside.
- What all holds promise is counted here and read again whenever the count may be off: at the start,
  after a COMMIT whose fate was unknown, and each second where other processes share the database.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Protocol, TypeVar, cast

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from routstr.core.histogram import DURATIONS_US, SIZES, Histogram
from routstr.errors import Overloaded, RoutstrError, ServiceUnavailable
from routstr.ledger.book import Book
from routstr.ledger.bulk import (
    BulkStatements,
    Parents,
    load_families,
    load_holds,
    write_book,
)
from routstr.ledger.bulk_claims import ClaimStatements, load_claims, write_claims
from routstr.ledger.claims import ClaimBook
from routstr.ledger.columns import as_time
from routstr.ledger.commands import Command, LostRace, RowCommand, Transaction, Wallet
from routstr.ledger.connection import BlockingConnection, LedgerConnection, Savepoint, finish
from routstr.ledger.engine import Database

ResultT = TypeVar("ResultT")

log = structlog.get_logger()

RETRIED_SQLSTATES: Final = frozenset({"40001", "40P01", "55P03", "57P01", "57P03", "53300"})
RETRIED_SQLSTATE_CLASS: Final = "08"
ATTEMPTS_TOGETHER: Final = 2
HELD_FRESH_S: Final = 1.0


class Clock(Protocol):
    """The one clock: aware UTC time, and a wait that tests can move."""

    def now(self) -> datetime:
        """The time, aware, in UTC."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait that long."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorLimits:
    """Bounds of the executor; `held_msat_max` is the most all holds may promise at once (I-18)."""

    queue_max: int = 4096
    batch_max: int = 256
    attempts_max: int = 6
    retry_wait_s: float = 0.05
    held_msat_max: int = 100_000_000_000


AnyCommand = Command[Any] | RowCommand[Any]  # the result's type is the submitter's alone


@dataclass(slots=True)
class _Entry:
    command: AnyCommand
    future: "asyncio.Future[object]"
    outcome: object = None
    refusal: Exception | None = field(default=None)


class LedgerExecutor:
    """Takes commands from any task, writes them in batches. `run` must be running."""

    def __init__(
        self, database: Database, *, wallet: Wallet, clock: Clock, limits: ExecutorLimits
    ) -> None:
        """Nothing is opened yet."""
        self._database = database
        self._wallet = wallet
        self._clock = clock
        self._limits = limits
        self._statements = BulkStatements(database.dialect)
        self._claim_statements = ClaimStatements(database.dialect)
        self._parents = Parents()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ledger")
        self._queue: asyncio.Queue[_Entry | None] = asyncio.Queue()
        self._held_msat = 0
        self._held_read_at: datetime | None = None
        self._stopping = False
        self.batch_sizes: Final = Histogram(SIZES)
        self.commit_us: Final = Histogram(DURATIONS_US)

    @property
    def held_msat(self) -> int:
        """What all holds promise, as far as this process knows."""
        return self._held_msat

    @property
    def held_msat_max(self) -> int:
        """The most all holds may promise (I-18)."""
        return self._limits.held_msat_max

    @property
    def batches(self) -> int:
        """How many were committed."""
        return self.batch_sizes.count

    @property
    def commands(self) -> int:
        """How many were in them."""
        return self.batch_sizes.total

    @property
    def queued(self) -> int:
        """How many commands wait for their batch."""
        return self._queue.qsize()

    @property
    def is_serving(self) -> bool:
        """Whether it takes commands."""
        return not self._stopping

    async def submit(self, command: Command[ResultT] | RowCommand[ResultT]) -> ResultT:
        """The command's result, after its COMMIT.

        Raises the command's refusal; Overloaded when the queue is full and the command may be
        shed; ServiceUnavailable when the database fails for longer than the retries last. Being
        cancelled while waiting stops the waiting, not the command.
        """
        if self._stopping:
            raise ServiceUnavailable("The node is shutting down.")
        if command.may_be_shed and self._queue.qsize() >= self._limits.queue_max:
            raise Overloaded
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait(_Entry(command, future))
        return cast(ResultT, await asyncio.shield(future))

    async def run(self) -> None:
        """Serve until `stop`; what was submitted before is still done."""
        try:
            await self._serve_all()
        finally:
            self._thread.shutdown(wait=False)

    async def _serve_all(self) -> None:
        while True:
            entry = await self._queue.get()
            if entry is None:
                return
            batch = [entry]
            stop = False
            while len(batch) < self._limits.batch_max and not self._queue.empty():
                following = self._queue.get_nowait()
                if following is None:
                    stop = True
                    break
                batch.append(following)
            await self._serve(batch)
            if stop:
                return

    def stop(self) -> None:
        """Take nothing new; `run` returns once the queue is drained."""
        if not self._stopping:
            self._stopping = True
            self._queue.put_nowait(None)

    async def _serve(self, batch: list[_Entry]) -> None:
        for attempt in range(1, self._limits.attempts_max + 1):
            try:
                await self._transact(batch)
                break
            except (SQLAlchemyError, LostRace, OSError, TimeoutError) as error:
                log.warning("ledger_batch_failed", attempts=attempt, error_type=_name(error))
                if len(batch) > 1 and attempt > ATTEMPTS_TOGETHER:
                    for entry in batch:
                        await self._serve([entry])
                    return
                if attempt == self._limits.attempts_max or not _is_passing(error):
                    _refuse(batch, ServiceUnavailable("The database is not available."), error)
                    return
                await self._clock.sleep(self._limits.retry_wait_s * 2 ** (attempt - 1))
            except Exception as error:  # broad: a bug in one command must not end the executor
                log.exception("ledger_batch_broken", count=len(batch))
                if len(batch) == 1:
                    _refuse(batch, RoutstrError(), error)
                    return
                for entry in batch:
                    await self._serve([entry])
                return
        _resolve(batch)

    async def _transact(self, batch: Sequence[_Entry]) -> None:
        """One transaction: on SQLite in the writing thread, else over the asynchronous driver."""
        read_at, self._held_read_at = self._held_read_at, None
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        if self._database.thread_writer is not None:
            engine = self._database.thread_writer
            done = await loop.run_in_executor(
                self._thread, self._transact_in_thread, engine, batch, read_at
            )
        else:
            async with self._database.writer.begin() as connection:
                done = await self._work(connection, connection.begin_nested, batch, read_at)
        self._held_msat, self._held_read_at = done
        self.batch_sizes.note(len(batch))
        self.commit_us.note(round((loop.time() - begun_s) * 1_000_000))

    def _transact_in_thread(
        self, engine: Engine, batch: Sequence[_Entry], read_at: datetime | None
    ) -> tuple[int, datetime]:
        with engine.begin() as connection:
            blocking = BlockingConnection(connection)
            return finish(self._work(blocking, blocking.begin_nested, batch, read_at))

    async def _work(
        self,
        connection: LedgerConnection,
        begin_nested: Callable[[], Awaitable[Savepoint]],
        batch: Sequence[_Entry],
        read_at: datetime | None,
    ) -> tuple[int, datetime]:
        """Load, apply, write; yields what all holds promise then, and when that was last read."""
        book = await self._load(connection, batch)
        places = {place for entry in batch for place in entry.command.places(book)}
        book.claims = ClaimBook(await load_claims(connection, self._claim_statements, places))
        read_at = await self._count_held(connection, book, read_at)
        transaction = Transaction(
            connection=connection, dialect=self._database.dialect, book=book, wallet=self._wallet
        )
        for entry in batch:
            await _apply(entry, transaction, begin_nested)
        await write_book(connection, self._statements, book)
        await write_claims(connection, self._claim_statements, book)
        return book.held_msat, read_at

    async def _load(self, connection: LedgerConnection, batch: Sequence[_Entry]) -> Book:
        now = self._clock.now()
        if self._database.dialect == "postgresql":
            now = as_time((await connection.execute(self._statements.clock)).scalar_one())
        refs = {ref for entry in batch for ref in entry.command.keys}
        hold_ids = {hold_id for entry in batch for hold_id in entry.command.hold_ids}
        return Book(
            now=now,
            accounts=await load_families(connection, self._statements, self._parents, refs),
            holds=await load_holds(connection, self._statements, list(hold_ids)),
            held_msat=self._held_msat,
            held_msat_max=self._limits.held_msat_max,
        )

    async def _count_held(
        self, connection: LedgerConnection, book: Book, read_at: datetime | None
    ) -> datetime:
        """Put into the book what all holds promise; yields when that was last read.

        Read after the keys are locked: a transaction of our own whose fate we do not know has then
        ended.
        """
        is_alone = self._database.dialect == "sqlite"
        fresh_from = book.now - timedelta(seconds=HELD_FRESH_S)
        if read_at is not None and (is_alone or read_at > fresh_from):
            return read_at
        book.held_msat = int((await connection.execute(self._statements.held)).scalar_one())
        return book.now


async def _apply(
    entry: _Entry, transaction: Transaction, begin_nested: Callable[[], Awaitable[Savepoint]]
) -> None:
    entry.outcome, entry.refusal = None, None
    command = entry.command
    if isinstance(command, Command):
        try:
            entry.outcome = command.apply(transaction.book)
        except RoutstrError as refusal:
            entry.refusal = refusal
        return
    checkpoint = transaction.book.checkpoint()
    savepoint = await begin_nested()
    try:
        entry.outcome = await command.run(transaction)
    except RoutstrError as refusal:
        await savepoint.rollback()
        transaction.book.restore(checkpoint)
        entry.refusal = refusal
    else:
        await savepoint.commit()


def _resolve(batch: Sequence[_Entry]) -> None:
    for entry in batch:
        if entry.future.done():
            continue
        if entry.refusal is not None:
            entry.future.set_exception(entry.refusal)
            entry.future.exception()
        else:
            entry.future.set_result(entry.outcome)


def _refuse(batch: Sequence[_Entry], answer: RoutstrError, cause: Exception) -> None:
    log.error("ledger_commands_failed", count=len(batch), error_type=_name(cause))
    answer.__cause__ = cause
    for entry in batch:
        entry.refusal = answer
    _resolve(batch)


def _is_passing(error: Exception) -> bool:
    """Whether a repeat can help: lost races and connections, locks, and a unique key just taken."""
    if isinstance(error, LostRace | IntegrityError | OSError | TimeoutError):
        return True
    if isinstance(error, DBAPIError):
        state = str(getattr(error.orig, "sqlstate", "") or "")
        if error.connection_invalidated or state in RETRIED_SQLSTATES:
            return True
        if state:
            return state.startswith(RETRIED_SQLSTATE_CLASS)
        return (
            True  # SQLite names no state: a lock or a full disk may pass, and retries are bounded
        )
    return False


def _name(error: Exception) -> str:
    inner = getattr(error, "orig", None)
    return type(error).__name__ if inner is None else type(inner).__name__
