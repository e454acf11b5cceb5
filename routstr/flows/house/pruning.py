"""What is out of date, erased: sealed keys, kept answers, bodies of ended calls, old log-ins, runs.

Nothing of it is needed by the audit, by a receipt, by a restore or by anybody's repeat any more.
The same pass makes the months to come of the audit chain, where it is kept by the month.
"""

from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Final

from routstr.flows.context import Context
from routstr.flows.expire import prune as prune_sealed_keys
from routstr.flows.repeat import forget_answers
from routstr.ledger.job_runs import PruneHistory
from routstr.ledger.partitions import make_months
from routstr.ledger.pruning import EraseBodies, PruneLogins, old_bodies, out_of_date
from routstr.ledger.reads import last_job

PRUNE_JOB: Final = "prune"
BODIES_MAX: Final = 1_000  # in one pass
COMMITTED_TOGETHER: Final = 20  # a paid request waits for such a commit at most
LOGINS_MAX: Final = 500
RUNS_OF_A_JOB_MAX: Final = 500


async def prune(ctx: Context) -> tuple[bool, dict[str, object]]:
    """One pass over all of it."""
    keys = await prune_sealed_keys(ctx)
    answers = await forget_answers(ctx)
    bodies, after = await _erase_bodies(ctx)
    logins = await ctx.ledger.submit(PruneLogins(limit=LOGINS_MAX))
    runs = await ctx.ledger.submit(
        PruneHistory(before=_runs_before(ctx), keep_max=RUNS_OF_A_JOB_MAX)
    )
    months = await make_months(ctx.database)
    return True, {
        "keys": keys,
        "answers": answers,
        "bodies": bodies,
        "logins": logins,
        "runs": runs,
        "months": months,
        "after": after,
    }


async def foresee_prune(ctx: Context) -> dict[str, object]:
    """How much of each kind is out of date."""
    async with ctx.database.reading() as connection:
        found = await out_of_date(
            connection,
            ctx.clock.now(),
            bodies_before=_bodies_before(ctx),
            runs_before=_runs_before(ctx),
            keys_before=ctx.clock.now() - timedelta(seconds=ctx.limits.sealed_key_ttl_s),
        )
    return asdict(found)


async def _erase_bodies(ctx: Context) -> tuple[int, str]:
    """How many were erased, and from when on the next pass looks: what is older is done."""
    before, erased = _bodies_before(ctx), 0
    async with ctx.database.reading() as connection:
        job = await last_job(connection, PRUNE_JOB)
        last = (job.result or {}).get("after") if job is not None else None
        after = datetime.fromisoformat(last) if isinstance(last, str) and last else None
        found = await old_bodies(connection, before, after=after, limit=BODIES_MAX)
    for start in range(0, len(found), COMMITTED_TOGETHER):
        some = [each.operation_id for each in found[start : start + COMMITTED_TOGETHER]]
        ctx.failpoint("prune.found")
        erased += await ctx.ledger.submit(EraseBodies(operation_ids=some, before=before))
        ctx.failpoint("prune.erased")
    if found:
        return erased, found[-1].ended_at.isoformat()
    return erased, "" if after is None else after.isoformat()


def _bodies_before(ctx: Context) -> datetime:
    return ctx.clock.now() - timedelta(seconds=ctx.limits.payload_ttl_s)


def _runs_before(ctx: Context) -> datetime:
    return ctx.clock.now() - timedelta(seconds=ctx.limits.job_history_ttl_s)
