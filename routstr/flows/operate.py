"""The node's own housekeeping: whether it is ready to serve, and who runs which job."""

from collections.abc import Mapping
from dataclasses import dataclass

from routstr.errors import RoutstrError
from routstr.flows.context import Context
from routstr.ledger.catalog import FinishJob, TakeJob
from routstr.ledger.reads import is_reachable, last_job

AUDIT_JOB = "audit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """Whether the node can serve, check by check: `ok`, or what is wrong."""

    checks: dict[str, str]

    @property
    def is_ready(self) -> bool:
        """Every check is ok."""
        return set(self.checks.values()) <= {"ok"}


async def readiness(ctx: Context) -> Readiness:
    """The database answers, the ledger takes commands, the books were whole at the last audit."""
    checks = {"ledger": "ok" if ctx.ledger.is_serving else "stopping"}
    try:
        async with ctx.database.reading() as connection:
            reachable = await is_reachable(connection)
            audit = await last_job(connection, AUDIT_JOB)
    except (RoutstrError, OSError, TimeoutError):
        return Readiness(checks={**checks, "database": "unreachable"})
    checks["database"] = "ok" if reachable else "unreachable"
    checks["audit"] = "ok" if audit is None or audit.ok is not False else "breach"
    return Readiness(checks=checks)


async def take_job(ctx: Context, name: str, *, lease_s: float) -> bool:
    """Take a shared job for this process; false when it is not due or another one has it."""
    return await ctx.ledger.submit(TakeJob(name=name, owner=ctx.owner, lease_s=lease_s))


async def finish_job(
    ctx: Context, name: str, *, ok: bool, result: Mapping[str, object], next_in_s: float
) -> None:
    """Write how a shared job ended, and give it back."""
    await ctx.ledger.submit(
        FinishJob(name=name, owner=ctx.owner, ok=ok, result=result, next_in_s=next_in_s)
    )
