"""Which jobs there are and when they run; what they do is a flow."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from routstr.flows.audit import audit
from routstr.flows.context import Context
from routstr.flows.earnings import pay_out
from routstr.flows.expire import expire, prune
from routstr.flows.invoice import look_at_invoices
from routstr.flows.reconcile import RECONCILE_JOB, reconcile
from routstr.flows.redeem import redeem
from routstr.flows.refill import refill
from routstr.flows.refresh import refresh
from routstr.flows.renew import renew
from routstr.flows.repeat import forget_answers
from routstr.flows.resume import resume

Result = Mapping[str, object]
AUDIT_LEASE_S: Final = 300.0
RECONCILE_LEASE_S: Final = 900.0
PAYOUT_LEASE_S: Final = 900.0
LOOK_S: Final = 600.0
FORGET_EVERY_S: Final = 60.0  # what is kept for ten minutes is not kept for much longer


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A name, a period in seconds, and the flow. A `shared` job runs in one process at a time.

    One that dies with it is taken over after `lease_s`; a job that takes longer may run twice at
    once, which none of them minds. With `look_s` it is looked at that often, so that a process
    which never lives for the whole period still runs it.
    """

    name: str
    every_s: float
    run: Callable[[Context], Awaitable[tuple[bool, Result]]]
    is_shared: bool = True
    lease_s: float = 30
    look_s: float | None = None

    @property
    def looks_every_s(self) -> float:
        """How often a process looks whether it is due."""
        return self.every_s if self.look_s is None else min(self.look_s, self.every_s)

    @property
    def due_again_s(self) -> float:
        """How long nobody runs it again; of two processes that look, the second finds it done."""
        return self.every_s / 2 if self.look_s is None else self.every_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Periods:
    """How often each job runs, in seconds."""

    expire_s: float
    resume_s: float
    audit_s: float
    prune_s: float
    renew_s: float
    redeem_s: float
    reconcile_s: float
    invoices_s: float
    refill_s: float
    payout_s: float
    refresh_s: float


def jobs(periods: Periods) -> tuple[Job, ...]:
    """All jobs of the node."""
    return (
        Job(name="renew", every_s=periods.renew_s, run=_renew, is_shared=False),
        Job(name="expire", every_s=periods.expire_s, run=_expire),
        Job(name="resume", every_s=periods.resume_s, run=_resume, is_shared=False),
        Job(name="invoices", every_s=periods.invoices_s, run=_invoices, is_shared=False),
        Job(name="redeem", every_s=periods.redeem_s, run=_redeem),
        Job(
            name="payout",
            every_s=periods.payout_s,
            run=_payout,
            lease_s=PAYOUT_LEASE_S,
            look_s=LOOK_S,
        ),
        Job(name="refresh", every_s=periods.refresh_s, run=_refresh, is_shared=False),
        Job(name="prune", every_s=periods.prune_s, run=_prune),
        Job(name="forget", every_s=FORGET_EVERY_S, run=_forget),
        Job(name="audit", every_s=periods.audit_s, run=_audit, lease_s=AUDIT_LEASE_S),
        Job(name="refill", every_s=periods.refill_s, run=refill),
        Job(
            name=RECONCILE_JOB,
            every_s=periods.reconcile_s,
            run=reconcile,
            lease_s=RECONCILE_LEASE_S,
        ),
    )


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


async def _prune(ctx: Context) -> tuple[bool, Result]:
    return True, {"erased": await prune(ctx)}


async def _forget(ctx: Context) -> tuple[bool, Result]:
    return True, {"forgotten": await forget_answers(ctx)}


async def _audit(ctx: Context) -> tuple[bool, Result]:
    report = await audit(ctx, full=False, deep=False)
    breached = {each.name: each.breaches for each in report.invariants if each.breaches}
    return report.ok, {"breaches": breached}
