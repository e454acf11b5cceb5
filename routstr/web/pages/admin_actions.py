"""`/admin/actions`: what operators did, for ever, the newest first."""

from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response

from routstr.flows.house.actions import actions
from routstr.web.admin.guard import Reading
from routstr.web.deps import Ctx
from routstr.web.pages.shell import admin_page

SHOWN: Final = 50

router = APIRouter(include_in_schema=False)


@router.get("/admin/actions")
async def actions_page(
    request: Request,
    admin: Reading,
    ctx: Ctx,
    before: Annotated[int | None, Query(ge=1, le=2**53)] = None,
) -> Response:
    """A page of them; `before` is the id of the last one that was shown."""
    found = await actions(ctx, limit=SHOWN + 1, before=before)
    return admin_page(
        request,
        ctx,
        admin,
        "admin/actions.html",
        here="actions",
        actions=found[:SHOWN],
        newer="/admin/actions" if before else None,
        older=f"/admin/actions?before={found[SHOWN - 1].id}" if len(found) > SHOWN else None,
    )
