"""What a key's clients abandoned for free, as the audit chain has it: of all processes together."""

from datetime import datetime
from typing import Final

from sqlalchemy import select

from routstr.core.outcome import Evidence, Outcome
from routstr.ledger.engine import ReadConnection
from routstr.ledger.reads import TRANSACTION

LEFT: Final = (Outcome.CLIENT_LEFT.value, Outcome.CLIENT_LEFT_EARLY.value)


async def early_leaves(
    connection: ReadConnection, key_id: str, *, spender_id: str | None, since: datetime, limit: int
) -> list[datetime]:
    """When requests of that key, or of that child of its, were left before they cost anything.

    The newest first; only those that an upstream had been asked for.
    """
    said = TRANSACTION.c.request_data
    spender = said["spender"].as_string()
    rows = await connection.execute(
        select(TRANSACTION.c.timestamp)
        .where(
            TRANSACTION.c.api_key_id == key_id,
            TRANSACTION.c.timestamp >= since,
            TRANSACTION.c.type == "usage",
            TRANSACTION.c.amount == 0,
            said["outcome"].as_string().in_(LEFT),
            said["evidence"].as_string() == Evidence.NONE.value,
            said["attempts"].as_integer() > 0,
            spender.is_(None) if spender_id is None else spender == spender_id,
        )
        .order_by(TRANSACTION.c.timestamp.desc())
        .limit(limit)
    )
    return list(rows.scalars())
