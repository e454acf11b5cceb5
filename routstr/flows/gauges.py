"""How the node is at this moment, for `/metrics`: what memory knows and what the database does."""

from dataclasses import dataclass

from routstr.flows.context import Context
from routstr.flows.operate import AUDIT_JOB
from routstr.gateways.pool import UpstreamHealth
from routstr.ledger.audit import TITLES
from routstr.ledger.reads_metrics import stored_gauges


@dataclass(frozen=True, slots=True, kw_only=True)
class JobGauge:
    """A job's last run: whether it went well, and how long ago that was; None before the first."""

    name: str
    ok: bool | None
    age_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauges:
    """A moment. `breaches` is of the last audit, by invariant; ages in seconds."""

    exposure_msat: int
    exposure_msat_max: int
    operations: dict[str, int]
    mint_silent_s: dict[str, float | None]
    jobs: tuple[JobGauge, ...]
    breaches: dict[str, int]
    paused: dict[str, bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessGauges:
    """A moment of this process alone."""

    running: int
    one_shots: int
    tasks: int
    ledger_queued: int
    upstreams: tuple[UpstreamHealth, ...]


def process_gauges(ctx: Context) -> ProcessGauges:
    """Look at what memory has."""
    return ProcessGauges(
        running=len(ctx.holds),
        one_shots=len(ctx.one_shots),
        tasks=len(ctx.tasks),
        ledger_queued=ctx.ledger.queued,
        upstreams=tuple(ctx.upstream.health()),
    )


async def gauges(ctx: Context) -> Gauges:
    """Look at everything once. Raises ServiceUnavailable without the database."""
    async with ctx.database.reading() as connection:
        stored = await stored_gauges(connection)
    now, switches = ctx.clock.now(), ctx.switches
    found = next((each.result for each in stored.jobs if each.name == AUDIT_JOB), None)
    breaches = (found or {}).get("breaches")
    counted = breaches if isinstance(breaches, dict) else {}
    return Gauges(
        exposure_msat=ctx.ledger.held_msat,
        exposure_msat_max=ctx.ledger.held_msat_max,
        operations=stored.operations,
        mint_silent_s={
            url: None if at is None else (now - at).total_seconds()
            for url, at in stored.mints_answered_at.items()
        },
        jobs=tuple(
            JobGauge(
                name=each.name,
                ok=each.ok,
                age_s=None
                if each.finished_at is None
                else (now - each.finished_at).total_seconds(),
            )
            for each in stored.jobs
        ),
        breaches={name: int(counted.get(name, 0)) for name in TITLES},
        paused={
            "deposits": not switches.deposits,
            "spending": not switches.spending,
            "withdrawals": not switches.withdrawals,
        },
    )
