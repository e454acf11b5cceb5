"""Dead keys erased, limits of periods that are over written anew, the database kept quick.

No money moves here. A pass takes up a bounded number of keys, some dozens a commit, and remembers
in the job's result where the next one goes on.
"""

from datetime import timedelta
from typing import Final

from routstr.core.cap import RESETS, period_start
from routstr.flows.context import Context
from routstr.ledger.erasure import EraseKeys
from routstr.ledger.periods import BeginPeriods
from routstr.ledger.reads import last_job
from routstr.ledger.reads_cleanup import dead_count, dead_keys, keys_behind
from routstr.ledger.vacuum import ANALYSED
from routstr.ledger.vacuum import vacuum as vacuum_database

DELETE_KEYS_JOB: Final = "delete-keys"
KEYS_MAX: Final = 1_000  # in one pass
COMMITTED_TOGETHER: Final = 20  # a paid request waits for such a commit at most
FORESEEN_MAX: Final = 10_000


async def delete_keys(ctx: Context) -> tuple[bool, dict[str, object]]:
    """Erase keys with nothing on them, nothing owed to them, and nobody using them for long."""
    idle_since = ctx.clock.now() - timedelta(seconds=ctx.limits.dead_key_idle_s)
    async with ctx.database.reading() as connection:
        job = await last_job(connection, DELETE_KEYS_JOB)
        last = (job.result or {}).get("after") if job is not None else None
        found = await dead_keys(
            connection, idle_since, after_id=last if isinstance(last, str) else "", limit=KEYS_MAX
        )
    erased = deleted = 0
    for some in _batches(found):
        ctx.failpoint("erasure.found")
        done = await ctx.ledger.submit(EraseKeys(key_ids=some, idle_s=ctx.limits.dead_key_idle_s))
        ctx.failpoint("erasure.done")
        erased += done.erased
        deleted += done.deleted
    after = found[-1] if len(found) == KEYS_MAX else ""
    return True, {"erased": erased, "deleted": deleted, "after": after}


async def foresee_delete_keys(ctx: Context) -> dict[str, object]:
    """How many keys are dead now, as far as is counted; there is no money on them."""
    idle_since = ctx.clock.now() - timedelta(seconds=ctx.limits.dead_key_idle_s)
    async with ctx.database.reading() as connection:
        count = await dead_count(connection, idle_since, limit=FORESEEN_MAX)
    return {"delete": count, "delete_msat": 0}


async def reset_limits(ctx: Context) -> tuple[bool, dict[str, object]]:
    """Write where each limit's period begins; it counts so anyway, and nothing changes for it."""
    count = 0
    for some in _batches(await _behind(ctx, KEYS_MAX)):
        count += await ctx.ledger.submit(BeginPeriods(key_ids=some))
    return True, {"reset": count}


async def foresee_reset_limits(ctx: Context) -> dict[str, object]:
    """How many limits count a period that is over."""
    return {"reset": len(await _behind(ctx, FORESEEN_MAX))}


async def _behind(ctx: Context, limit: int) -> list[str]:
    starts = {reset: period_start(ctx.clock.now(), reset) for reset in RESETS}
    async with ctx.database.reading() as connection:
        return await keys_behind(connection, starts, limit=limit)


async def vacuum(ctx: Context) -> tuple[bool, dict[str, object]]:
    """Fresh statistics, and what was written where it belongs."""
    return True, {"tables": await vacuum_database(ctx.database)}


async def foresee_vacuum(_: Context) -> dict[str, object]:
    """How many tables would be looked through."""
    return {"tables": len(ANALYSED)}


def _batches(ids: list[str]) -> list[list[str]]:
    starts = range(0, len(ids), COMMITTED_TOGETHER)
    return [ids[start : start + COMMITTED_TOGETHER] for start in starts]
