"""The jobs as the operator sees them: which there are, when they ran, and one that is run now.

What was asked for runs in a task of the node's own and is in the history from its first commit on.
A dry run looks: beside its own line in that history it changes nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from routstr.errors import InvalidParameter, NotFound, RoutstrError
from routstr.flows.context import Context
from routstr.flows.house.works import WORKS, Work
from routstr.ledger.job_runs import CUT_SHORT, EndRun, Run, StartRun
from routstr.ledger.notices import JOBS
from routstr.ledger.reads_jobs import JobRow, RunView, job_rows, kept_runs

RUNS_MAX: Final = 200
NEWEST_MAX: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class JobShown:
    """A job and how it stands; `ok` and `result` are of its last run that is known.

    `next_run_at` is None for one that runs in every process, and before it ever ran.
    """

    name: str
    says: str
    every_s: float
    is_shared: bool
    has_dry_run: bool
    is_running: bool
    next_run_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    ok: bool | None
    result: Mapping[str, object] | None


async def jobs_shown(ctx: Context) -> tuple[JobShown, ...]:
    """All jobs of the node."""
    async with ctx.database.reading() as connection:
        rows = await job_rows(connection)
        kept = await kept_runs(connection, limit=NEWEST_MAX)
    newest: dict[str, RunView] = {}
    for run in kept:
        if not run.is_dry:
            newest.setdefault(run.name, run)
    return tuple(_shown(ctx, work, rows.get(work.name), newest.get(work.name)) for work in WORKS)


def _shown(ctx: Context, work: Work, row: JobRow | None, run: RunView | None) -> JobShown:
    last: JobRow | RunView | None = row
    if run is not None and (row is None or _ended_later(run, row)):
        last = run
    leased_until = None if row is None else row.lease_until
    return JobShown(
        name=work.name,
        says=work.says,
        every_s=work.every_s(ctx.limits),
        is_shared=work.is_shared,
        has_dry_run=work.preview is not None,
        is_running=leased_until is not None and leased_until > ctx.clock.now(),
        next_run_at=None if row is None else row.next_run_at,
        started_at=None if last is None else last.started_at,
        finished_at=None if last is None else last.finished_at,
        ok=None if last is None else last.ok,
        result=None if last is None else last.result,
    )


def _ended_later(run: RunView, row: JobRow) -> bool:
    """One that broke off is in the history alone: the job's own row has what was found out."""
    if run.finished_at is None or run.ok:
        return False
    return row.finished_at is None or run.finished_at > row.finished_at


async def runs_of(
    ctx: Context, name: str | None = None, limit: int = 50, *, before: datetime | None = None
) -> list[RunView]:
    """The newest runs of a job, or of all, that were kept. Raises NotFound for no job."""
    if name is not None:
        work_of(name)
    async with ctx.database.reading() as connection:
        return await kept_runs(connection, name, limit=min(limit, RUNS_MAX), before=before)


def work_of(name: str) -> Work:
    """The job of that name. Raises NotFound."""
    for work in WORKS:
        if work.name == name:
            return work
    raise NotFound(f"There is no job {name}.")


async def preview(ctx: Context, name: str) -> Mapping[str, object]:
    """What a run would do now; changes nothing. Raises NotFound, and InvalidParameter for none."""
    return await _previewed(ctx, work_of(name))


async def start_job(ctx: Context, name: str, *, dry_run: bool, asked_by: str) -> str:
    """Run a job now, due or not, in a task of the node's own; yields the id of the run.

    Raises NotFound, InvalidParameter for a job without a dry run, and Pending while it runs.
    """
    work, run = await _begun(ctx, name, dry_run=dry_run, asked_by=asked_by)
    ctx.tasks.start(_carry_out(ctx, work, run), name=f"job {name}")
    return run.id


async def run_job(ctx: Context, name: str, *, asked_by: str) -> tuple[bool, Mapping[str, object]]:
    """The same by a process of its own, waiting for its end: whether all is well, and the result.

    Raises what `start_job` does, and what the job raises.
    """
    is_alone = ctx.database.dialect == "sqlite"
    work, run = await _begun(ctx, name, dry_run=False, asked_by=asked_by, is_alone=is_alone)
    return await _carry_out(ctx, work, run)


async def _begun(
    ctx: Context, name: str, *, dry_run: bool, asked_by: str, is_alone: bool = False
) -> tuple[Work, Run]:
    work = work_of(name)
    if dry_run and work.preview is None:
        raise _no_preview(work)
    run = Run(
        id=ctx.new_id("run"),
        name=name,
        owner=ctx.owner,
        lease_s=work.lease_s if work.is_shared and not dry_run else None,
        is_dry=dry_run,
        asked_by=asked_by,
        is_alone=is_alone,
    )
    await ctx.ledger.submit(StartRun(run_of=run))
    ctx.failpoint("job.begun")
    return work, run


async def _carry_out(ctx: Context, work: Work, run: Run) -> tuple[bool, Mapping[str, object]]:
    """Do it, and write how it ended even if it was cut short."""
    ok, error = False, CUT_SHORT
    result: Mapping[str, object] | None = None
    started_at = ctx.clock.now()
    try:
        if run.is_dry:
            ok, result = True, await _previewed(ctx, work)
        else:
            ok, result = await work.run(ctx)
    except RoutstrError as refused:
        error = refused.code
        raise
    except OSError:
        error = "unreachable"
        raise
    finally:
        ctx.failpoint("job.done")
        await ctx.ledger.submit(
            EndRun(
                run_of=run,
                ok=ok,
                result=result,
                kept_since=started_at,
                next_in_s=work.due_again_s(ctx.limits),
                error=error,
            )
        )
        ctx.tell(JOBS)
    return ok, result


async def _previewed(ctx: Context, work: Work) -> Mapping[str, object]:
    if work.preview is None:
        raise _no_preview(work)
    return await work.preview(ctx)


def _no_preview(work: Work) -> InvalidParameter:
    return InvalidParameter(f"The job {work.name} has no dry run.", param="dry_run")
