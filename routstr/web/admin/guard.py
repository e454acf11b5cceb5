"""Who may do what under `/admin`: the one door of its API and of its pages.

Every endpoint takes exactly one of the types below; there is no other way to an `Admin`.

    Reading      anybody logged in; a token with the scope `read`
    Writing      … whose page sent it: Origin and CSRF token are right; a token with `write`
    Confirmed    … with a fresh code of his app as well; a token with `write`
    Withdrawing  … the same; a token with `withdraw`

The CSRF token is `X-CSRF-Token`, or the form field `csrf`; the code `X-Admin-TOTP`, or the form
field `totp`. A browser that asks for a page is sent to log in and comes back. Pages that take forms
are routed by `forms.PageRoute`. Sources: contract, section 8; SR-3, SR-4.
"""

import re
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal, cast, get_args
from urllib.parse import quote, urlsplit

from fastapi import Depends, FastAPI, Request, Response

from routstr.errors import AdminRequired, CsrfFailed, EnrolmentRequired
from routstr.flows.context import Context
from routstr.flows.house.identity import (
    Session,
    confirm,
    csrf_token,
    has_admin,
    is_csrf_token,
    session_of,
    token_of,
)
from routstr.web.admin.origin import is_own_origin, peer_of
from routstr.web.deps import Ctx

Scope = Literal["read", "write", "withdraw"]

ALL: Final[frozenset[Scope]] = frozenset(get_args(Scope))
COOKIE: Final = "__Host-routstr_admin"
FORM: Final = "application/x-www-form-urlencoded"
LOGIN: Final = "/admin/login"
ENROL: Final = "/admin/enrol"
SETUP: Final = "/admin/setup"
NEXT_CHARS_MAX: Final = 500
# What a proxy asks for besides (Basic) is not meant for us.
_IS_BEARER: Final = re.compile(r"bearer\b", re.IGNORECASE)
_BEARER: Final = re.compile(r"bearer[ \t]+(\S+)[ \t]*", re.IGNORECASE)
# Only our own pages, and nothing that a browser could read as another site or as a second header.
_LOCAL: Final = re.compile(r"/admin(?:/[A-Za-z0-9_.~%/-]*)?(?:\?[A-Za-z0-9_.~%&=+-]*)?")
_NO_RETURN: Final = re.compile(r"/admin/(?:api|login|logout|setup|enrol)(?:[/?]|$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Admin:
    """Somebody who has proved who he is. `name` is what the log of actions says of him.

    `csrf` is for the forms of his pages; a token for programs has none.
    """

    user_id: str
    name: str
    scopes: frozenset[Scope]
    session_id: str
    is_session: bool
    csrf: str = field(default="", repr=False)


class SeeOther(Exception):
    """A browser is better served elsewhere: a path of ours."""

    def __init__(self, path: str) -> None:
        """`path` is safe as a header."""
        self.path = path


def install_guard(app: FastAPI) -> None:
    """Let the guard send browsers to the log-in page."""
    app.add_exception_handler(SeeOther, _see_other)


async def _see_other(request: Request, error: Exception) -> Response:
    assert isinstance(error, SeeOther)
    return Response(status_code=303, headers={"Location": error.path, "Cache-Control": "no-store"})


# ── the four doors ────────────────────────────────────────────────────────────────────────────


async def reading_admin(request: Request, ctx: Ctx) -> Admin:
    """Who is asking, allowed to read. Raises AdminRequired."""
    return _admitted(ctx, await _known(request, ctx), "read")


async def writing_admin(request: Request, ctx: Ctx) -> Admin:
    """… to write: of a session also Origin and CSRF token are right.

    Raises AdminRequired, CsrfFailed.
    """
    known = await _known(request, ctx)
    if known.kind != "token":
        await check_page(request, ctx, known)
    return _admitted(ctx, known, "write")


async def confirmed_admin(request: Request, ctx: Ctx) -> Admin:
    """… to write what is dangerous, with a fresh code of a session.

    Raises AdminRequired, CsrfFailed, TotpRequired, InvalidCredentials, RateLimited.
    """
    return await _confirmed(request, ctx, "write")


async def withdrawing_admin(request: Request, ctx: Ctx) -> Admin:
    """… to take money out, with a fresh code of a session. Raises what `confirmed_admin` does."""
    return await _confirmed(request, ctx, "withdraw")


Reading = Annotated[Admin, Depends(reading_admin)]
Writing = Annotated[Admin, Depends(writing_admin)]
Confirmed = Annotated[Admin, Depends(confirmed_admin)]
Withdrawing = Annotated[Admin, Depends(withdrawing_admin)]


async def _confirmed(request: Request, ctx: Context, scope: Scope) -> Admin:
    known = await _known(request, ctx)
    if known.kind != "token":
        await check_page(request, ctx, known)
        code = request.headers.get("x-admin-totp") or await _field(request, "totp")
        await confirm(ctx, known, code, peer_of(request, ctx))
    return _admitted(ctx, known, scope)


def _admitted(ctx: Context, known: Session, scope: Scope) -> Admin:
    is_session = known.kind != "token"
    scopes = ALL if is_session else frozenset(cast(Scope, each) for each in known.scopes)
    if scope not in scopes:
        raise AdminRequired(f"This token may not do that: it lacks the scope {scope}.")
    return Admin(
        user_id=known.user_id,
        name=known.user_name if is_session else f"token {known.name}",
        scopes=scopes,
        session_id=known.id,
        is_session=is_session,
        csrf=csrf_token(ctx, known.id) if is_session else "",
    )


# ── who it is ─────────────────────────────────────────────────────────────────────────────────


async def _known(request: Request, ctx: Context) -> Session:
    """The session or the token, its set-up over. Raises AdminRequired, SeeOther."""
    shown = [text for text in request.headers.getlist("authorization") if _IS_BEARER.match(text)]
    if shown:  # a program: it says who it is in one way, and no cookie stands in for it
        bearer = _BEARER.fullmatch(shown[0]) if len(shown) == 1 else None
        token = None if bearer is None else await token_of(ctx, bearer[1])
        if token is None:
            raise AdminRequired
        return token
    session = await any_session(request, ctx)
    if session is None:
        raise await _refusal(request, ctx)
    if session.kind != "session":
        raise SeeOther(ENROL) if wants_page(request) else EnrolmentRequired()
    return session


async def any_session(request: Request, ctx: Context) -> Session | None:
    """The session of the request's cookie, also one that is still being set up.

    Its CSRF token is in `request.state.csrf` from then on, for the forms of the page.
    """
    cookie = request.cookies.get(COOKIE)
    session = await session_of(ctx, cookie) if cookie else None
    request.state.csrf = "" if session is None else csrf_token(ctx, session.id)
    return session


async def _refusal(request: Request, ctx: Context) -> Exception:
    """What nobody hears: a program no, a browser where to go."""
    if request.headers.get("hx-request"):
        return AdminRequired(headers={"HX-Redirect": LOGIN})
    if not wants_page(request):
        return AdminRequired()
    if not await has_admin(ctx):
        return SeeOther(SETUP)
    if request.method != "GET":  # a form that came too late: back to its page, and say so
        return SeeOther(f"{LOGIN}?ended=1&next={quote(came_from(request), safe='/')}")
    query = request.url.query
    asked = local_path(f"{request.url.path}?{query}" if query else request.url.path)
    return SeeOther(LOGIN if asked == "/admin" else f"{LOGIN}?next={quote(asked, safe='/')}")


def wants_page(request: Request) -> bool:
    """Whether a person looks at the answer."""
    is_api = str(request.scope["path"]).startswith("/admin/api")
    return not is_api and "text/html" in request.headers.get("accept", "")


def came_from(request: Request) -> str:
    """The page of ours that a form was on, or the overview."""
    before = urlsplit(request.headers.get("referer", ""))
    return local_path(f"{before.path}?{before.query}" if before.query else before.path)


def local_path(asked: str | None) -> str:
    """Where to go after a log-in: one of the dashboard's own pages, whatever was asked for."""
    if not asked or len(asked) > NEXT_CHARS_MAX or not _LOCAL.fullmatch(asked):
        return "/admin"
    return "/admin" if _NO_RETURN.match(asked) else asked


# ── what it sends ─────────────────────────────────────────────────────────────────────────────


async def check_page(request: Request, ctx: Context, session: Session) -> None:
    """Raises CsrfFailed unless a page of ours, made for that session, sent this."""
    given = request.headers.get("x-csrf-token") or await _field(request, "csrf") or ""
    if not is_own_origin(ctx, request) or not is_csrf_token(ctx, session.id, given):
        raise CsrfFailed


async def _field(request: Request, name: str) -> str | None:
    """A field of the form that was sent, if one was."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        return None
    value = (await request.form()).get(name)
    return value if isinstance(value, str) else None
