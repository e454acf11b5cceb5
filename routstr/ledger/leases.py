"""Who drives an operation: leases by compare-and-set, and when an open one is due again."""

from dataclasses import dataclass
from datetime import timedelta

import structlog
from sqlalchemy import or_, select, update

from routstr.errors import Pending
from routstr.ledger.commands import RowCommand, Transaction
from routstr.ledger.sagas import (
    IS_OPEN,
    OPERATION,
    OPERATION_MOVES,
    Operation,
    OperationState,
    load_operation,
)
from routstr.ledger.vault import CannotOpen

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class SendOnce(RowCommand[None]):
    """Commit that a POST which must never be repeated is about to leave, and keep the lease for it.

    Refuses with Pending unless this owner has the lease: whoever slept while another took it over
    cannot know whether that other has posted. `owner` is a lease of this one driver.
    """

    operation_id: str
    owner: str
    lease_s: float

    async def run(self, transaction: Transaction) -> None:
        """prepared → sent; a repeat of this very command finds it sent."""
        sent = await transaction.connection.execute(
            update(OPERATION)
            .where(
                OPERATION.c.id == self.operation_id,
                OPERATION.c.lease_owner == self.owner,
                OPERATION.c.state.in_((OperationState.PREPARED, OperationState.SENT)),
            )
            .values(
                state=OperationState.SENT,
                lease_until=transaction.book.now + timedelta(seconds=self.lease_s),
            )
        )
        if sent.rowcount != 1:
            raise Pending("Another node has taken this operation over.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Postpone(RowCommand[None]):
    """Give an operation back, unknown still, to be driven again `wait_s` from now."""

    operation_id: str
    owner: str
    state: OperationState
    wait_s: float
    code: str | None = None
    watch_s: float | None = None

    async def run(self, transaction: Transaction) -> None:
        """Drop the lease, count the attempt; what ended or was taken over meanwhile stays so."""
        now = transaction.book.now
        sources = [self.state, *(s for s, moves in OPERATION_MOVES.items() if self.state in moves)]
        values: dict[str, object] = {
            "state": self.state,
            "lease_until": None,
            "attempts": OPERATION.c.attempts + 1,
            "next_attempt_at": now + timedelta(seconds=self.wait_s),
            "last_code": self.code,
        }
        if self.watch_s is not None:
            values["watch_until"] = now + timedelta(seconds=self.watch_s)
        await transaction.connection.execute(
            update(OPERATION)
            .where(
                OPERATION.c.id == self.operation_id,
                OPERATION.c.lease_owner == self.owner,
                OPERATION.c.state.in_(sources),
            )
            .values(**values)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim(RowCommand[tuple[Operation, ...]]):
    """Take the lease of open operations that are due, or of exactly one whether due or not.

    At most `limit` operations, those due the longest first; with `mint_id` of that mint alone.
    """

    owner: str
    lease_s: float
    limit: int = 20
    operation_id: str | None = None
    mint_id: str | None = None

    async def run(self, transaction: Transaction) -> tuple[Operation, ...]:
        """Compare-and-set each lease; another process's winner is skipped."""
        now, connection = transaction.book.now, transaction.connection
        free = or_(OPERATION.c.lease_until.is_(None), OPERATION.c.lease_until < now)
        wanted = select(OPERATION.c.id).where(IS_OPEN, free)
        if self.operation_id is not None:
            wanted = wanted.where(OPERATION.c.id == self.operation_id)
        else:
            wanted = wanted.where(OPERATION.c.next_attempt_at <= now)
        if self.mint_id is not None:
            wanted = wanted.where(OPERATION.c.mint_id == self.mint_id)
        wanted = wanted.order_by(OPERATION.c.next_attempt_at).limit(self.limit)
        if transaction.dialect == "postgresql":
            wanted = wanted.with_for_update(skip_locked=True)
        ids = (await connection.execute(wanted)).scalars().all()
        if not ids:
            return ()
        await connection.execute(
            update(OPERATION)
            .where(OPERATION.c.id.in_(ids))
            .values(lease_owner=self.owner, lease_until=now + timedelta(seconds=self.lease_s))
        )
        return tuple([each for i in ids if (each := await _readable(transaction, i)) is not None])


async def _readable(transaction: Transaction, operation_id: str) -> Operation | None:
    """The operation, or None for one that does not open: it must not hold up all the others."""
    try:
        return await load_operation(transaction.connection, transaction.wallet, operation_id)
    except CannotOpen as error:
        log.error("operation_unreadable", operation_id=operation_id, reason=str(error))
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class DropLeases(RowCommand[int]):
    """Free every open operation at once: at the start of a single-process node all are orphans."""

    async def run(self, transaction: Transaction) -> int:
        """Make them due now; how many there were."""
        freed = await transaction.connection.execute(
            update(OPERATION)
            .where(IS_OPEN)
            .values(lease_until=None, next_attempt_at=transaction.book.now)
        )
        return int(freed.rowcount)
