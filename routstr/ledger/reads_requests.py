"""The hold of one request, for whoever asks what became of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from routstr.ledger.engine import ReadConnection
from routstr.ledger.reads import RESERVATION


@dataclass(frozen=True, slots=True, kw_only=True)
class ReservationView:
    """A hold as it stands; amounts in msat. `spender_id` is the child key that asked, if one did.

    `pinned` is what was fixed for it: model, prices, their version.
    """

    id: str
    key_id: str
    spender_id: str | None
    state: str
    amount_msat: int
    quote_msat: int
    settled_msat: int | None
    owner: str
    created_at: datetime
    deadline: datetime
    ended_at: datetime | None
    pinned: Mapping[str, object]


async def find_reservation(connection: ReadConnection, request_id: str) -> ReservationView | None:
    """The hold of that request, if it had one."""
    row = (
        await connection.execute(select(RESERVATION).where(RESERVATION.c.id == request_id))
    ).one_or_none()
    if row is None:
        return None
    return ReservationView(
        id=row.id,
        key_id=row.api_key_id,
        spender_id=row.spender_id,
        state=row.state,
        amount_msat=row.amount,
        quote_msat=row.quote_amount,
        settled_msat=row.settled_amount,
        owner=row.owner,
        created_at=row.created_at,
        deadline=row.deadline,
        ended_at=row.ended_at,
        pinned=row.price_snapshot,
    )
