"""What the last audit said of the books, invariant by invariant, and an audit that is asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from routstr.flows.audit import audit, told
from routstr.flows.context import Context
from routstr.flows.house.jobs import start_job
from routstr.flows.operate import AUDIT_JOB
from routstr.ledger.audit import TITLES
from routstr.ledger.job_runs import EndRun, Run, StartRun
from routstr.ledger.reads_jobs import job_rows

FULL_LEASE_S: Final = 3900.0  # as long as the database lets a full one read, and a little more


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """An invariant as it was last seen: 0 breaches is whole, None is not known. Ids, no secrets."""

    name: str
    title: str
    breaches: int | None
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """The last audit that came to an end; `ok` is None before the first one.

    `is_running` while another one is, wherever.
    """

    ok: bool | None
    was_full: bool
    is_running: bool
    checked_at: datetime | None
    invariants: tuple[Checked, ...]

    @property
    def broken(self) -> tuple[Checked, ...]:
        """The invariants that are."""
        return tuple(each for each in self.invariants if each.breaches)


async def books_shown(ctx: Context) -> Books:
    """The last audit of whichever process ran it."""
    async with ctx.database.reading() as connection:
        job = (await job_rows(connection)).get(AUDIT_JOB)
    leased_until = None if job is None else job.lease_until
    is_running = leased_until is not None and leased_until > ctx.clock.now()
    if job is None or job.finished_at is None:
        return Books(
            ok=None,
            was_full=False,
            is_running=is_running,
            checked_at=None,
            invariants=_checked(None, {}),
        )
    result = job.result or {}
    breaches, examples = result.get("breaches"), result.get("examples")
    return Books(
        ok=job.ok,
        was_full=bool(result.get("full")),
        is_running=is_running,
        checked_at=job.finished_at,
        invariants=_checked(
            breaches if isinstance(breaches, Mapping) else None,
            examples if isinstance(examples, Mapping) else {},
        ),
    )


async def start_check(ctx: Context, *, full: bool, asked_by: str) -> None:
    """Look at the books now, in a task of the node's own; a full look reads every row.

    Raises Pending while one is under way.
    """
    if not full:
        await start_job(ctx, AUDIT_JOB, dry_run=False, asked_by=asked_by)
        return
    run = Run(
        id=ctx.new_id("run"),
        name=AUDIT_JOB,
        owner=ctx.owner,
        lease_s=FULL_LEASE_S,
        asked_by=asked_by,
    )
    await ctx.ledger.submit(StartRun(run_of=run))
    ctx.tasks.start(_check_whole(ctx, run), name="job full audit")


async def _check_whole(ctx: Context, run: Run) -> None:
    """Do it, and write how it ended even if it was cut short."""
    ok, started_at = False, ctx.clock.now()
    result: Mapping[str, object] | None = None
    try:
        report = await audit(ctx, full=True, deep=False)
        ok, result = report.ok, told(report)
    finally:
        end = EndRun(
            run_of=run,
            ok=ok,
            result=result,
            kept_since=started_at,
            next_in_s=ctx.limits.audit_every_s,
        )
        await ctx.ledger.submit(end)


def _checked(
    breaches: Mapping[str, int] | None, examples: Mapping[str, Sequence[str]]
) -> tuple[Checked, ...]:
    return tuple(
        Checked(
            name=name,
            title=title,
            breaches=None if breaches is None else breaches.get(name, 0),
            examples=tuple(examples.get(name, ())),
        )
        for name, title in TITLES.items()
    )
