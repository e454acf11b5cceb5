"""A key's own rows, for its owner: what came in, what went out, what each request cost."""

from routstr.flows.context import Context
from routstr.flows.keys import own_key
from routstr.ledger.book import KeyRef
from routstr.ledger.reads import HistoryRow, StatementRow, history, statement


async def key_history(
    ctx: Context, caller: KeyRef, *, limit: int, offset: int
) -> tuple[list[HistoryRow], int]:
    """Deposits and withdrawals, newest first, and how many in all.

    Raises InvalidApiKey, KeyRevoked.
    """
    key = await own_key(ctx, caller)
    async with ctx.database.reading() as connection:
        return await history(connection, key.id, limit=limit, offset=offset)


async def key_statement(
    ctx: Context, caller: KeyRef, *, limit: int, before: int | None
) -> list[StatementRow]:
    """The audit chain, newest first, from below sequence `before`.

    Raises InvalidApiKey, KeyRevoked.
    """
    key = await own_key(ctx, caller)
    async with ctx.database.reading() as connection:
        return await statement(connection, key.id, limit=limit, before=before)
