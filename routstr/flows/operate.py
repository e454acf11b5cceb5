"""The node's own housekeeping: whether it is ready to serve, and who runs which job."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final

from routstr.core.money import msat_from_unit
from routstr.errors import Paused, RoutstrError
from routstr.flows.context import Context
from routstr.ledger.catalog import TakeJob
from routstr.ledger.job_runs import EndRun, Run
from routstr.ledger.notices import JOBS
from routstr.ledger.reads import JobView, is_reachable, last_job
from routstr.ledger.reads_wallet import held_at_mints_msat

AUDIT_JOB: Final = "audit"
PRICES: Final = "prices"
BROKE_OFF: Final = "broke off"  # the log says why
PAUSED: Final = "paused"
TELLING: Final = frozenset({AUDIT_JOB, PRICES, PAUSED})  # all else goes on


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """Whether the node can serve, check by check: `ok`, or what is wrong.

    A broken invariant is named, and pauses withdrawals; requests go on being served. With an
    exchange rate that is too old, what is priced in USD is not sold; all else goes on.
    """

    checks: dict[str, str]

    @property
    def is_ready(self) -> bool:
        """Every check but those that only tell is ok."""
        return all(said == "ok" for name, said in self.checks.items() if name not in TELLING)


async def readiness(ctx: Context) -> Readiness:
    """The database answers, the ledger takes commands, the books were whole at the last audit."""
    checks = {
        "ledger": "ok" if ctx.ledger.is_serving and not ctx.departure.has_begun else "stopping",
        PRICES: "the exchange rate is not known" if ctx.catalog.has_old_prices else "ok",
    }
    if ctx.switches.paused:
        checks[PAUSED] = ", ".join(ctx.switches.paused)
    try:
        async with ctx.database.reading() as connection:
            reachable = await is_reachable(connection)
            audit = await last_job(connection, AUDIT_JOB)
    except (RoutstrError, OSError, TimeoutError):
        return Readiness(checks={**checks, "database": "unreachable"})
    checks["database"] = "ok" if reachable else "unreachable"
    checks[AUDIT_JOB] = _said_of(audit)
    return Readiness(checks=checks)


def _said_of(audit: JobView | None) -> str:
    if audit is None or audit.ok is not False:
        return "ok"
    breaches = (audit.result or {}).get("breaches")
    return f"broken: {', '.join(sorted(breaches))}" if isinstance(breaches, dict) else "failed"


async def check_not_paused(ctx: Context, *, is_change: bool = False) -> None:
    """Raises Paused while nothing may leave the node: by the operator, or the books are broken.

    Change of a request is never kept back by the operator's switch.
    """
    if not (ctx.switches.withdrawals or is_change):
        raise Paused("The operator has paused withdrawals; your balance is safe. Try again later.")
    audit = await ctx.database.read(partial(last_job, name=AUDIT_JOB))
    if audit is not None and audit.ok is False and audit.result:
        raise Paused("Withdrawals are paused until the operator has looked at the books.")


def hourly_msat_max(ctx: Context) -> int:
    """The most that may leave in any hour; 0 is no limit."""
    return msat_from_unit(ctx.switches.withdrawn_sats_per_hour_max, "sat")


def check_spending(ctx: Context) -> None:
    """Raises Paused while the operator lets no new request begin."""
    if not ctx.switches.spending:
        raise Paused("The operator has paused new requests; nothing was charged. Try again later.")


async def check_deposits(ctx: Context, amount_msat: int) -> None:
    """Raises Paused while that much may not come in: by the operator, or the wallet is full.

    For what is new: money on its way was let in before.
    """
    if not ctx.switches.deposits:
        raise Paused("The operator has paused deposits; nothing was taken. Try again later.")
    ceiling_sat = ctx.switches.wallet_sats_max
    if not ceiling_sat:
        return
    async with ctx.database.reading() as connection:
        held_msat = await held_at_mints_msat(connection)
    if held_msat + amount_msat > msat_from_unit(ceiling_sat, "sat"):
        raise Paused(
            "The node holds as much ecash as its operator allows; nothing was taken. Try again"
            " later, or with less."
        )


async def take_job(ctx: Context, name: str, *, lease_s: float, at_start: bool = False) -> bool:
    """Take a shared job for this process; false when it is not due or another one has it.

    At the start of a node that owns its database alone, nobody else has it and it is due.
    """
    is_orphan = at_start and ctx.database.dialect == "sqlite"
    return await ctx.ledger.submit(
        TakeJob(name=name, owner=ctx.owner, lease_s=lease_s, orphaned=is_orphan)
    )


async def finish_job(
    ctx: Context,
    name: str,
    *,
    ok: bool,
    result: Mapping[str, object] | None,
    next_in_s: float,
    kept_since: datetime | None = None,
) -> None:
    """Write how a shared job ended, and give it back; one that broke off has no result.

    With `kept_since`, when it began, the run is kept in the history: it changed something, or
    failed.
    """
    run = Run(id=ctx.new_id("run"), name=name, owner=ctx.owner, lease_s=0)
    await ctx.ledger.submit(
        EndRun(
            run_of=run,
            ok=ok,
            result=result,
            kept_since=kept_since,
            next_in_s=next_in_s,
            error=BROKE_OFF,
        )
    )
    if kept_since is not None:
        ctx.tell(JOBS)
