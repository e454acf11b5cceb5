"""Reading Lightning invoices: as their owners see them, and which are due to be looked at."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from sqlalchemy import func, select

from routstr.ledger.engine import ReadConnection
from routstr.ledger.invoices import INVOICE, InvoiceStatus
from routstr.ledger.tables import ApiKey, table_of

KEY = table_of(ApiKey)


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoiceRow:
    """An invoice, with its key's text still sealed; `amount` is in the unit of its mint."""

    id: str
    purpose: Literal["create", "topup"]
    status: InvoiceStatus
    amount: int
    bolt11: str = field(repr=False)
    payment_hash: str = field(repr=False)
    sealed_key: str | None = field(repr=False)
    created_at: datetime
    expires_at: datetime
    paid_at: datetime | None
    first_used_at: datetime | None


async def find_invoice(
    connection: ReadConnection, *, invoice_id: str | None = None, bolt11: str | None = None
) -> InvoiceRow | None:
    """The invoice of that row id, or with that text in lower case, if there is one."""
    wanted = INVOICE.c.bolt11 == bolt11 if invoice_id is None else INVOICE.c.id == invoice_id
    row = (
        await connection.execute(
            select(INVOICE, KEY.c.first_used_at)
            .outerjoin(KEY, KEY.c.id == INVOICE.c.api_key_id)
            .where(wanted)
        )
    ).one_or_none()
    if row is None:
        return None
    return InvoiceRow(
        id=row.id,
        purpose=row.purpose,
        status=row.status,
        amount=row.amount,
        bolt11=row.bolt11,
        payment_hash=row.payment_hash,
        sealed_key=row.sealed_key,
        created_at=row.created_at,
        expires_at=row.expires_at,
        paid_at=row.paid_at,
        first_used_at=row.first_used_at,
    )


async def invoice_owner(connection: ReadConnection, invoice_id: str) -> str | None:
    """The key an invoice is for; None while the key is yet to be opened."""
    owner = await connection.scalar(select(INVOICE.c.api_key_id).where(INVOICE.c.id == invoice_id))
    return None if owner is None else str(owner)


async def has_due_look(connection: ReadConnection, now: datetime) -> bool:
    """Whether a mint is to be asked about an invoice; a cheap look before taking them."""
    due = select(INVOICE.c.id).where(INVOICE.c.status == "pending", INVOICE.c.next_poll_at <= now)
    return (await connection.scalar(due.limit(1))) is not None


async def payable_invoices(connection: ReadConnection, now: datetime) -> int:
    """How many invoices somebody may still be about to pay."""
    payable = select(func.count()).where(INVOICE.c.status == "pending", INVOICE.c.expires_at > now)
    return int(await connection.scalar(payable) or 0)
