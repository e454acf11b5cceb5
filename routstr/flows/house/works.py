"""What the node does by itself, job by job: what it is for, how often, and what it would do.

When they run is the affair of `jobs/`; that an operator may run one now, of `house/jobs.py`.

Laws
- A preview reads and nothing else: it counts what the next run would take up, in its own terms.
- A run takes up a bounded number of things; what is left is the next run's. Any of them may be
  running twice, or die anywhere: what it does is guarded where it is done.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from routstr.flows.audit import audit, told
from routstr.flows.context import Context
from routstr.flows.earnings import pay_out
from routstr.flows.expire import expire
from routstr.flows.hear import follow
from routstr.flows.house.backup import backup_regularly
from routstr.flows.house.expired import EXPIRE_KEYS_JOB, expire_keys, foresee_expired_keys
from routstr.flows.house.foresee import (
    foresee_audit,
    foresee_expire,
    foresee_payout,
    foresee_reconcile,
    foresee_resume,
)
from routstr.flows.house.pruning import PRUNE_JOB, foresee_prune, prune
from routstr.flows.house.rollup import ROLLUP_EVERY_S, rollup
from routstr.flows.house.settings import FOLLOW_S
from routstr.flows.house.tidying import (
    DELETE_KEYS_JOB,
    delete_keys,
    foresee_delete_keys,
    foresee_reset_limits,
    foresee_vacuum,
    reset_limits,
    vacuum,
)
from routstr.flows.house.unclaimed import WITHDRAWALS_JOB, foresee_withdrawals, withdrawals
from routstr.flows.invoice import look_at_invoices
from routstr.flows.limits import Limits
from routstr.flows.operate import AUDIT_JOB
from routstr.flows.reconcile import RECONCILE_JOB, reconcile
from routstr.flows.redeem import redeem
from routstr.flows.refill import refill
from routstr.flows.refresh import refresh
from routstr.flows.renew import renew
from routstr.flows.repeat import forget_answers
from routstr.flows.resume import resume

Result = Mapping[str, object]

LEASE_S: Final = 30.0
LONG_LEASE_S: Final = 900.0
AUDIT_LEASE_S: Final = 300.0
BACKUP_LEASE_S: Final = 3600.0
LOOK_S: Final = 600.0
FORGET_EVERY_S: Final = 60.0  # what is kept for ten minutes is not kept for much longer


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A job: what it does, in a sentence, and the flow that does it.

    `every` is a number of seconds or the limit that has it. A `shared` one runs in one process at
    a time; one that dies with it is taken over after `lease_s`. With `look_s` it is looked at that
    often, so that a process which never lives for the whole period still runs it. `changes` are
    names in its result: a run with any of them above 0 is kept in the history. Without `preview` it
    has no dry run.
    """

    name: str
    says: str
    every: float | str
    run: Callable[[Context], Awaitable[tuple[bool, Result]]]
    preview: Callable[[Context], Awaitable[Result]] | None = None
    is_shared: bool = True
    lease_s: float = LEASE_S
    look_s: float | None = None
    changes: tuple[str, ...] = ()

    def every_s(self, limits: Limits) -> float:
        """Its period."""
        every = self.every
        return float(getattr(limits, every)) if isinstance(every, str) else every

    def due_again_s(self, limits: Limits) -> float:
        """How long nobody runs it again; of two processes that look, the second finds it done."""
        every_s = self.every_s(limits)
        return every_s / 2 if self.look_s is None else every_s


async def _renew(ctx: Context) -> tuple[bool, Result]:
    await renew(ctx)
    return True, {}


async def _expire(ctx: Context) -> tuple[bool, Result]:
    return True, {"ended": await expire(ctx)}


async def _resume(ctx: Context) -> tuple[bool, Result]:
    return True, {"driven": await resume(ctx)}


async def _invoices(ctx: Context) -> tuple[bool, Result]:
    return True, {"looked_at": await look_at_invoices(ctx)}


async def _redeem(ctx: Context) -> tuple[bool, Result]:
    redeemed = await redeem(ctx)
    return True, {"redeemed": redeemed.done, "lost": redeemed.lost}


async def _payout(ctx: Context) -> tuple[bool, Result]:
    return True, {"sent_msat": await pay_out(ctx)}


async def _refresh(ctx: Context) -> tuple[bool, Result]:
    refreshed = await refresh(ctx)
    return not refreshed.silent, {"sold": refreshed.sold, "not_sold": refreshed.not_sold}


async def _follow(ctx: Context) -> tuple[bool, Result]:
    return True, {"changed": await follow(ctx)}


async def _forget(ctx: Context) -> tuple[bool, Result]:
    return True, {"forgotten": await forget_answers(ctx)}


async def _audit(ctx: Context) -> tuple[bool, Result]:
    report = await audit(ctx, full=False, deep=False)
    return report.ok, told(report)


WORKS: Final = (
    Work(
        name="renew",
        says="Keeps the money of running requests held, while this process is alive.",
        every="hold_renew_s",
        run=_renew,
        is_shared=False,
    ),
    Work(
        name="expire",
        says="Frees the money of requests whose process died: holds past their deadline.",
        every="expire_every_s",
        run=_expire,
        preview=foresee_expire,
        changes=("ended",),
    ),
    Work(
        name="resume",
        says="Drives on what a mint has not answered for: deposits, withdrawals, swaps.",
        every="resume_every_s",
        run=_resume,
        preview=foresee_resume,
        is_shared=False,
    ),
    Work(
        name="invoices",
        says="Asks the mints which invoices were paid, and credits them.",
        every="invoices_every_s",
        run=_invoices,
        is_shared=False,
    ),
    Work(
        name="redeem",
        says="Swaps ecash that is locked to the node into coins of its own.",
        every="redeem_every_s",
        run=_redeem,
        changes=("lost",),
    ),
    Work(
        name="payout",
        says="Sends your profit to PAYOUT_TO, once there is enough of it.",
        every="payout_every_s",
        run=_payout,
        preview=foresee_payout,
        lease_s=LONG_LEASE_S,
        look_s=LOOK_S,
        changes=("sent_msat",),
    ),
    Work(
        name="refresh",
        says="Asks for the exchange rate and the upstreams' models, and makes the prices anew.",
        every="refresh_every_s",
        run=_refresh,
        is_shared=False,
    ),
    Work(
        name="follow",
        says="Puts in force what was changed in another process of this node.",
        every=FOLLOW_S,
        run=_follow,
        is_shared=False,
    ),
    Work(
        name=PRUNE_JOB,
        says="Erases what is out of date: sealed keys, kept answers, old calls, log-ins and runs.",
        every="prune_every_s",
        run=prune,
        preview=foresee_prune,
        lease_s=LONG_LEASE_S,
        changes=("bodies", "logins"),
    ),
    Work(
        name="forget",
        says="Erases answers that were kept for a repeat, and claims of Idempotency-Keys.",
        every=FORGET_EVERY_S,
        run=_forget,
    ),
    Work(
        name="rollup",
        says="Sums up what was sold by the minute, hour and day, for the pages.",
        every=ROLLUP_EVERY_S,
        run=rollup,
    ),
    Work(
        name=AUDIT_JOB,
        says="Checks that the books are whole; if they are not, withdrawals pause.",
        every="audit_every_s",
        run=_audit,
        preview=foresee_audit,
        lease_s=AUDIT_LEASE_S,
    ),
    Work(
        name="refill",
        says="Swaps large coins into small ones, so that change is at hand.",
        every="refill_every_s",
        run=refill,
    ),
    Work(
        name=RECONCILE_JOB,
        says="Asks the mints about every coin: what was claimed, what is unclaimed, what is lost.",
        every="reconcile_every_s",
        run=reconcile,
        preview=foresee_reconcile,
        lease_s=LONG_LEASE_S,
        changes=("claimed", "reclaimed"),
    ),
    Work(
        name="backup",
        says="Makes an encrypted copy of database and settings, and opens it again to be sure.",
        every="backup_every_s",
        run=backup_regularly,
        lease_s=BACKUP_LEASE_S,
        look_s=LOOK_S,
        changes=("bytes",),
    ),
    Work(
        name=WITHDRAWALS_JOB,
        says="Drives on withdrawals without an end, and takes back tokens that nobody claimed.",
        every="withdrawals_every_s",
        run=withdrawals,
        preview=foresee_withdrawals,
        lease_s=LONG_LEASE_S,
        changes=("claimed", "reclaimed"),
    ),
    Work(
        name=EXPIRE_KEYS_JOB,
        says="Makes the money of expired keys claimable; what nobody claims in time is yours.",
        every="expire_keys_every_s",
        run=expire_keys,
        preview=foresee_expired_keys,
        lease_s=LONG_LEASE_S,
        changes=("issued", "claimed", "reclaimed", "swept"),
    ),
    Work(
        name=DELETE_KEYS_JOB,
        says="Erases dead keys: nothing on them, nothing owed to them, and idle for long.",
        every="delete_keys_every_s",
        run=delete_keys,
        preview=foresee_delete_keys,
        lease_s=LONG_LEASE_S,
        look_s=LOOK_S,
        changes=("erased", "deleted"),
    ),
    Work(
        name="reset-limits",
        says="Writes anew the limits whose day, week or month is over, as they count anyway.",
        every="reset_limits_every_s",
        run=reset_limits,
        preview=foresee_reset_limits,
        lease_s=LONG_LEASE_S,
    ),
    Work(
        name="vacuum",
        says="Keeps the database quick: fresh statistics, and no long log of writes.",
        every="vacuum_every_s",
        run=vacuum,
        preview=foresee_vacuum,
        lease_s=LONG_LEASE_S,
        look_s=LOOK_S,
    ),
)
