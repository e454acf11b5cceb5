"""`/admin/jobs`: what the node does by itself, how it went, and running one now."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote

from fastapi import APIRouter, Request, Response

from routstr.errors import InvalidParameter, Pending
from routstr.flows.house.actions import note_action
from routstr.flows.house.jobs import jobs_shown, runs_of, start_job, work_of
from routstr.web.admin.guard import Reading, Writing
from routstr.web.deps import Ctx
from routstr.web.pages.forms import PageRoute
from routstr.web.pages.shell import admin_page, back_to
from routstr.web.scope import request_id_of

RUNS: Final = 50
UNTOLD: Final = frozenset({"examples"})

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/admin/jobs")
async def jobs_page(request: Request, admin: Reading, ctx: Ctx) -> Response:
    """All of them, and the newest runs that were kept."""
    jobs = await jobs_shown(ctx)
    return admin_page(
        request,
        ctx,
        admin,
        "admin/jobs.html",
        here="jobs",
        jobs=[(job, facts_of(job.result)) for job in jobs],
        is_running=any(job.is_running for job in jobs),
    )


@router.get("/admin/jobs/{name}")
async def job_page(
    request: Request, admin: Reading, ctx: Ctx, name: str, before: str = ""
) -> Response:
    """One job and its runs, newest first. Raises NotFound, InvalidParameter."""
    work_of(name)
    [job] = [each for each in await jobs_shown(ctx) if each.name == name]
    runs = await runs_of(ctx, name, RUNS + 1, before=_moment(before))
    older = runs[RUNS - 1].started_at.isoformat() if len(runs) > RUNS else None
    return admin_page(
        request,
        ctx,
        admin,
        "admin/job.html",
        here="jobs",
        title=name,
        job=job,
        facts=facts_of(job.result),
        runs=[(run, facts_of(run.result)) for run in runs[:RUNS]],
        older=None if older is None else f"/admin/jobs/{name}?before={quote(older)}",
        newer=f"/admin/jobs/{name}" if before else None,
    )


@router.post("/admin/jobs/{name}/run")
async def run_job(request: Request, admin: Writing, ctx: Ctx, name: str) -> Response:
    """Run it now, or look what it would do. Raises NotFound, InvalidParameter."""
    form = await request.form()
    is_dry = form.get("dry_run") == "1"
    path = f"/admin/jobs/{name}"
    try:
        await start_job(ctx, name, dry_run=is_dry, asked_by=admin.name)
    except Pending:
        return back_to(path, f"The job {name} is running already.", kind="bad")
    await note_action(
        ctx,
        actor=admin.name,
        action="job.run",
        target=name,
        detail={"dry_run": is_dry},
        request_id=request_id_of(request.scope),
    )
    said = f"Looking what {name} would do." if is_dry else f"The job {name} has started."
    return back_to(path, said)


def facts_of(result: Mapping[str, object] | None) -> list[tuple[str, object]]:
    """What a run told, as words and values; an audit's examples are on its own page."""
    found: list[tuple[str, object]] = []
    for name, value in (result or {}).items():
        if name in UNTOLD or value is None or value == "":
            continue
        if isinstance(value, Mapping):
            found += [(f"{name} {inner}", each) for inner, each in value.items()]
        else:
            found.append((name, value))
    return [(name.replace("_", " "), _plain(value)) for name, value in found]


def _plain(value: object) -> object:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(str(each) for each in value) or "none"
    return value


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text) if text else None
        if moment is None or moment.tzinfo is None:
            return moment and moment.replace(tzinfo=UTC)
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidParameter("Not a time.", param="before") from None
