"""What flows read of holds: who may be alive for them, how one stands, what it was answered."""

from datetime import datetime

from sqlalchemy import select

from routstr.core.hold import HoldState
from routstr.ledger.engine import ReadConnection
from routstr.ledger.reads import IDEMPOTENCY, RESERVATION


async def held_holds(
    connection: ReadConnection, *, deadline_before: datetime | None, limit: int
) -> list[tuple[str, str, str | None]]:
    """(hold, payer, child that asked) of holds past their deadline; with None, of all that live."""
    wanted = select(RESERVATION.c.id, RESERVATION.c.api_key_id, RESERVATION.c.spender_id).where(
        RESERVATION.c.state == HoldState.HELD
    )
    if deadline_before is not None:
        wanted = wanted.where(RESERVATION.c.deadline < deadline_before)
    rows = await connection.execute(wanted.order_by(RESERVATION.c.deadline).limit(limit))
    return [(row.id, row.api_key_id, row.spender_id) for row in rows]


async def is_held(connection: ReadConnection, hold_id: str) -> bool:
    """Whether that hold has not ended yet."""
    state = await connection.scalar(select(RESERVATION.c.state).where(RESERVATION.c.id == hold_id))
    return bool(state == HoldState.HELD)


async def kept_answer(connection: ReadConnection, hold_id: str) -> str | None:
    """The answer kept for a repeat of that hold's request, sealed; None once it is gone."""
    sealed: str | None = await connection.scalar(
        select(IDEMPOTENCY.c.answer).where(IDEMPOTENCY.c.reservation_id == hold_id)
    )
    return sealed
