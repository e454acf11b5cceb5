"""A key's own rows, for its owner: what came in, what went out, what each request cost."""

from routstr.errors import InvalidApiKey
from routstr.flows.context import Context
from routstr.ledger.book import KeyRef
from routstr.ledger.reads import HistoryRow, StatementRow, find_key, history, statement


async def key_history(
    ctx: Context, caller: KeyRef, *, limit: int, offset: int
) -> tuple[list[HistoryRow], int]:
    """Deposits and withdrawals, newest first, and how many in all. Raises InvalidApiKey."""
    async with ctx.database.reading() as connection:
        key = await find_key(connection, caller)
        if key is None:
            raise InvalidApiKey
        return await history(connection, key.id, limit=limit, offset=offset)


async def key_statement(
    ctx: Context, caller: KeyRef, *, limit: int, before: int | None
) -> list[StatementRow]:
    """The audit chain, newest first, from below sequence `before`. Raises InvalidApiKey."""
    async with ctx.database.reading() as connection:
        key = await find_key(connection, caller)
        if key is None:
            raise InvalidApiKey
        return await statement(connection, key.id, limit=limit, before=before)
