"""What the overview reads: the whole money at one moment, what is held, and what needs somebody."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import func, select, text

from routstr.ledger.accounts import OWNER_KEY_ID
from routstr.ledger.audit_ecash import OPEN, PURSES, msat
from routstr.ledger.engine import ReadConnection
from routstr.ledger.reads import INVOICE, JOB, WITHDRAWAL, JobView
from routstr.ledger.sagas import IS_OPEN, MINT, OPERATION

# One statement, so one moment: the parts add up while money moves. `sure` is what of the coins in
# operations the surplus counts, as in `profit.py`; keys and coins are each read once.
PURSE: Final = f"""
SELECT coalesce(sum(CASE WHEN state = 'unspent' THEN total END), 0) AS unspent,
  coalesce(sum(CASE WHEN state = 'reserved' THEN total END), 0) AS reserved,
  coalesce(sum(CASE WHEN state = 'locked' THEN total END), 0) AS locked,
  coalesce(sum(CASE WHEN state = 'issued' THEN total END), 0) AS issued,
  (SELECT coalesce(sum({msat("p.amount", "ks.unit")}), 0) FROM keyset ks
    JOIN proof p ON p.keyset_id = ks.id AND p.state = 'reserved'
    LEFT JOIN mint_operation op ON op.id = p.operation_id
    WHERE p.lock_key IS NULL AND op.state <> 'watch') AS sure,
  (SELECT coalesce(sum(balance), 0) FROM apikey) AS balances,
  (SELECT coalesce(sum(balance), 0) FROM apikey WHERE id = '{OWNER_KEY_ID}') AS taken,
  (SELECT coalesce(sum(amount + fee_amount), 0) FROM withdrawal WHERE status = 'pending')
    AS pending,
  (SELECT coalesce(sum({msat("fee_amount", "unit")}), 0) FROM mint_operation
    WHERE kind = 'swap' AND withdrawal_id IS NULL AND {OPEN} AND state <> 'watch') AS swap_fees,
  (SELECT coalesce(sum(amount), 0) FROM reservation WHERE state = 'held') AS held,
  (SELECT count(*) FROM reservation WHERE state = 'held') AS running
FROM (SELECT state, sum({msat("amount", "unit")}) AS total FROM ({PURSES}) AS c
  GROUP BY state) AS coins
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PurseRow:
    """All money of one moment, in msat.

    Ecash by its state; what keys hold (`users`) and the operator's account (`taken`); what pending
    withdrawals cost, and swaps under way; `held` by running requests is part of `users`. `surplus`
    may be taken, and is below 0 while locked ecash waits.
    """

    unspent_msat: int
    reserved_msat: int
    locked_msat: int
    issued_msat: int
    users_msat: int
    taken_msat: int
    pending_msat: int
    swap_fees_msat: int
    held_msat: int
    running: int
    surplus_msat: int


async def purse(connection: ReadConnection) -> PurseRow:
    """The money as it is now."""
    row = (await connection.execute(text(PURSE))).one()
    surplus = row.unspent + row.sure - row.swap_fees - row.balances - row.pending
    return PurseRow(
        unspent_msat=int(row.unspent),
        reserved_msat=int(row.reserved),
        locked_msat=int(row.locked),
        issued_msat=int(row.issued),
        users_msat=int(row.balances) - int(row.taken),
        taken_msat=int(row.taken),
        pending_msat=int(row.pending),
        swap_fees_msat=int(row.swap_fees),
        held_msat=int(row.held),
        running=int(row.running),
        surplus_msat=int(surplus),
    )


# ── what needs somebody ───────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """How many of something there are, their msat, and since when the oldest waits."""

    count: int
    amount_msat: int
    oldest_at: datetime | None


def _waiting(row: Any) -> Waiting:
    return Waiting(count=int(row.n), amount_msat=int(row.amount_msat or 0), oldest_at=row.oldest_at)


async def unclaimed(connection: ReadConnection, *, before: datetime) -> Waiting:
    """Tokens given out before then that nobody is known to have claimed."""
    wanted = select(
        func.count().label("n"),
        func.sum(WITHDRAWAL.c.amount).label("amount_msat"),
        func.min(WITHDRAWAL.c.completed_at).label("oldest_at"),
    ).where(
        WITHDRAWAL.c.status == "completed",
        WITHDRAWAL.c.way == "token",
        WITHDRAWAL.c.completed_at < before,
    )
    return _waiting((await connection.execute(wanted)).one())


async def pending(connection: ReadConnection, *, before: datetime) -> Waiting:
    """Withdrawals begun before then that have no end yet."""
    wanted = select(
        func.count().label("n"),
        func.sum(WITHDRAWAL.c.amount).label("amount_msat"),
        func.min(WITHDRAWAL.c.created_at).label("oldest_at"),
    ).where(WITHDRAWAL.c.status == "pending", WITHDRAWAL.c.created_at < before)
    return _waiting((await connection.execute(wanted)).one())


async def unreconciled(connection: ReadConnection) -> Waiting:
    """Invoices of which a mint says what does not fit our books."""
    wanted = select(
        func.count().label("n"),
        func.sum(INVOICE.c.credit_msat).label("amount_msat"),
        func.min(INVOICE.c.created_at).label("oldest_at"),
    ).where(INVOICE.c.status == "reconciliation_required")
    return _waiting((await connection.execute(wanted)).one())


async def last_jobs(connection: ReadConnection) -> Mapping[str, JobView]:
    """The last run of every job that ever ran, by name."""
    rows = await connection.execute(select(JOB).order_by(JOB.c.name))
    return {
        row.name: JobView(
            name=row.name,
            ok=row.ok,
            started_at=row.started_at,
            finished_at=row.finished_at,
            result=row.result,
        )
        for row in rows
    }


# ── mints ─────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class MintSeen:
    """A mint that was ever reached; `open_operations` are calls to it that have no end yet."""

    id: str
    url: str
    name: str | None
    nuts: Sequence[int]
    answered_at: datetime | None
    open_operations: int


async def mints_seen(connection: ReadConnection) -> list[MintSeen]:
    """All of them, by URL."""
    open_rows = await connection.execute(
        select(OPERATION.c.mint_id, func.count().label("n"))
        .where(IS_OPEN)
        .group_by(OPERATION.c.mint_id)
    )
    counts = {row.mint_id: int(row.n) for row in open_rows}
    rows = await connection.execute(select(MINT).order_by(MINT.c.url))
    return [
        MintSeen(
            id=row.id,
            url=row.url,
            name=row.name,
            nuts=tuple(row.nuts or ()),
            answered_at=row.answered_at,
            open_operations=counts.get(row.id, 0),
        )
        for row in rows
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysetEnd:
    """A keyset with a final expiry (Unix s), and what is held of it in its unit."""

    id: str
    mint_url: str
    unit: str
    final_expiry: int
    held: int


async def keysets_ending(connection: ReadConnection, *, before_s: int) -> list[KeysetEnd]:
    """Keysets that end before then and of which something is held, the earliest first."""
    held = text(
        "SELECT ks.id, m.url, ks.unit, ks.final_expiry, sum(p.amount) AS held FROM keyset ks"
        " JOIN mint m ON m.id = ks.mint_id JOIN proof p ON p.keyset_id = ks.id"
        " AND p.state IN ('unspent', 'reserved', 'locked')"
        " WHERE ks.final_expiry > 0 AND ks.final_expiry <= :before_s"
        " GROUP BY ks.id, m.url, ks.unit, ks.final_expiry ORDER BY ks.final_expiry, ks.id"
    )
    return [
        KeysetEnd(
            id=row.id,
            mint_url=row.url,
            unit=row.unit,
            final_expiry=row.final_expiry,
            held=int(row.held),
        )
        for row in await connection.execute(held, {"before_s": before_s})
    ]
