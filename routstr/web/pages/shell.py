"""The dashboard's frame around every page of the operator, and the word that follows an action.

An action answers with `back_to`: a redirect and one sentence for the page it leads to. It travels
in a cookie that no script reads and the next page drops, so nothing is shown twice.
"""

import json
from dataclasses import dataclass
from typing import Any, Final, Literal
from urllib.parse import quote, unquote

from fastapi import Request, Response

from routstr.flows.context import Context
from routstr.web.admin.guard import Admin
from routstr.web.pages.kit import page

SAID_COOKIE: Final = "routstr_said"
SAID_S: Final = 60
SAID_CHARS_MAX: Final = 300

Kind = Literal["ok", "bad"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """A page of the navigation; `name` is also that of its icon, `group` opens a group."""

    name: str
    title: str
    path: str
    group: str = ""


ROOMS: Final = (
    Room(name="overview", title="Overview", path="/admin"),
    Room(name="usage", title="Usage", path="/admin/usage", group="Sales"),
    Room(name="keys", title="Keys", path="/admin/keys"),
    Room(name="models", title="Models & upstreams", path="/admin/models"),
    Room(name="invites", title="Invites", path="/admin/invites"),
    Room(name="mints", title="Mints", path="/admin/mints", group="Money"),
    Room(name="withdrawals", title="Withdrawals", path="/admin/withdrawals"),
    Room(name="audit", title="Audit", path="/admin/audit"),
    Room(name="jobs", title="Jobs", path="/admin/jobs", group="Node"),
    Room(name="backups", title="Backups", path="/admin/backups"),
    Room(name="logs", title="Logs", path="/admin/logs"),
    Room(name="actions", title="Actions", path="/admin/actions"),
    Room(name="settings", title="Settings", path="/admin/settings"),
    Room(name="account", title="Account", path="/admin/account"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shell:
    """What the frame shows; `csrf` goes into every form of the page."""

    node: str
    version: str
    admin: str
    csrf: str
    here: str
    title: str
    rooms: tuple[Room, ...] = ROOMS


def admin_page(
    request: Request,
    ctx: Context,
    admin: Admin,
    template: str,
    *,
    here: str,
    title: str | None = None,
    status: int = 200,
    **values: Any,
) -> Response:
    """A page in the frame: the template gets `shell`, `now`, `said` and `values`.

    `here` is the name of its room, `title` another one than the room's.
    """
    room = next(each for each in ROOMS if each.name == here)
    shell = Shell(
        node=ctx.facts.name,
        version=ctx.facts.version,
        admin=admin.name,
        csrf=csrf_of(request),
        here=here,
        title=title or room.title,
    )
    said = _said(request)
    answer = page(template, status=status, shell=shell, now=ctx.clock.now(), said=said, **values)
    if said is not None:
        answer.delete_cookie(SAID_COOKIE, path="/admin")
    return answer


def csrf_of(request: Request) -> str:
    """The token that a form of this session has to bring."""
    return str(getattr(request.state, "csrf", ""))


def back_to(path: str, said: str, *, kind: Kind = "ok") -> Response:
    """A redirect after an action, and the sentence that says what it led to (no secret in it)."""
    answer = Response(status_code=303, headers={"Location": path, "Cache-Control": "no-store"})
    answer.set_cookie(
        SAID_COOKIE,
        quote(json.dumps([kind, said[:SAID_CHARS_MAX]])),
        max_age=SAID_S,
        path="/admin",
        httponly=True,
        samesite="strict",
    )
    return answer


def _said(request: Request) -> tuple[Kind, str] | None:
    try:
        kind, text = json.loads(unquote(request.cookies.get(SAID_COOKIE, "")))
    except (ValueError, TypeError, RecursionError):
        return None
    if kind not in ("ok", "bad") or not isinstance(text, str):
        return None
    return kind, text[:SAID_CHARS_MAX]
