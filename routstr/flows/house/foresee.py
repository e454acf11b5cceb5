"""What the jobs on the money's own road would do now, by the rows alone: no mint is asked."""

from datetime import timedelta

from routstr.core.money import msat_from_unit
from routstr.flows.audit import audit, told
from routstr.flows.context import Context
from routstr.flows.payout import profit_msat
from routstr.ledger.reads_cleanup import due_operations, overdue_holds, unclaimed_heap


async def foresee_expire(ctx: Context) -> dict[str, object]:
    """Holds past their deadline."""
    async with ctx.database.reading() as connection:
        holds = await overdue_holds(connection, ctx.clock.now())
    return {"end": holds.count, "end_msat": holds.amount_msat}


async def foresee_resume(ctx: Context) -> dict[str, object]:
    """Operations that are due."""
    async with ctx.database.reading() as connection:
        return {"drive": await due_operations(connection, ctx.clock.now())}


async def foresee_reconcile(ctx: Context) -> dict[str, object]:
    """Tokens whose mint would be asked, and which of them are out for so long that they go back."""
    now = ctx.clock.now()
    async with ctx.database.reading() as connection:
        asked = await unclaimed_heap(connection, now)
        late = await unclaimed_heap(connection, now - timedelta(seconds=ctx.limits.refund_ttl_s))
    return {
        "ask": asked.count,
        "ask_msat": asked.amount_msat,
        "reclaim": late.count,
        "reclaim_msat": late.amount_msat,
    }


async def foresee_payout(ctx: Context) -> dict[str, object]:
    """What would be sent, fees included, and where to; 0 while it is too little or nobody's."""
    to, there_msat = ctx.limits.payout_to, await profit_msat(ctx)
    is_enough = there_msat >= msat_from_unit(ctx.limits.payout_floor_sats, "sat")
    return {
        "to": to or "",
        "profit_msat": there_msat,
        "send_msat": there_msat if to and is_enough else 0,
    }


async def foresee_audit(ctx: Context) -> dict[str, object]:
    """What it would find: looking is all it does."""
    return dict(told(await audit(ctx, full=False, deep=False)))
