"""Reading one-shot accounts: what a payment for one request came to, and what is left of it."""

from dataclasses import dataclass

from sqlalchemy import select

from routstr.ledger.book import KeyRef
from routstr.ledger.engine import ReadConnection
from routstr.ledger.tables import (
    ONE_SHOT,
    ApiKey,
    Deposit,
    Reservation,
    table_of,
)

KEY = table_of(ApiKey)
DEPOSIT = table_of(Deposit)
RESERVATION = table_of(Reservation)


@dataclass(frozen=True, slots=True, kw_only=True)
class OneShotView:
    """A one-shot account; amounts in msat. `request_id` is None if nothing was held on it."""

    id: str
    mint_url: str
    unit: str
    balance_msat: int
    reserved_msat: int
    spent_msat: int
    request_id: str | None


async def find_one_shot(connection: ReadConnection, ref: KeyRef) -> OneShotView | None:
    """The one-shot account meant, if it is one and was credited."""
    wanted = KEY.c.id == ref.id if ref.id is not None else KEY.c.key_hash == ref.hash
    request_id = (
        select(RESERVATION.c.id)
        .where(RESERVATION.c.api_key_id == KEY.c.id)
        .order_by(RESERVATION.c.created_at)
        .limit(1)
        .scalar_subquery()
    )
    row = (
        await connection.execute(
            select(
                KEY,
                DEPOSIT.c.mint_url,
                DEPOSIT.c.unit,
                request_id.label("request_id"),
            )
            .join(DEPOSIT, DEPOSIT.c.api_key_id == KEY.c.id)
            .where(wanted, DEPOSIT.c.source == ONE_SHOT, DEPOSIT.c.state == "credited")
            .limit(1)
        )
    ).one_or_none()
    if row is None:
        return None
    return OneShotView(
        id=row.id,
        mint_url=row.mint_url,
        unit=row.unit,
        balance_msat=row.balance,
        reserved_msat=row.reserved,
        spent_msat=row.total_spent,
        request_id=row.request_id,
    )
