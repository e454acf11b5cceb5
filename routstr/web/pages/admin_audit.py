"""`/admin/audit`: whether the books are whole, invariant by invariant, and a check of them now."""

from fastapi import APIRouter, Request, Response

from routstr.errors import Pending
from routstr.flows.house.actions import note_action
from routstr.flows.house.books import books_shown, start_check
from routstr.web.admin.guard import Reading, Writing
from routstr.web.deps import Ctx
from routstr.web.pages.forms import PageRoute
from routstr.web.pages.shell import admin_page, back_to
from routstr.web.scope import request_id_of

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/admin/audit")
async def audit_page(request: Request, admin: Reading, ctx: Ctx) -> Response:
    """What the last audit said."""
    return admin_page(
        request, ctx, admin, "admin/audit.html", here="audit", books=await books_shown(ctx)
    )


@router.post("/admin/audit")
async def check_now(request: Request, admin: Writing, ctx: Ctx) -> Response:
    """Look at the books; with `full` at every row."""
    is_full = (await request.form()).get("full") == "1"
    try:
        await start_check(ctx, full=is_full, asked_by=admin.name)
    except Pending:
        return back_to("/admin/audit", "A check is running already.", kind="bad")
    await note_action(
        ctx,
        actor=admin.name,
        action="audit.run",
        detail={"full": is_full},
        request_id=request_id_of(request.scope),
    )
    return back_to("/admin/audit", "The check has started.")
