"""`/admin/audit`: whether the books are whole, invariant by invariant."""

from fastapi import APIRouter, Request, Response

from routstr.flows.house.books import books_shown
from routstr.web.admin.guard import Reading
from routstr.web.deps import Ctx
from routstr.web.pages.shell import admin_page

router = APIRouter(include_in_schema=False)


@router.get("/admin/audit")
async def audit_page(request: Request, admin: Reading, ctx: Ctx) -> Response:
    """What the last audit said."""
    return admin_page(
        request, ctx, admin, "admin/audit.html", here="audit", books=await books_shown(ctx)
    )
