"""`/admin/api/{jobs,backups,actions,logs}`: what the node does, and what was done."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import JsonValue

from routstr.flows.house.actions import actions, note_action
from routstr.flows.house.backup import backups, create_backup
from routstr.flows.house.backup_look import verify_backup
from routstr.flows.house.jobs import jobs_shown, runs_of, start_job
from routstr.flows.house.logs import KeptLine, of_request, recent
from routstr.web.admin.guard import Reading, Writing
from routstr.web.admin.shape import Body, Id, Shown, Unix
from routstr.web.bodies import BoundedRoute
from routstr.web.deps import Ctx
from routstr.web.scope import request_id_of

router = APIRouter(prefix="/admin/api", tags=["admin"], route_class=BoundedRoute)

Limit = Annotated[int, Query(ge=1, le=500)]
Before = Annotated[int | None, Query(ge=1, le=2**53)]


class Job(Shown):
    """A job and its last run; `next_run_at` is null for one that runs in every process."""

    name: str
    says: str
    every_s: float
    is_shared: bool
    has_dry_run: bool
    is_running: bool
    next_run_at: Unix | None
    started_at: Unix | None
    finished_at: Unix | None
    ok: bool | None
    result: dict[str, JsonValue] | None


class Jobs(Shown):
    """All of them."""

    jobs: list[Job]
    total: int


class Run(Shown):
    """A run that was kept."""

    id: str
    name: str
    is_dry: bool
    asked_by: str | None
    started_at: Unix
    finished_at: Unix | None
    ok: bool | None
    result: dict[str, JsonValue] | None


class Runs(Shown):
    """The newest first."""

    runs: list[Run]


class RunBody(Body):
    """With `dry_run` it only says what it would do."""

    dry_run: bool = False


class Begun(Shown):
    """A run under way."""

    run_id: str


class Backup(Shown):
    """A backup in the directory."""

    name: str
    created_at: Unix
    bytes: int
    engine: str
    revision: str
    is_verified: bool


class Backups(Shown):
    """The newest first."""

    backups: list[Backup]
    total: int


class Action(Shown):
    """One thing that an operator did."""

    id: int
    actor: str
    action: str
    target: str | None
    detail: dict[str, JsonValue] | None
    request_id: str | None
    created_at: Unix


class Actions(Shown):
    """The newest first; `next_before` leads on."""

    actions: list[Action]
    next_before: int | None


class Line(Shown):
    """A line of the log, redacted as it was written."""

    number: int
    at: str
    level: str
    event: str
    fields: dict[str, JsonValue]


class Lines(Shown):
    """The newest first, of this process."""

    logs: list[Line]


class Reservation(Shown):
    """The hold of a request; amounts in msat."""

    id: str
    key_id: str
    spender_id: str | None
    state: str
    amount_msat: int
    quote_msat: int
    settled_msat: int | None
    owner: str
    created_at: Unix
    deadline: Unix
    ended_at: Unix | None
    pinned: dict[str, JsonValue]


class RequestRow(Shown):
    """A row of the ledger that the request ended in; the amount in msat, signed."""

    key_id: str
    sequence: int
    type: str
    amount_msat: int
    balance_after_msat: int
    request_data: dict[str, JsonValue] | None
    created_at: Unix


class OneRequest(Shown):
    """All that is known of one request."""

    logs: list[Line]
    reservation: Reservation | None
    transactions: list[RequestRow]


@router.get("/jobs")
async def list_jobs(admin: Reading, ctx: Ctx) -> Jobs:
    """What the node does by itself."""
    found = [Job.model_validate(each) for each in await jobs_shown(ctx)]
    return Jobs(jobs=found, total=len(found))


@router.get("/jobs/{name}/runs")
async def list_runs(admin: Reading, ctx: Ctx, name: Id, limit: Limit = 50) -> Runs:
    """The runs of a job that are remembered."""
    return Runs(runs=[Run.model_validate(each) for each in await runs_of(ctx, name, limit)])


@router.post("/jobs/{name}/run", status_code=202)
async def run_job(
    request: Request, admin: Writing, ctx: Ctx, name: Id, body: RunBody | None = None
) -> Begun:
    """Run a job now, due or not; it goes on after the answer."""
    dry_run = body is not None and body.dry_run
    run_id = await start_job(ctx, name, dry_run=dry_run, asked_by=admin.name)
    await note_action(
        ctx,
        actor=admin.name,
        action="job.run",
        target=name,
        detail={"run_id": run_id, "dry_run": dry_run},
        request_id=request_id_of(request.scope),
    )
    return Begun(run_id=run_id)


@router.get("/backups")
async def list_backups(admin: Reading, ctx: Ctx) -> Backups:
    """The backups there are."""
    found = [Backup.model_validate(each) for each in await backups(ctx)]
    return Backups(backups=found, total=len(found))


@router.post("/backups")
async def make_backup(request: Request, admin: Writing, ctx: Ctx) -> Backup:
    """Make a backup now, and open it again."""
    made = await create_backup(ctx)
    await note_action(
        ctx,
        actor=admin.name,
        action="backup.create",
        target=made.name,
        request_id=request_id_of(request.scope),
    )
    return Backup.model_validate(made)


@router.post("/backups/{name}/verify")
async def check_backup(admin: Writing, ctx: Ctx, name: Id) -> Backup:
    """Open a backup to its last byte."""
    return Backup.model_validate(await verify_backup(ctx, name))


@router.get("/actions")
async def list_actions(
    admin: Reading, ctx: Ctx, limit: Limit = 50, before: Before = None
) -> Actions:
    """What operators did; `before` is an id."""
    found = await actions(ctx, limit=limit, before=before)
    return Actions(
        actions=[Action.model_validate(each) for each in found],
        next_before=found[-1].id if len(found) == limit else None,
    )


@router.get("/logs")
async def list_lines(
    admin: Reading,
    ctx: Ctx,
    level: Annotated[str, Query(max_length=20)] = "debug",
    search: Annotated[str, Query(max_length=200)] = "",
    limit: Limit = 200,
    before: Before = None,
) -> Lines:
    """What this process logged lately; `before` is a number."""
    found = recent(ctx, level=level, search=search, limit=limit, before=before)
    return Lines(logs=[_line(each) for each in found])


@router.get("/logs/{request_id}")
async def one_request(admin: Reading, ctx: Ctx, request_id: Id) -> OneRequest:
    """All that is known of one request."""
    found = await of_request(ctx, request_id)
    held = found.reservation
    return OneRequest(
        logs=[_line(each) for each in found.lines],
        reservation=None if held is None else Reservation.model_validate(held),
        transactions=[
            RequestRow.model_validate(
                {
                    "key_id": each.key_id,
                    "sequence": each.row.sequence,
                    "type": each.row.type,
                    "amount_msat": each.row.amount_msat,
                    "balance_after_msat": each.row.balance_after_msat,
                    "request_data": each.row.request_data,
                    "created_at": each.row.created_at,
                }
            )
            for each in found.rows
        ],
    )


def _line(line: KeptLine) -> Line:
    return Line.model_validate(line)
