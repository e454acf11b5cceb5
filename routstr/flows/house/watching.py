"""Whether somebody who watches a live page may go on, without that counting as use of a session."""

from datetime import timedelta

from routstr.flows.context import Context
from routstr.flows.house.account import tokens
from routstr.flows.house.identity import IDLE_S, token_hash
from routstr.ledger.reads_admins import find_session


async def goes_on(ctx: Context, token: str) -> bool:
    """Whether the session of that cookie has neither ended nor been left alone for too long."""
    async with ctx.database.reading() as connection:
        found = await find_session(connection, token_hash(ctx, token))
    if found is None:
        return False
    now = ctx.clock.now()
    used_at = found.last_used_at or found.created_at
    return found.expires_at > now and used_at + timedelta(seconds=IDLE_S) > now


async def is_valid(ctx: Context, token_id: str) -> bool:
    """Whether a program's token of that id is neither revoked nor over."""
    now = ctx.clock.now()
    return any(each.id == token_id and each.expires_at > now for each in await tokens(ctx))
