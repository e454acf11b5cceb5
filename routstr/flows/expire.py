"""Ending the holds whose owner is gone: nothing is charged, the money is free again."""

import asyncio
from typing import Final

import structlog

from routstr.errors import NotFound
from routstr.flows.context import Context
from routstr.ledger.accounts import PruneSealedKeys
from routstr.ledger.holds import Expire
from routstr.ledger.invoices import PruneInvoiceKeys
from routstr.ledger.reads_holds import held_holds

log = structlog.get_logger()

BATCH_MAX: Final = 200


async def expire(ctx: Context, *, orphaned: bool = False) -> int:
    """End holds past their deadline, or with `orphaned` all there are; how many.

    Orphaned is right only at the start of a node that owns its database alone.
    """
    ended = 0
    while True:
        deadline = None if orphaned else ctx.clock.now()
        async with ctx.database.reading() as connection:
            found = await held_holds(connection, deadline_before=deadline, limit=BATCH_MAX)
        results = await asyncio.gather(
            *(
                _expire(
                    ctx,
                    Expire(
                        hold_id=hold_id,
                        api_key_id=key_id,
                        spender_id=spender_id,
                        orphaned=orphaned,
                    ),
                )
                for hold_id, key_id, spender_id in found
            )
        )
        ended += sum(results)
        if len(found) < BATCH_MAX or not any(results):
            if ended:
                ctx.meters.note_expired(ended)
                log.warning("holds_expired", count=ended)
            return ended


async def _expire(ctx: Context, command: Expire) -> bool:
    try:
        await ctx.ledger.submit(command)
    except NotFound:  # renewed or ended since we looked
        return False
    return True


async def prune(ctx: Context) -> int:
    """Erase the sealed text of keys that were used, or that nobody fetched in time."""
    erased = await ctx.ledger.submit(PruneSealedKeys(ttl_s=ctx.limits.sealed_key_ttl_s))
    return erased + await ctx.ledger.submit(PruneInvoiceKeys())
