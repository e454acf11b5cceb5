"""`/admin/setup`, `/admin/enrol`: the first log-in, step by step.

A password, an authenticator app, recovery codes: each page leads to the next one, and until the
last is done the session opens nothing else.
"""

from typing import Annotated

from fastapi import APIRouter, Form, Request, Response

from routstr.errors import (
    CsrfFailed,
    InvalidCredentials,
    InvalidParameter,
    RoutstrError,
    SetupRefused,
)
from routstr.flows.context import Context
from routstr.flows.house.identity import Session, csrf_token, has_admin
from routstr.flows.house.passwords import CHARS_MAX, CHARS_MIN
from routstr.flows.house.setup import (
    accept_codes,
    enrol,
    enrolment,
    is_setup_link,
    new_codes,
    set_up,
)
from routstr.web.admin.cookies import keep_session
from routstr.web.admin.guard import ENROL, LOGIN, SETUP, any_session, check_page
from routstr.web.admin.origin import peer_of
from routstr.web.deps import Ctx
from routstr.web.pages.entry import check_origin, to
from routstr.web.pages.forms import PageRoute
from routstr.web.pages.kit import page
from routstr.web.scope import request_id_of

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get(SETUP)
async def setup_page(ctx: Ctx, token: str = "") -> Response:
    """The password form for who has the link; for everybody else, where a link comes from."""
    if await has_admin(ctx):
        return to(LOGIN)
    is_link = bool(token) and await is_setup_link(ctx, token)
    return _setup_form(ctx, token if is_link else "", is_wrong=bool(token) and not is_link)


@router.post(SETUP)
async def setup(
    request: Request,
    ctx: Ctx,
    token: Annotated[str, Form()] = "",
    password: Annotated[str, Form()] = "",
    again: Annotated[str, Form()] = "",
) -> Response:
    """Choose the password: that uses the link up."""
    try:
        check_origin(request, ctx)
        if password != again:
            raise InvalidParameter("The two passwords are not the same.", param="again")
        opened = await set_up(ctx, token, password, peer_of(request, ctx))
    except SetupRefused:
        return _setup_form(ctx, "", is_wrong=True)
    except (InvalidParameter, CsrfFailed) as error:
        return _setup_form(ctx, token, error=error)
    response = to(ENROL)
    keep_session(response, opened)
    return response


def _setup_form(
    ctx: Context, token: str, *, is_wrong: bool = False, error: RoutstrError | None = None
) -> Response:
    return page(
        "admin/setup.html",
        status=403 if is_wrong else 200 if error is None else error.status,
        node=ctx.facts.name,
        token=token,
        is_wrong=is_wrong,
        error=error,
        chars_min=CHARS_MIN,
        chars_max=CHARS_MAX,
    )


@router.get(ENROL)
async def enrol_page(request: Request, ctx: Ctx) -> Response:
    """What the app scans; after it, whether the recovery codes were saved."""
    session = await any_session(request, ctx)
    if session is None:
        return to(LOGIN)
    if session.kind == "session":
        return to("/admin")
    if session.kind == "saving":
        return _codes_page(ctx, session.id, None)
    return await _enrol_form(ctx, session)


@router.post(ENROL)
async def enrol_app(request: Request, ctx: Ctx, totp: Annotated[str, Form()] = "") -> Response:
    """The first code: the app is connected, and the recovery codes are shown."""
    session = await any_session(request, ctx)
    if session is None or session.kind != "enrolling":
        return to(ENROL)
    await check_page(request, ctx, session)
    try:
        enrolled = await enrol(ctx, session, totp, peer_of(request, ctx))
    except InvalidCredentials as error:
        return await _enrol_form(ctx, session, error)
    response = _codes_page(ctx, enrolled.opened.session_id, enrolled.codes)
    keep_session(response, enrolled.opened)
    return response


@router.post(f"{ENROL}/saved")
async def codes_saved(request: Request, ctx: Ctx, saved: Annotated[str, Form()] = "") -> Response:
    """The end of the set-up."""
    session = await _saving(request, ctx)
    if session is not None and saved == "1":
        await accept_codes(ctx, session)
    return to(ENROL if session is not None and saved != "1" else "/admin")


@router.post(f"{ENROL}/codes")
async def other_codes(request: Request, ctx: Ctx) -> Response:
    """Recovery codes in place of those that nobody saved."""
    session = await _saving(request, ctx)
    if session is None:
        return to(ENROL)
    codes = await new_codes(
        ctx, session.user_id, actor=session.user_name, request_id=request_id_of(request.scope)
    )
    return _codes_page(ctx, session.id, codes)


async def _saving(request: Request, ctx: Context) -> Session | None:
    session = await any_session(request, ctx)
    if session is None or session.kind != "saving":
        return None
    await check_page(request, ctx, session)
    return session


async def _enrol_form(
    ctx: Context, session: Session, error: RoutstrError | None = None
) -> Response:
    return page(
        "admin/enrol.html",
        status=200 if error is None else error.status,
        node=ctx.facts.name,
        csrf=csrf_token(ctx, session.id),
        app=await enrolment(ctx, session),
        error=error,
    )


def _codes_page(ctx: Context, session_id: str, codes: list[str] | None) -> Response:
    return page(
        "admin/codes.html",
        node=ctx.facts.name,
        csrf=csrf_token(ctx, session_id),
        codes=codes,
    )
