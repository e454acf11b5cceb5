"""Reading what a receipt is made of: a hold, and the row that ended it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import and_, select

from routstr.core.hold import HoldState
from routstr.ledger.engine import ReadConnection
from routstr.ledger.tables import Reservation, Transaction, table_of

RESERVATION = table_of(Reservation)
TRANSACTION = table_of(Transaction)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a hold ended; amounts in msat. `said` is what its `usage` row says of the request."""

    charged_msat: int
    balance_after_msat: int
    ended_at: datetime
    said: Mapping[str, object] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldView:
    """A hold by the id of its request; `ending` is None while it is running.

    `spender_id` is the child that asked where its parent, `api_key_id`, paid.
    """

    request_id: str
    api_key_id: str
    spender_id: str | None
    quote_msat: int
    price_snapshot: Mapping[str, object] = field(repr=False)
    ending: Ending | None


async def find_hold(connection: ReadConnection, request_id: str) -> HoldView | None:
    """The hold of that request, if there ever was one."""
    # Both have the time of the one commit: it tells in which month's partition to look.
    ended = and_(
        TRANSACTION.c.operation_id == f"end:{request_id}",
        TRANSACTION.c.timestamp == RESERVATION.c.ended_at,
        RESERVATION.c.state != HoldState.HELD,
    )
    row = (
        await connection.execute(
            select(
                RESERVATION.c.id,
                RESERVATION.c.api_key_id,
                RESERVATION.c.spender_id,
                RESERVATION.c.quote_amount,
                RESERVATION.c.price_snapshot,
                TRANSACTION.c.amount,
                TRANSACTION.c.balance_after,
                TRANSACTION.c.timestamp,
                TRANSACTION.c.request_data,
            )
            .outerjoin(TRANSACTION, ended)
            .where(RESERVATION.c.id == request_id)
        )
    ).one_or_none()
    if row is None:
        return None
    ending = None
    if row.amount is not None:
        ending = Ending(
            charged_msat=-row.amount,
            balance_after_msat=row.balance_after,
            ended_at=row.timestamp,
            said=row.request_data,
        )
    return HoldView(
        request_id=row.id,
        api_key_id=row.api_key_id,
        spender_id=row.spender_id,
        quote_msat=row.quote_amount,
        price_snapshot=row.price_snapshot,
        ending=ending,
    )
