"""`/admin/backups`: what there is to restore from, one more now, and whether one can be opened."""

from datetime import timedelta
from typing import Final

from fastapi import APIRouter, Request, Response

from routstr.errors import NotFound, Pending, RoutstrError
from routstr.flows.house.actions import note_action
from routstr.flows.house.backup import backups
from routstr.flows.house.backup_look import verify_backup
from routstr.flows.house.jobs import jobs_shown, start_job
from routstr.web.admin.guard import Reading, Writing
from routstr.web.deps import Ctx
from routstr.web.pages.forms import PageRoute
from routstr.web.pages.shell import admin_page, back_to
from routstr.web.scope import request_id_of

BACKUP_JOB: Final = "backup"
OLD_AFTER: Final = timedelta(hours=48)
PATH: Final = "/admin/backups"

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get(PATH)
async def backups_page(request: Request, admin: Reading, ctx: Ctx) -> Response:
    """All there are, newest first."""
    found = await backups(ctx)
    job = next((each for each in await jobs_shown(ctx) if each.name == BACKUP_JOB), None)
    return admin_page(
        request,
        ctx,
        admin,
        "admin/backups.html",
        here="backups",
        backups=found,
        total_bytes=sum(each.bytes for each in found),
        is_old=bool(found) and found[0].created_at < ctx.clock.now() - OLD_AFTER,
        job=job,
        failed=None if job is None or job.ok is not False else (job.result or {}).get("reason", ""),
    )


@router.post(PATH)
async def create_now(request: Request, admin: Writing, ctx: Ctx) -> Response:
    """Make one now, beside the node's work."""
    try:
        await start_job(ctx, BACKUP_JOB, dry_run=False, asked_by=admin.name)
    except (Pending, NotFound) as error:
        return back_to(PATH, error.message, kind="bad")
    await note_action(
        ctx, actor=admin.name, action="backup.create", request_id=request_id_of(request.scope)
    )
    return back_to(PATH, "A backup is being made.")


@router.post("/admin/backups/verify")
async def verify_now(request: Request, admin: Writing, ctx: Ctx) -> Response:
    """Open one whole, to the last byte."""
    name = str((await request.form()).get("name", ""))
    kind, said = "ok", "That backup is whole."
    try:
        await verify_backup(ctx, name)
    except NotFound as error:
        return back_to(PATH, error.message, kind="bad")
    except RoutstrError as error:
        kind, said = "bad", f"That backup cannot be used: {error.message}"
    await note_action(
        ctx,
        actor=admin.name,
        action="backup.verify",
        target=name,
        detail={"whole": kind == "ok"},
        request_id=request_id_of(request.scope),
    )
    return back_to(PATH, said, kind="ok" if kind == "ok" else "bad")
