"""The commands of a Lightning invoice until it is paid: save, look, close. Algorithm B, 1 and 2.

Laws
- The row is committed with quote id, invoice and expiry before anybody sees the invoice. The call
  that asks the mint for it needs no row of its own: what was never shown is never paid.
- A look at the mint moves `next_poll_at` on before it is taken, so that two processes that watch
  the same invoice do not both ask.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Literal

import structlog
from sqlalchemy import ColumnElement, Row, and_, insert, or_, select, update

from routstr.ledger.accounts import APIKEY, NewKey
from routstr.ledger.allowance import check_creditable
from routstr.ledger.book import KeyRef
from routstr.ledger.commands import RowCommand, Transaction
from routstr.ledger.invites import hold_use
from routstr.ledger.tables import table_of
from routstr.ledger.tables_house import LightningInvoice
from routstr.ledger.vault import CannotOpen

log = structlog.get_logger()

INVOICE = table_of(LightningInvoice)

POLL_FIRST_S: Final = 2
POLL_MAX_S: Final = 60
LATE_POLL_S: Final = 3600
LATE_S: Final = 24 * 3600
VERY_LATE_POLL_S: Final = 24 * 3600
GIVEN_UP_AFTER_S: Final = LATE_S + 30 * 24 * 3600

CREATED_KEY_TTL_S: Final = 24 * 3600  # after it was paid, or until it is used
TOPUP_KEY_TTL_S: Final = 3600

InvoiceStatus = Literal[
    "pending", "settlement_pending", "paid", "expired", "cancelled", "reconciliation_required"
]
Closed = Literal["expired", "reconciliation_required"]


def poll_wait_s(polls: int, late_s: int) -> int:
    """Seconds until the next look, after `polls` of them, `late_s` past the expiry (or before)."""
    if late_s < 0:
        return min(POLL_FIRST_S << min(polls, 10), POLL_MAX_S)
    return LATE_POLL_S if late_s < LATE_S else VERY_LATE_POLL_S


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveInvoice(RowCommand[bool]):
    """Keep an invoice before it is shown: for a key (`api_key_id`), or to open one (`new_key`).

    `amount` is in the unit. `shown_key`, the text of the key that is topped up, is sealed with it.
    False if that invoice belongs to another row: a mint gave it out twice. Refuses
    with KeyRevoked, ChildKey, InviteRequired.
    """

    invoice_id: str
    api_key_id: str | None
    shown_key: str | None = field(repr=False)
    new_key: NewKey | None = field(repr=False)
    mint_url: str
    unit: str
    amount: int
    credit_msat: int
    bolt11: str = field(repr=False)
    payment_hash: str = field(repr=False)
    quote_id: str = field(repr=False)
    expires_at: datetime

    @property
    def keys(self) -> Sequence[KeyRef]:
        """The key to top up, if there is one."""
        return () if self.api_key_id is None else (KeyRef(id=self.api_key_id),)

    async def run(self, transaction: Transaction) -> bool:
        """Insert it once."""
        connection, now = transaction.connection, transaction.book.now
        holder = await connection.scalar(
            select(INVOICE.c.id).where(INVOICE.c.bolt11 == self.bolt11)
        )
        if holder is not None:
            return bool(holder == self.invoice_id)
        for key in self.keys:
            check_creditable(transaction.book.account(key))
        assert (self.api_key_id is None) != (self.new_key is None)
        if self.new_key is not None and self.new_key.invite is not None:
            await hold_use(transaction, self.new_key.invite, self.new_key.id, until=self.expires_at)
        text = self.shown_key if self.new_key is None else self.new_key.text

        def sealed(value: str, column: str) -> str:
            place = {"table": "lightning_invoice", "row_id": self.invoice_id}
            return transaction.wallet.vault.seal(value, column=column, **place)

        await connection.execute(
            insert(INVOICE).values(
                id=self.invoice_id,
                api_key_id=self.api_key_id,
                purpose="create" if self.api_key_id is None else "topup",
                status="pending",
                mint_url=self.mint_url,
                unit=self.unit,
                amount=self.amount,
                credit_msat=self.credit_msat,
                bolt11=self.bolt11,
                payment_hash=self.payment_hash,
                quote_id=sealed(self.quote_id, "quote_id"),
                next_poll_at=now + timedelta(seconds=POLL_FIRST_S),
                polls=0,
                sealed_key=None if text is None else sealed(text, "sealed_key"),
                new_key=None if self.new_key is None else self.new_key.terms(),
                created_at=now,
                expires_at=self.expires_at,
            )
        )
        return True


# ── looking ───────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """An invoice whose mint is to be asked now; `is_last` when nobody will ask again."""

    invoice_id: str
    api_key_id: str | None
    mint_url: str
    unit: str
    amount: int
    quote_id: str = field(repr=False)
    is_last: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimLooks(RowCommand[tuple[Look, ...]]):
    """Take the looks that are due, or one that somebody waits for, and set when the next is due.

    The one somebody waits for may come before its time, but a moment after the last look all the
    same: two seconds, past the expiry a minute.
    """

    limit: int
    invoice_id: str | None = None

    async def run(self, transaction: Transaction) -> tuple[Look, ...]:
        """Move each on; what another process has taken is skipped."""
        now, connection = transaction.book.now, transaction.connection
        wanted = select(INVOICE).where(INVOICE.c.status == "pending")
        if self.invoice_id is None:
            wanted = wanted.where(INVOICE.c.next_poll_at <= now)
        else:
            wanted = wanted.where(INVOICE.c.id == self.invoice_id)
        wanted = wanted.order_by(INVOICE.c.next_poll_at).limit(self.limit)
        if transaction.dialect == "postgresql":
            wanted = wanted.with_for_update(skip_locked=True)
        looks: list[Look] = []
        for row in (await connection.execute(wanted)).all():
            late_s = int((now - row.expires_at).total_seconds() // 1)
            if self.invoice_id is not None and not _may_look(row, now, late_s):
                continue
            wait_s = poll_wait_s(row.polls, late_s)
            await connection.execute(
                update(INVOICE)
                .where(INVOICE.c.id == row.id)
                .values(next_poll_at=now + timedelta(seconds=wait_s), polls=row.polls + 1)
            )
            look = _look(transaction, row, is_last=late_s >= GIVEN_UP_AFTER_S)
            looks += [] if look is None else [look]
        return tuple(looks)


def _may_look(row: Row[tuple[object, ...]], now: datetime, late_s: int) -> bool:
    """Whether the last look is long enough ago, as far as the time of the next one tells."""
    last_wait_s = poll_wait_s(max(row.polls - 1, 0), late_s)
    gap_s = POLL_FIRST_S if late_s < 0 else POLL_MAX_S
    due_at: datetime = row.next_poll_at
    return due_at <= now + timedelta(seconds=last_wait_s - gap_s)


def _look(transaction: Transaction, row: Row[tuple[object, ...]], *, is_last: bool) -> Look | None:
    """What is to be asked, or None for a row that does not open: it must not hold up the others."""
    place = {"table": "lightning_invoice", "column": "quote_id", "row_id": row.id}
    try:
        quote_id = transaction.wallet.vault.open(row.quote_id, **place)
    except CannotOpen as error:
        log.error("invoice_unreadable", invoice_id_prefix=row.id[:12], reason=str(error))
        return None
    return Look(
        invoice_id=row.id,
        api_key_id=row.api_key_id,
        mint_url=row.mint_url,
        unit=row.unit,
        amount=row.amount,
        quote_id=quote_id,
        is_last=is_last,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseInvoice(RowCommand[bool]):
    """Nobody will look again; False if it has moved on to something else meanwhile."""

    invoice_id: str
    status: Closed

    async def run(self, transaction: Transaction) -> bool:
        """pending → expired or reconciliation_required."""
        if await move_invoice(transaction, self.invoice_id, "pending", self.status):
            return True
        status = await transaction.connection.scalar(
            select(INVOICE.c.status).where(INVOICE.c.id == self.invoice_id)
        )
        return bool(status == self.status)


async def move_invoice(
    transaction: Transaction, invoice_id: str, before: InvoiceStatus, after: InvoiceStatus
) -> bool:
    """Move it, guarded by status, and end the looks; False if it is elsewhere."""
    moved = await transaction.connection.execute(
        update(INVOICE)
        .where(INVOICE.c.id == invoice_id, INVOICE.c.status == before)
        .values(status=after, next_poll_at=None)
    )
    return bool(moved.rowcount)


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneInvoiceKeys(RowCommand[int]):
    """Erase sealed key texts that are never shown again (contract, section 5)."""

    async def run(self, transaction: Transaction) -> int:
        """How many were erased."""
        erased = await transaction.connection.execute(
            update(INVOICE).where(has_late_key(transaction.book.now)).values(sealed_key=None)
        )
        return int(erased.rowcount)


def has_late_key(now: datetime) -> ColumnElement[bool]:
    """The condition on an invoice whose sealed key is shown no more."""
    used = select(APIKEY.c.id).where(APIKEY.c.first_used_at.is_not(None))
    created, topup = INVOICE.c.purpose == "create", INVOICE.c.purpose == "topup"
    return and_(
        INVOICE.c.sealed_key.is_not(None),
        or_(
            INVOICE.c.status == "expired",
            INVOICE.c.paid_at < now - timedelta(seconds=CREATED_KEY_TTL_S),
            topup & (INVOICE.c.paid_at < now - timedelta(seconds=TOPUP_KEY_TTL_S)),
            created & INVOICE.c.api_key_id.in_(used),
        ),
    )
