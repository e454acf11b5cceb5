"""What flows read of child keys, and of what was posted before."""

from sqlalchemy import exists, select

from routstr.ledger.engine import ReadConnection
from routstr.ledger.reads import KEY, TRANSACTION, KeyView, key_view


async def children_of(connection: ReadConnection, parent_id: str, *, limit: int) -> list[KeyView]:
    """A key's children that were not revoked, the newest first."""
    rows = await connection.execute(
        select(KEY)
        .where(KEY.c.parent_id == parent_id, KEY.c.revoked_at.is_(None))
        .order_by(KEY.c.created_at.desc(), KEY.c.id)
        .limit(limit)
    )
    return [key_view(row) for row in rows]


async def is_child_there(connection: ReadConnection, key_id: str) -> bool:
    """Whether a child key of that id was made."""
    wanted = exists().where(KEY.c.id == key_id, KEY.c.parent_id.is_not(None))
    return bool(await connection.scalar(select(wanted)))


async def was_posted(connection: ReadConnection, operation_id: str) -> bool:
    """Whether a row of the audit chain is of that operation."""
    wanted = exists().where(TRANSACTION.c.operation_id == operation_id)
    return bool(await connection.scalar(select(wanted)))
