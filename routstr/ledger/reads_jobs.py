"""What is known of the jobs: each one's lease and last result, and the runs that were kept."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from routstr.ledger.engine import ReadConnection
from routstr.ledger.tables import table_of
from routstr.ledger.tables_admin import JobHistory, JobRun

JOB = table_of(JobRun)
HISTORY = table_of(JobHistory)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    """A job that runs in one process at a time: who has it until when, and how it last ended."""

    name: str
    lease_until: datetime | None
    next_run_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    ok: bool | None
    result: Mapping[str, object] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """A run that was kept; `ok` and `finished_at` are None while it has no end.

    `asked_by` None is the schedule.
    """

    id: str
    name: str
    is_dry: bool
    asked_by: str | None
    started_at: datetime
    finished_at: datetime | None
    ok: bool | None
    result: Mapping[str, object] | None


async def job_rows(connection: ReadConnection) -> dict[str, JobRow]:
    """Those that ever ran, by name."""
    rows = await connection.execute(select(JOB))
    return {
        row.name: JobRow(
            name=row.name,
            lease_until=row.lease_until,
            next_run_at=row.next_run_at,
            started_at=row.started_at,
            finished_at=row.finished_at,
            ok=row.ok,
            result=row.result,
        )
        for row in rows
    }


async def kept_runs(
    connection: ReadConnection,
    name: str | None = None,
    *,
    limit: int,
    before: datetime | None = None,
) -> list[RunView]:
    """The newest runs of that job, or of all, from before that moment."""
    wanted = select(HISTORY).order_by(HISTORY.c.started_at.desc(), HISTORY.c.id).limit(limit)
    if name is not None:
        wanted = wanted.where(HISTORY.c.name == name)
    if before is not None:
        wanted = wanted.where(HISTORY.c.started_at < before)
    return [
        RunView(
            id=row.id,
            name=row.name,
            is_dry=row.is_dry_run,
            asked_by=row.asked_by,
            started_at=row.started_at,
            finished_at=row.finished_at,
            ok=row.ok,
            result=row.result,
        )
        for row in await connection.execute(wanted)
    ]
