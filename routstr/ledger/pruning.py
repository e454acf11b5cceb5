"""What is kept for a while and then of no use: bodies of ended calls, log-ins, throttles.

Money rows, credited Ys, outputs and counters are for ever. The body of a call is needed to send it
again and to know its inputs; an operation that has ended does neither, and what its mint signed is
restored from its outputs (NUT-09), which stay.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Table, bindparam, delete, exists, func, select, update
from sqlalchemy.sql.elements import ColumnElement

from routstr.ledger.accounts import DEPOSIT, is_fetched_or_late
from routstr.ledger.commands import RowCommand, Transaction
from routstr.ledger.engine import ReadConnection
from routstr.ledger.invoices import INVOICE, has_late_key
from routstr.ledger.sagas import OPEN_STATES, OPERATION, OperationState
from routstr.ledger.tables import table_of
from routstr.ledger.tables_admin import AdminSession, JobHistory, LoginThrottle
from routstr.ledger.tables_house import Idempotency

SESSION = table_of(AdminSession)
THROTTLE = table_of(LoginThrottle)
HISTORY = table_of(JobHistory)
ANSWER = table_of(Idempotency)
SUCCESSOR: Final = OPERATION.alias("successor")

ENDED: Final = (OperationState.DONE, OperationState.FAILED)
NOTHING: Final = "{}"
ERASED_CHARS_MAX: Final = 80  # of the sealed NOTHING; the body of any call is longer


def _is_old(before: datetime) -> ColumnElement[bool]:
    """Ended long ago with its body still there, and nobody's predecessor who is at work."""
    return (
        OPERATION.c.state.in_(ENDED)
        & (OPERATION.c.ended_at <= before)
        & (func.length(OPERATION.c.request) > ERASED_CHARS_MAX)
        & ~exists().where(
            SUCCESSOR.c.predecessor_id == OPERATION.c.id, SUCCESSOR.c.state.in_(OPEN_STATES)
        )
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class OldBody:
    """An operation whose body may go, and when it ended."""

    operation_id: str
    ended_at: datetime


async def old_bodies(
    connection: ReadConnection, before: datetime, *, after: datetime | None, limit: int
) -> list[OldBody]:
    """Those that ended before then, the first first, from `after` on."""
    wanted = select(OPERATION.c.id, OPERATION.c.ended_at).where(_is_old(before))
    if after is not None:
        wanted = wanted.where(OPERATION.c.ended_at >= after)
    rows = await connection.execute(wanted.order_by(OPERATION.c.ended_at).limit(limit))
    return [OldBody(operation_id=row.id, ended_at=row.ended_at) for row in rows]


@dataclass(frozen=True, slots=True, kw_only=True)
class EraseBodies(RowCommand[int]):
    """Seal nothing in place of what those operations sent, if they have ended before `before`."""

    operation_ids: Sequence[str]
    before: datetime

    async def run(self, transaction: Transaction) -> int:
        """How many of them are erased; a repeat tells the same."""
        connection, vault = transaction.connection, transaction.wallet.vault
        mine = OPERATION.c.id.in_(self.operation_ids)
        old = await connection.execute(select(OPERATION.c.id).where(mine, _is_old(self.before)))
        sealed: list[dict[str, Any]] = [
            {
                "of_id": id_,
                "nothing": vault.seal(
                    NOTHING, table="mint_operation", column="request", row_id=id_
                ),
            }
            for id_ in old.scalars()
        ]
        if sealed:
            await connection.execute(
                update(OPERATION)
                .where(OPERATION.c.id == bindparam("of_id"), OPERATION.c.state.in_(ENDED))
                .values(request=bindparam("nothing")),
                sealed,
            )
        erased = await connection.scalar(
            select(func.count())
            .select_from(OPERATION)
            .where(mine, func.length(OPERATION.c.request) <= ERASED_CHARS_MAX)
        )
        return int(erased or 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneLogins(RowCommand[int]):
    """Forget sessions and throttles that are over, at most `limit` of each."""

    limit: int

    async def run(self, transaction: Transaction) -> int:
        """How many were forgotten."""
        now, forgotten = transaction.book.now, 0
        for table, name in ((SESSION, SESSION.c.id), (THROTTLE, THROTTLE.c.scope)):
            over = select(name).where(table.c.expires_at <= now)
            over = over.order_by(table.c.expires_at).limit(self.limit)
            gone = await transaction.connection.execute(delete(table).where(name.in_(over)))
            forgotten += int(gone.rowcount)
        return forgotten


@dataclass(frozen=True, slots=True, kw_only=True)
class OutOfDate:
    """How much of each kind a prune would take up."""

    keys: int
    answers: int
    bodies: int
    logins: int
    runs: int


async def out_of_date(
    connection: ReadConnection,
    now: datetime,
    *,
    bodies_before: datetime,
    runs_before: datetime,
    keys_before: datetime,
) -> OutOfDate:
    """What there is of it now."""

    async def count(table: Table, condition: ColumnElement[bool]) -> int:
        wanted = select(func.count()).select_from(table).where(condition)
        return int(await connection.scalar(wanted) or 0)

    kept, claimed = ANSWER.c.answer_expires_at <= now, ANSWER.c.expires_at <= now
    return OutOfDate(
        keys=await count(DEPOSIT, is_fetched_or_late(keys_before))
        + await count(INVOICE, has_late_key(now)),
        answers=await count(ANSWER, kept) + await count(ANSWER, claimed),
        bodies=await count(OPERATION, _is_old(bodies_before)),
        logins=await count(SESSION, SESSION.c.expires_at <= now)
        + await count(THROTTLE, THROTTLE.c.expires_at <= now),
        runs=await count(HISTORY, HISTORY.c.started_at < runs_before),
    )
