"""`/admin/api/{login,logout,password,cli-tokens}`: the admin's own affairs (contract, 8)."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from routstr.errors import AdminRequired, CsrfFailed, TotpRequired
from routstr.flows.house.account import (
    TOKEN_DAYS,
    change_password,
    end_sessions,
    make_token,
    revoke_token,
    tokens,
)
from routstr.flows.house.identity import Session, csrf_token, log_in
from routstr.web.admin.cookies import drop_session, keep_session
from routstr.web.admin.guard import Admin, Confirmed, Reading, Writing
from routstr.web.admin.origin import is_own_origin, peer_of
from routstr.web.bodies import BoundedRoute
from routstr.web.deps import Ctx
from routstr.web.scope import request_id_of

router = APIRouter(prefix="/admin/api", tags=["admin"], route_class=BoundedRoute)

Secret = Annotated[str, Field(max_length=2_000)]
Id = Annotated[str, Path(max_length=100)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class LoginBody(_Body):
    """A password, and a code of the app or a recovery code."""

    password: Secret
    totp: Secret | None = None


class PasswordBody(_Body):
    """The password in force, and the one to be."""

    current_password: Secret
    new_password: Secret


class TokenBody(_Body):
    """What a token is called, what it may do, and for how many days."""

    name: str = Field(max_length=200)
    scopes: list[str] = Field(max_length=10)
    expires_in_days: int = TOKEN_DAYS


@router.post("/login")
async def login(
    request: Request, response: Response, ctx: Ctx, body: LoginBody
) -> dict[str, object]:
    """Log in: the session is in the cookie, and `token` is its CSRF token."""
    if request.headers.get("origin") is not None and not is_own_origin(ctx, request):
        raise CsrfFailed
    opened = await log_in(ctx, password=body.password, code=body.totp, peer=peer_of(request, ctx))
    if opened.kind != "session":
        raise TotpRequired("The set-up is not over: log in at /admin/login with a browser.")
    keep_session(response, opened)
    response.headers["cache-control"] = "no-store"
    return {
        "ok": True,
        "token": csrf_token(ctx, opened.session_id),
        "expires_in": opened.lifetime_s,
    }


@router.post("/logout")
async def logout(
    request: Request, response: Response, ctx: Ctx, admin: Writing
) -> dict[str, object]:
    """End the session."""
    _check_session(admin)
    await end_sessions(
        ctx,
        admin.user_id,
        session_id=admin.session_id,
        actor=admin.name,
        request_id=request_id_of(request.scope),
    )
    drop_session(response)
    return {"ok": True}


@router.patch("/password")
async def set_password(
    request: Request, response: Response, ctx: Ctx, admin: Confirmed, body: PasswordBody
) -> dict[str, object]:
    """Change the password; every session ends, this one too."""
    _check_session(admin)
    await change_password(
        ctx,
        admin.user_id,
        current=body.current_password,
        new=body.new_password,
        actor=admin.name,
        request_id=request_id_of(request.scope),
    )
    drop_session(response)
    return {"ok": True}


@router.get("/cli-tokens")
async def list_tokens(ctx: Ctx, admin: Reading) -> dict[str, object]:
    """Every token, without its text."""
    every = [_shown(each) for each in await tokens(ctx)]
    return {"tokens": every, "total": len(every)}


@router.post("/cli-tokens")
async def add_token(
    request: Request, response: Response, ctx: Ctx, admin: Confirmed, body: TokenBody
) -> dict[str, object]:
    """Make a token; its text is in this answer and never again."""
    _check_session(admin)
    made = await make_token(
        ctx,
        admin.user_id,
        name=body.name,
        scopes=body.scopes,
        days=body.expires_in_days,
        actor=admin.name,
        request_id=request_id_of(request.scope),
    )
    response.headers["cache-control"] = "no-store"
    [row] = [each for each in await tokens(ctx) if each.id == made.id]
    return {**_shown(row), "token": made.token}


@router.delete("/cli-tokens/{token_id}")
async def remove_token(
    token_id: Id, request: Request, ctx: Ctx, admin: Writing
) -> dict[str, object]:
    """Revoke a token."""
    await revoke_token(
        ctx,
        admin.user_id,
        token_id,
        actor=admin.name,
        request_id=request_id_of(request.scope),
    )
    return {"ok": True}


def _check_session(admin: Admin) -> None:
    """Raises AdminRequired for a token: it makes no other and changes nobody's password."""
    if not admin.is_session:
        raise AdminRequired("Log in for this; a token may not do it.")


def _shown(token: Session) -> dict[str, object]:
    return {
        "id": token.id,
        "name": token.name,
        "scopes": list(token.scopes),
        "token_preview": token.preview,
        "created_at": int(token.created_at.timestamp()),
        "last_used_at": None if token.last_used_at is None else int(token.last_used_at.timestamp()),
        "expires_at": int(token.expires_at.timestamp()),
    }
