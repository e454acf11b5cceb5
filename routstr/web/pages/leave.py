"""`/admin/logout`: the way out, from a form on every page."""

from fastapi import APIRouter, Request, Response

from routstr.flows.house.identity import log_out
from routstr.web.admin.cookies import drop_session
from routstr.web.admin.guard import LOGIN, any_session, check_page
from routstr.web.deps import Ctx
from routstr.web.pages.forms import PageRoute
from routstr.web.scope import request_id_of

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.post("/admin/logout")
async def leave(request: Request, ctx: Ctx) -> Response:
    """End the session, whatever it may do; one that ended before has nothing to end."""
    session = await any_session(request, ctx)
    if session is not None:
        await check_page(request, ctx, session)
        await log_out(ctx, session, request_id=request_id_of(request.scope))
    response = Response(status_code=303, headers={"Location": LOGIN})
    drop_session(response)
    return response
