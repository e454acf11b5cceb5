"""The runs of jobs: taken by one process, ended by it, and kept where somebody may ask for them.

`job_run` has one row for each job, its lease and its last result. `job_history` keeps a run that
was asked for, that changed something, or that failed; it is pruned by age and by count.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import delete, func, insert, or_, select, update

from routstr.errors import Pending
from routstr.ledger.catalog import FinishJob, TakeJob
from routstr.ledger.commands import RowCommand, Transaction
from routstr.ledger.tables import table_of
from routstr.ledger.tables_admin import JobHistory

HISTORY = table_of(JobHistory)

CUT_SHORT: Final = "cut short"
"""The error of a run that nobody will end: its process died or was stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of a job: whose idea it was (None: the schedule's), and whether it only looks.

    `lease_s` None: nobody else is kept from running it, so it has no row in `job_run`. Whoever
    `is_alone` with the database takes it from whoever had it, who is dead.
    """

    id: str
    name: str
    owner: str
    lease_s: float | None
    is_dry: bool = False
    asked_by: str | None = None
    is_alone: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRun(RowCommand[None]):
    """A run that was asked for begins, due or not. Refuses with Pending while another one runs."""

    run_of: Run

    async def run(self, transaction: Transaction) -> None:
        """Take the lease and write the row; a repeat finds its row."""
        run, connection, now = self.run_of, transaction.connection, transaction.book.now
        if await connection.scalar(select(HISTORY.c.id).where(HISTORY.c.id == run.id)):
            return
        if run.lease_s is not None:
            take = TakeJob(
                name=run.name,
                owner=run.owner,
                lease_s=run.lease_s,
                orphaned=run.is_alone,
                is_asked=True,
            )
            if not await take.run(transaction):
                raise Pending(f"The job {run.name} is running.")
            await _end_dead(transaction, run.name)
        await connection.execute(
            insert(HISTORY).values(
                id=run.id,
                name=run.name,
                is_dry_run=run.is_dry,
                asked_by=run.asked_by,
                started_at=now,
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EndRun(RowCommand[None]):
    """How a run ended; `next_in_s` says when a job with a lease is due again.

    `kept_since` is when it began; without it, the job's own row alone has it. One that broke off
    has no result, and an `error` for the history.
    """

    run_of: Run
    ok: bool
    result: Mapping[str, object] | None
    kept_since: datetime | None
    next_in_s: float = 0
    error: str = CUT_SHORT

    async def run(self, transaction: Transaction) -> None:
        """Give the lease back, and write the row or end it."""
        run, connection = self.run_of, transaction.connection
        if run.lease_s is not None:
            await FinishJob(
                name=run.name,
                owner=run.owner,
                ok=self.ok,
                result=self.result,
                next_in_s=self.next_in_s,
            ).run(transaction)
        if self.kept_since is None:
            return
        said = {
            "finished_at": transaction.book.now,
            "ok": self.ok,
            "result": {"error": self.error} if self.result is None else dict(self.result),
        }
        ended = await connection.execute(
            update(HISTORY).where(HISTORY.c.id == run.id).values(**said)
        )
        if ended.rowcount == 0:
            await connection.execute(
                insert(HISTORY).values(
                    id=run.id,
                    name=run.name,
                    is_dry_run=run.is_dry,
                    asked_by=run.asked_by,
                    started_at=self.kept_since,
                    **said,
                )
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneHistory(RowCommand[int]):
    """Forget runs from before `before`, and of each job all but its newest `keep_max`."""

    before: datetime
    keep_max: int

    async def run(self, transaction: Transaction) -> int:
        """How many were forgotten."""
        newest = func.row_number().over(
            partition_by=HISTORY.c.name, order_by=(HISTORY.c.started_at.desc(), HISTORY.c.id)
        )
        ranked = select(HISTORY.c.id, newest.label("place")).subquery()
        too_many = select(ranked.c.id).where(ranked.c.place > self.keep_max)
        forgotten = await transaction.connection.execute(
            delete(HISTORY).where(
                or_(HISTORY.c.started_at < self.before, HISTORY.c.id.in_(too_many))
            )
        )
        return int(forgotten.rowcount)


async def _end_dead(transaction: Transaction, name: str) -> None:
    """Whoever has the lease is alone: a run of that job without an end has lost its process."""
    await transaction.connection.execute(
        update(HISTORY)
        .where(
            HISTORY.c.name == name,
            HISTORY.c.finished_at.is_(None),
            HISTORY.c.is_dry_run.is_(False),
        )
        .values(finished_at=transaction.book.now, ok=False, result={"error": CUT_SHORT})
    )
