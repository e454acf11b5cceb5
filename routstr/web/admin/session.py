"""`/admin/api/{login,logout,password,cli-tokens}`: the admin's own affairs (contract, 8)."""

from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import Field

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
from routstr.web.admin.shape import Body, Id, InPage, Shown, Unix
from routstr.web.bodies import BoundedRoute
from routstr.web.deps import Ctx
from routstr.web.scope import request_id_of

router = APIRouter(prefix="/admin/api", tags=["admin"], route_class=BoundedRoute)

Secret = Annotated[str, Field(max_length=2_000)]


class LoginBody(Body):
    """A password, and a code of the app or a recovery code."""

    password: Secret
    totp: Secret | None = None


class PasswordBody(Body):
    """The password in force, and the one to be."""

    current_password: Secret
    new_password: Secret


class TokenBody(Body):
    """What a token is called, what it may do, and for how many days."""

    name: str = Field(max_length=200)
    scopes: list[str] = Field(max_length=10)
    expires_in_days: int = TOKEN_DAYS


class TokenView(Shown):
    """A token as it may be shown; times in Unix s."""

    id: str
    name: str | None
    scopes: list[str]
    token_preview: str | None
    created_at: Unix
    last_used_at: Unix | None
    expires_at: Unix


class NewTokenView(TokenView):
    """A token as it is shown this one time."""

    token: str


class Tokens(Shown):
    """A page of tokens, the newest first."""

    tokens: list[TokenView]
    total: int


class LoggedIn(Shown):
    """A session that began: its CSRF token, and for how many seconds it lasts at most."""

    ok: bool = True
    token: str
    expires_in: int


class Done(Shown):
    """It is done."""

    ok: bool = True


@router.post("/login")
async def login(request: Request, response: Response, ctx: Ctx, body: LoginBody) -> LoggedIn:
    """Log in: the session is in the cookie, and `token` is its CSRF token."""
    if request.headers.get("origin") is not None and not is_own_origin(ctx, request):
        raise CsrfFailed
    opened = await log_in(ctx, password=body.password, code=body.totp, peer=peer_of(request, ctx))
    if opened.kind != "session":
        raise TotpRequired("The set-up is not over: log in at /admin/login with a browser.")
    keep_session(response, opened)
    response.headers["cache-control"] = "no-store"
    return LoggedIn(token=csrf_token(ctx, opened.session_id), expires_in=opened.lifetime_s)


@router.post("/logout")
async def logout(request: Request, response: Response, ctx: Ctx, admin: Writing) -> Done:
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
    return Done()


@router.patch("/password")
async def set_password(
    request: Request, response: Response, ctx: Ctx, admin: Confirmed, body: PasswordBody
) -> Done:
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
    return Done()


@router.get("/cli-tokens")
async def list_tokens(ctx: Ctx, admin: Reading, page: InPage) -> Tokens:
    """Every token, without its text."""
    text = page.search.lower()
    found = [each for each in await tokens(ctx) if text in (each.name or "").lower()]
    part = found[page.offset : page.offset + page.limit]
    return Tokens(tokens=[_shown(each) for each in part], total=len(found))


@router.post("/cli-tokens")
async def add_token(
    request: Request, response: Response, ctx: Ctx, admin: Confirmed, body: TokenBody
) -> NewTokenView:
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
    return NewTokenView(**_shown(row).model_dump(), token=made.token)


@router.delete("/cli-tokens/{token_id}")
async def remove_token(token_id: Id, request: Request, ctx: Ctx, admin: Writing) -> Done:
    """Revoke a token."""
    await revoke_token(
        ctx,
        admin.user_id,
        token_id,
        actor=admin.name,
        request_id=request_id_of(request.scope),
    )
    return Done()


def _check_session(admin: Admin) -> None:
    """Raises AdminRequired for a token: it makes no other and changes nobody's password."""
    if not admin.is_session:
        raise AdminRequired("Log in for this; a token may not do it.")


def _shown(token: Session) -> TokenView:
    shown = {"scopes": list(token.scopes), "token_preview": token.preview}
    times = ("created_at", "last_used_at", "expires_at")
    facts = {name: getattr(token, name) for name in ("id", "name", *times)}
    return TokenView.model_validate({**facts, **shown})
