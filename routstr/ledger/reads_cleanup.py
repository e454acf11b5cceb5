"""What the clean-up jobs find to do: each a bounded page in the order of ids, or a count of all."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import and_, func, or_, select
from sqlalchemy.sql.elements import ColumnElement

from routstr.ledger.accounts import OWNER_KEY_ID
from routstr.ledger.engine import ReadConnection
from routstr.ledger.erasure import is_dead
from routstr.ledger.expiry import EXPIRED
from routstr.ledger.sagas import IS_OPEN, OPERATION
from routstr.ledger.tables import ApiKey, Reservation, Transaction, Withdrawal, table_of

KEY = table_of(ApiKey)
TRANSACTION = table_of(Transaction)
WITHDRAWAL = table_of(Withdrawal)
RESERVATION = table_of(Reservation)


@dataclass(frozen=True, slots=True, kw_only=True)
class Heap:
    """How many there are, and what they are worth together, in msat."""

    count: int
    amount_msat: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpiredKey:
    """A key that has expired with money on it, none of it held.

    `offered_at` is when all but later fees of it could last be claimed as a token, which nobody
    did and which was taken back; None if what is there was not offered yet.
    """

    id: str
    balance_msat: int
    version: int
    expires_at: datetime
    revoked_at: datetime | None
    offered_at: datetime | None


async def expired_keys(
    connection: ReadConnection, now: datetime, *, after_id: str = "", limit: int
) -> list[ExpiredKey]:
    """A page of them. Without those that a withdrawal is under way for."""
    newest_credit = (
        select(TRANSACTION.c.operation_id)
        .where(TRANSACTION.c.api_key_id == KEY.c.id, TRANSACTION.c.amount > 0)
        .order_by(TRANSACTION.c.sequence.desc())
        .limit(1)
        .correlate(KEY)
        .scalar_subquery()
    )
    offered_at = (
        select(WITHDRAWAL.c.completed_at)
        .where(
            WITHDRAWAL.c.api_key_id == KEY.c.id,
            WITHDRAWAL.c.fingerprint == EXPIRED,
            WITHDRAWAL.c.status == "reclaimed",
            ("refund:" + WITHDRAWAL.c.id) == newest_credit,
        )
        .correlate(KEY)
        .scalar_subquery()
    )
    wanted = (
        select(
            KEY.c.id,
            KEY.c.balance,
            KEY.c.version,
            KEY.c.expires_at,
            KEY.c.revoked_at,
            offered_at.label("offered_at"),
        )
        .where(
            KEY.c.expires_at <= now,
            KEY.c.balance > 0,
            KEY.c.reserved == 0,
            KEY.c.parent_id.is_(None),
            KEY.c.id != OWNER_KEY_ID,
            KEY.c.id > after_id,
            KEY.c.id.not_in(
                select(WITHDRAWAL.c.api_key_id).where(WITHDRAWAL.c.status == "pending")
            ),
        )
        .order_by(KEY.c.id)
        .limit(limit)
    )
    return [
        ExpiredKey(
            id=row.id,
            balance_msat=row.balance,
            version=row.version,
            expires_at=row.expires_at,
            revoked_at=row.revoked_at,
            offered_at=row.offered_at,
        )
        for row in await connection.execute(wanted)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnclaimedToken:
    """A token that was given out and is not known to be claimed; the amount in msat."""

    withdrawal_id: str
    mint_url: str
    amount_msat: int


def _unclaimed(before: datetime, fingerprint: str | None) -> ColumnElement[bool]:
    is_out = and_(
        WITHDRAWAL.c.status == "completed",
        WITHDRAWAL.c.way == "token",
        WITHDRAWAL.c.completed_at <= before,
    )
    return is_out if fingerprint is None else is_out & (WITHDRAWAL.c.fingerprint == fingerprint)


async def unclaimed_tokens(
    connection: ReadConnection,
    before: datetime,
    *,
    fingerprint: str | None = None,
    after_id: str = "",
    limit: int,
) -> list[UnclaimedToken]:
    """A page of those that are out since before then; with a fingerprint, only of that."""
    wanted = (
        select(WITHDRAWAL.c.id, WITHDRAWAL.c.mint_url, WITHDRAWAL.c.amount)
        .where(_unclaimed(before, fingerprint), WITHDRAWAL.c.id > after_id)
        .order_by(WITHDRAWAL.c.id)
        .limit(limit)
    )
    return [
        UnclaimedToken(withdrawal_id=row.id, mint_url=row.mint_url, amount_msat=row.amount)
        for row in await connection.execute(wanted)
    ]


async def unclaimed_heap(
    connection: ReadConnection, before: datetime, *, fingerprint: str | None = None
) -> Heap:
    """All of them."""
    return await _heap(connection, WITHDRAWAL.c.amount, _unclaimed(before, fingerprint))


async def pending_heap(connection: ReadConnection) -> Heap:
    """Withdrawals that have no end yet."""
    return await _heap(connection, WITHDRAWAL.c.amount, WITHDRAWAL.c.status == "pending")


async def _heap(
    connection: ReadConnection, amount: ColumnElement[int], *conditions: ColumnElement[bool]
) -> Heap:
    total = func.coalesce(func.sum(amount), 0).label("total")
    wanted = select(func.count().label("count_of"), total).where(*conditions)
    row = (await connection.execute(wanted)).one()
    return Heap(count=int(row.count_of), amount_msat=int(row.total))


async def dead_keys(
    connection: ReadConnection, idle_since: datetime, *, after_id: str = "", limit: int
) -> list[str]:
    """A page of the keys that may be erased; whether each is dead is asked again then."""
    wanted = select(KEY.c.id).where(is_dead(idle_since), KEY.c.id > after_id)
    return list(await connection.scalars(wanted.order_by(KEY.c.id).limit(limit)))


async def dead_count(connection: ReadConnection, idle_since: datetime, *, limit: int) -> int:
    """How many there are; no more than `limit` are counted."""
    some = select(KEY.c.id).where(is_dead(idle_since)).limit(limit).subquery()
    return int(await connection.scalar(select(func.count()).select_from(some)) or 0)


async def keys_behind(
    connection: ReadConnection,
    starts: Mapping[str, datetime],
    *,
    after_id: str = "",
    limit: int,
) -> list[str]:
    """A page of the keys whose limit counts a period that is over; `starts` are today's."""
    is_behind = or_(
        *(
            and_(
                KEY.c.limit_reset == reset,
                or_(KEY.c.limit_since.is_(None), KEY.c.limit_since < start),
            )
            for reset, start in starts.items()
        )
    )
    wanted = select(KEY.c.id).where(
        KEY.c.balance_limit.is_not(None), KEY.c.revoked_at.is_(None), is_behind, KEY.c.id > after_id
    )
    return list(await connection.scalars(wanted.order_by(KEY.c.id).limit(limit)))


async def overdue_holds(connection: ReadConnection, now: datetime) -> Heap:
    """Holds past their deadline."""
    return await _heap(
        connection,
        RESERVATION.c.amount,
        RESERVATION.c.state == "held",
        RESERVATION.c.deadline < now,
    )


async def due_operations(connection: ReadConnection, now: datetime) -> int:
    """Operations with mints that are open, and to be driven on."""
    wanted = (
        select(func.count())
        .select_from(OPERATION)
        .where(IS_OPEN, OPERATION.c.next_attempt_at <= now)
    )
    return int(await connection.scalar(wanted) or 0)
