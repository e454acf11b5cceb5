"""`/admin/account`: the admin's password, app, recovery codes, tokens for programs, sessions."""

from typing import Annotated

from fastapi import APIRouter, Form, Request, Response

from routstr.errors import AdminRequired, InvalidParameter
from routstr.flows.context import Context
from routstr.flows.house.account import (
    SCOPES,
    TOKEN_DAYS,
    TOKEN_DAYS_MAX,
    change_password,
    codes_left,
    end_sessions,
    make_token,
    open_sessions,
    replace_app,
    revoke_token,
    tokens,
)
from routstr.flows.house.passwords import CHARS_MAX, CHARS_MIN
from routstr.flows.house.setup import new_codes
from routstr.web.admin.cookies import drop_session, keep_session
from routstr.web.admin.guard import ENROL, LOGIN, Admin, Confirmed, Reading, Writing
from routstr.web.deps import Ctx
from routstr.web.pages.entry import to
from routstr.web.pages.forms import PageRoute
from routstr.web.pages.shell import admin_page, back_to
from routstr.web.scope import request_id_of

router = APIRouter(route_class=PageRoute, include_in_schema=False)

HERE = "/admin/account"


@router.get(HERE)
async def account_page(request: Request, ctx: Ctx, admin: Reading) -> Response:
    """All of it."""
    return await _page(request, ctx, admin)


async def _page(
    request: Request,
    ctx: Context,
    admin: Admin,
    *,
    token: str | None = None,
    codes: list[str] | None = None,
) -> Response:
    """The page; what is shown once comes with the answer to the form that made it."""
    return admin_page(
        request,
        ctx,
        admin,
        "admin/account.html",
        here="account",
        own_id=admin.session_id,
        codes_left=await codes_left(ctx),
        tokens=await tokens(ctx),
        sessions=await open_sessions(ctx),
        scopes=SCOPES,
        days=TOKEN_DAYS,
        days_max=TOKEN_DAYS_MAX,
        chars_min=CHARS_MIN,
        chars_max=CHARS_MAX,
        new_token=token,
        new_codes=codes,
    )


@router.post(f"{HERE}/password")
async def set_password(
    request: Request,
    ctx: Ctx,
    admin: Confirmed,
    current: Annotated[str, Form()] = "",
    new: Annotated[str, Form()] = "",
    again: Annotated[str, Form()] = "",
) -> Response:
    """Another password; every session ends."""
    _check_session(admin)
    if new != again:
        raise InvalidParameter("The two new passwords are not the same.", param="again")
    await change_password(
        ctx, admin.user_id, current=current, new=new, actor=admin.name, request_id=_id(request)
    )
    return _out()


@router.post(f"{HERE}/codes")
async def show_new_codes(request: Request, ctx: Ctx, admin: Confirmed) -> Response:
    """Ten other recovery codes, shown once."""
    _check_session(admin)
    codes = await new_codes(ctx, admin.user_id, actor=admin.name, request_id=_id(request))
    return await _page(request, ctx, admin, codes=codes)


@router.post(f"{HERE}/app")
async def connect_another_app(request: Request, ctx: Ctx, admin: Confirmed) -> Response:
    """Forget the app; the next page connects another one."""
    _check_session(admin)
    opened = await replace_app(ctx, actor=admin.name, request_id=_id(request))
    response = to(ENROL)
    keep_session(response, opened)
    return response


@router.post(f"{HERE}/tokens")
async def add_token(
    request: Request,
    ctx: Ctx,
    admin: Confirmed,
    name: Annotated[str, Form()] = "",
    scopes: Annotated[list[str] | None, Form()] = None,
    days: Annotated[int, Form()] = TOKEN_DAYS,
) -> Response:
    """A token for programs, shown once."""
    _check_session(admin)
    made = await make_token(
        ctx,
        admin.user_id,
        name=name,
        scopes=scopes or [],
        days=days,
        actor=admin.name,
        request_id=_id(request),
    )
    return await _page(request, ctx, admin, token=made.token)


@router.post(f"{HERE}/tokens/{{token_id}}/revoke")
async def remove_token(token_id: str, request: Request, ctx: Ctx, admin: Writing) -> Response:
    """Revoke one."""
    _check_session(admin)
    await revoke_token(ctx, admin.user_id, token_id, actor=admin.name, request_id=_id(request))
    return back_to(HERE, "The token is revoked.")


@router.post(f"{HERE}/sessions/end")
async def end_every_session(request: Request, ctx: Ctx, admin: Writing) -> Response:
    """Log out everywhere, here too."""
    _check_session(admin)
    await end_sessions(ctx, admin.user_id, actor=admin.name, request_id=_id(request))
    return _out()


@router.post(f"{HERE}/sessions/{{session_id}}/end")
async def end_session(session_id: str, request: Request, ctx: Ctx, admin: Writing) -> Response:
    """Log out one browser."""
    _check_session(admin)
    await end_sessions(
        ctx,
        admin.user_id,
        session_id=session_id,
        actor=admin.name,
        request_id=_id(request),
    )
    return _out() if session_id == admin.session_id else back_to(HERE, "That session has ended.")


def _out() -> Response:
    response = to(LOGIN)
    drop_session(response)
    return response


def _check_session(admin: Admin) -> None:
    """Raises AdminRequired for a token for programs: these are a person's own affairs."""
    if not admin.is_session:
        raise AdminRequired("Log in for this; a token may not do it.")


def _id(request: Request) -> str:
    return request_id_of(request.scope)
