"""`/admin/login`, `/admin/logout`: in and out, as plain forms.

A log-in has no session whose token it could bring, so its Origin alone says that no other site
sent it: nobody is logged in to somebody else's account behind his back.
"""

from typing import Annotated

from fastapi import APIRouter, Form, Request, Response

from routstr.errors import CsrfFailed, InvalidCredentials, RateLimited, RoutstrError, TotpRequired
from routstr.flows.context import Context
from routstr.flows.house.identity import has_admin, log_in, log_out
from routstr.web.admin.cookies import drop_session, keep_session
from routstr.web.admin.guard import ENROL, LOGIN, SETUP, any_session, check_page, local_path
from routstr.web.admin.origin import is_own_origin, is_plain_http, peer_of
from routstr.web.deps import Ctx
from routstr.web.pages.forms import PageRoute
from routstr.web.pages.kit import page
from routstr.web.scope import request_id_of

router = APIRouter(route_class=PageRoute, include_in_schema=False)

PLAIN_HTTP = (
    "Over plain http browsers keep no log-in. Open the dashboard over https, or on the node's own"
    " machine, for instance through an SSH tunnel to 127.0.0.1."
)


def to(path: str) -> Response:
    """A redirect to a page of ours after a form."""
    return Response(status_code=303, headers={"Location": path, "Cache-Control": "no-store"})


def check_origin(request: Request, ctx: Context) -> None:
    """Raises CsrfFailed for a form that no page of ours sent."""
    if not is_own_origin(ctx, request):
        raise CsrfFailed(PLAIN_HTTP if is_plain_http(request) else None)


@router.get(LOGIN)
async def login_page(
    request: Request,
    ctx: Ctx,
    next: str = "",  # noqa: A002 - its name in the address
    ended: str = "",
) -> Response:
    """The form, or where somebody belongs who needs none; `ended` is set after a lost form."""
    session = await any_session(request, ctx)
    if session is not None:
        return to(local_path(next) if session.kind == "session" else ENROL)
    if not await has_admin(ctx):
        return to(SETUP)
    return _form(ctx, local_path(next), has_ended=bool(ended))


@router.post(LOGIN)
async def login(
    request: Request,
    ctx: Ctx,
    password: Annotated[str, Form()] = "",
    totp: Annotated[str, Form()] = "",
    next: Annotated[str, Form()] = "",  # noqa: A002 - its name in the form
) -> Response:
    """Log in and go where somebody wanted to; else the form again, and what was wrong."""
    where = local_path(next)
    try:
        check_origin(request, ctx)
        opened = await log_in(ctx, password=password, code=totp, peer=peer_of(request, ctx))
    except TotpRequired:
        # As for a wrong code: the form asks for both, so it tells nobody which one was right.
        return _form(ctx, where, InvalidCredentials())
    except (InvalidCredentials, RateLimited, CsrfFailed) as error:
        return _form(ctx, where, error)
    response = to(where if opened.kind == "session" else ENROL)
    keep_session(response, opened)
    return response


def _form(
    ctx: Context, where: str, error: RoutstrError | None = None, *, has_ended: bool = False
) -> Response:
    headers = {}
    if error is not None and error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    return page(
        "admin/login.html",
        status=200 if error is None else error.status,
        headers=headers,
        node=ctx.facts.name,
        where=where,
        error=error,
        has_ended=has_ended,
    )


@router.post("/admin/logout")
async def logout(request: Request, ctx: Ctx) -> Response:
    """End the session, whatever it may do; one that ended before has nothing to end."""
    session = await any_session(request, ctx)
    if session is not None:
        await check_page(request, ctx, session)
        await log_out(ctx, session, request_id=request_id_of(request.scope))
    response = to(LOGIN)
    drop_session(response)
    return response
