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
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, Protocol, TypeVar, cast

import structlog
from sqlalchemy import Engine

from routstr.core.histogram import DURATIONS_US, SIZES, Histogram
from routstr.errors import Overloaded, RoutstrError, ServiceUnavailable
from routstr.ledger.book import Book
from routstr.ledger.bulk import (
    BulkStatements,
    Parents,
    book_changes,
    load_families,
    load_holds,
)
from routstr.ledger.bulk_claims import ClaimStatements, claim_changes, load_claims
from routstr.ledger.claims import ClaimBook
from routstr.ledger.commands import Command, RowCommand, Transaction, Wallet
from routstr.ledger.connection import finish
from routstr.ledger.drivers import (
    Driver,
    Session,
    failures,
    is_passing,
    is_refusal,
    postgres_transaction,
    sqlite_transaction,
)
from routstr.ledger.engine import Database
from routstr.ledger.thread import WorkThread

ResultT = TypeVar("ResultT")

log = structlog.get_logger()

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
        self._failures = failures(database.dialect)
        self._thread = WorkThread("ledger")
        self._queue: deque[_Entry] = deque()
        self._arrived = asyncio.Event()
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
        return len(self._queue)

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
        if command.may_be_shed and len(self._queue) >= self._limits.queue_max:
            raise Overloaded
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._queue.append(_Entry(command, future))
        self._arrived.set()
        # Whoever is cancelled cancels this future, and nothing else knows of it but `_resolve`.
        return cast(ResultT, await future)

    async def run(self) -> None:
        """Serve until `stop`; what was submitted before is still done."""
        try:
            while True:
                await self._arrived.wait()
                self._arrived.clear()
                while self._queue:
                    size = min(len(self._queue), self._limits.batch_max)
                    await self._serve([self._queue.popleft() for _ in range(size)])
                if self._stopping:
                    return
        finally:
            self._thread.stop()

    def stop(self) -> None:
        """Take nothing new; `run` returns once the queue is drained."""
        self._stopping = True
        self._arrived.set()

    async def _serve(self, batch: list[_Entry]) -> None:
        for attempt in range(1, self._limits.attempts_max + 1):
            try:
                await self._transact(batch)
                break
            except self._failures as error:
                log.warning("ledger_batch_failed", attempts=attempt, error_type=_name(error))
                if len(batch) > 1 and (is_refusal(error) or attempt > ATTEMPTS_TOGETHER):
                    for entry in batch:
                        await self._serve([entry])
                    return
                if attempt == self._limits.attempts_max or not is_passing(error):
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
        with_rows = any(isinstance(entry.command, RowCommand) for entry in batch)
        engine = self._database.thread_writer
        if engine is not None:
            work = partial(self._transact_in_thread, engine, batch, read_at, with_rows)
            done = await self._thread.run(work)
        else:
            writer = self._database.writer
            async with postgres_transaction(writer, with_rows=with_rows) as session:
                done = await self._work(session, batch, read_at)
        self._held_msat, self._held_read_at = done
        self.batch_sizes.note(len(batch))
        self.commit_us.note(round((loop.time() - begun_s) * 1_000_000))

    def _transact_in_thread(
        self, engine: Engine, batch: Sequence[_Entry], read_at: datetime | None, with_rows: bool
    ) -> tuple[int, datetime]:
        with sqlite_transaction(engine, with_rows=with_rows) as session:
            return finish(self._work(session, batch, read_at))

    async def _work(
        self, session: Session, batch: Sequence[_Entry], read_at: datetime | None
    ) -> tuple[int, datetime]:
        """Load, apply, write; yields what all holds promise then, and when that was last read."""
        driver = session.driver
        book = await self._load(driver, batch)
        places = {place for entry in batch for place in entry.command.places(book)}
        book.claims = ClaimBook(await load_claims(driver, self._claim_statements, places))
        read_at = await self._count_held(driver, book, read_at)
        for entry in batch:
            entry.outcome, entry.refusal = None, None
            if isinstance(entry.command, Command):
                try:
                    entry.outcome = entry.command.apply(book)
                except RoutstrError as refusal:
                    entry.refusal = refusal
            else:
                await self._run(entry, entry.command, session, book)
        await driver.change(book_changes(self._statements, book))
        for changes in claim_changes(self._statements, self._claim_statements, book):
            await driver.change(changes)
        return book.held_msat, read_at

    async def _run(
        self, entry: _Entry, command: RowCommand[Any], session: Session, book: Book
    ) -> None:
        """A command with rows of its own: a refusal undoes what it wrote."""
        assert session.connection is not None
        assert session.begin_nested is not None
        transaction = Transaction(
            connection=session.connection,
            dialect=self._database.dialect,
            book=book,
            wallet=self._wallet,
        )
        checkpoint = book.checkpoint()
        savepoint = await session.begin_nested()
        try:
            entry.outcome = await command.run(transaction)
        except RoutstrError as refusal:
            await savepoint.rollback()
            book.restore(checkpoint)
            entry.refusal = refusal
        else:
            await savepoint.commit()

    async def _load(self, driver: Driver, batch: Sequence[_Entry]) -> Book:
        refs = {ref for entry in batch for ref in entry.command.keys}
        hold_ids = {hold_id for entry in batch for hold_id in entry.command.hold_ids}
        accounts = await load_families(driver, self._statements, self._parents, refs)
        now, holds = await load_holds(driver, self._statements, hold_ids, self._clock.now())
        return Book(
            now=now,
            accounts=accounts,
            holds=holds,
            held_msat=self._held_msat,
            held_msat_max=self._limits.held_msat_max,
        )

    async def _count_held(self, driver: Driver, book: Book, read_at: datetime | None) -> datetime:
        """Put into the book what all holds promise; yields when that was last read.

        Read after the keys are locked: a transaction of our own whose fate we do not know has then
        ended.
        """
        is_alone = self._database.dialect == "sqlite"
        fresh_from = book.now - timedelta(seconds=HELD_FRESH_S)
        if read_at is not None and (is_alone or read_at > fresh_from):
            return read_at
        book.held_msat = int((await driver.fetch(self._statements.held))[0][0])
        return book.now


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


def _name(error: Exception) -> str:
    inner = getattr(error, "orig", None)
    return type(error).__name__ if inner is None else type(inner).__name__
