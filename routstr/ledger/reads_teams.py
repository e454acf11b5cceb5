"""What flows read of child keys, and of what was posted before."""

from sqlalchemy import exists, select

from routstr.ledger.engine import ReadConnection
from routstr.ledger.reads import DEPOSIT, KEY, TRANSACTION, KeyView, key_view
from routstr.ledger.tables import ONE_SHOT


async def children_of(connection: ReadConnection, parent_id: str, *, limit: int) -> list[KeyView]:
    """A key's children that were not revoked, the newest first."""
    rows = await connection.execute(
        select(KEY)
        .where(KEY.c.parent_id == parent_id, KEY.c.revoked_at.is_(None))
        .order_by(KEY.c.created_at.desc(), KEY.c.id)
        .limit(limit)
    )
    return [key_view(row) for row in rows]


async def pays_once(connection: ReadConnection, key_id: str) -> bool:
    """Whether it is the account of a token that paid for one request: nobody has its key."""
    wanted = exists().where(DEPOSIT.c.api_key_id == key_id, DEPOSIT.c.source == ONE_SHOT)
    return bool(await connection.scalar(select(wanted)))


async def was_posted(connection: ReadConnection, operation_id: str) -> bool:
    """Whether a row of the audit chain is of that operation."""
    wanted = exists().where(TRANSACTION.c.operation_id == operation_id)
    return bool(await connection.scalar(select(wanted)))
