"""The authorisation matrix: every route of the app, and everybody who may knock there.

What a cell must be follows from the door that the route itself depends on, so a route that is new
is in the matrix, and one below /admin without a door is found. A cell's visitor is made for it
alone: what one call does (log out, empty a key) is nothing to the next. Source: I-24, T-19.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from fastapi.dependencies.models import Dependant
from fastapi.routing import RouteContext, iter_route_contexts
from sqlalchemy import text

from routstr.flows.house.identity import Opened, new_session, row_of
from routstr.ledger.commands import RowCommand, Transaction
from routstr.ledger.sessions import NewSession, write_session
from routstr.web.admin.guard import FORM
from tests.harness.house import House, fresh_code, session_headers
from tests.harness.shop import PATH, order

Who = Literal["nobody", "key", "other_key", "revoked_key", "admin_without_code", "admin"]
Door = Literal["open", "keyed", "owned", "paid", "reading", "writing", "confirmed", "withdrawing"]

EVERYBODY: Final[tuple[Who, ...]] = (
    "nobody",
    "key",
    "other_key",
    "revoked_key",
    "admin_without_code",
    "admin",
)
DOORS: Final[Mapping[str, Door]] = {
    "caller_of": "keyed",
    "opening_caller_of": "keyed",
    "refunded_caller_of": "keyed",
    "reading_admin": "reading",
    "writing_admin": "writing",
    "confirmed_admin": "confirmed",
    "withdrawing_admin": "withdrawing",
}
# Below /admin, what is for somebody who is not logged in yet, or only half.
FRONT: Final = frozenset(
    {
        "/admin/api/login",
        "/admin/login",
        "/admin/logout",
        "/admin/setup",
        "/admin/enrol",
        "/admin/enrol/codes",
        "/admin/enrol/saved",
    }
)
OWNED: Final = "/v1/receipts/{request_id}"  # its door is whoever paid for the request
WITHDRAW: Final = "/admin/withdraw/"  # another name of what is in the API
TIMEOUT_S: Final = 10.0
REVOKE: Final = "UPDATE apikey SET revoked_at = created_at WHERE id = :id"


@dataclass(frozen=True, slots=True, kw_only=True)
class Knock:
    """A route's method and path, and what stands before it."""

    method: str
    path: str
    door: Door


@dataclass(slots=True, kw_only=True)
class Matrix:
    """How many cells were tried, and those that were not as they must be."""

    cells: int = 0
    wrong: list[str] = field(default_factory=list)


def knocks(house: House) -> Iterator[Knock]:
    """Every way into the app. Raises AssertionError for one below /admin without a door."""
    for route in iter_route_contexts(house.shop.app.routes):
        path = str(route.path)
        for method in sorted(set(route.methods or ()) - {"HEAD", "OPTIONS"}):
            yield Knock(method=method, path=path, door=_door(route, path))


def _door(route: RouteContext, path: str) -> Door:
    dependant = getattr(route, "dependant", None)
    if dependant is None:  # plain ASGI: the paid road and the quote
        return "paid" if "{path:path}" in path or path.endswith("/chat/completions") else "open"
    if path == OWNED:
        return "owned"
    found = {DOORS[name] for name in _names(dependant) if name in DOORS}
    if path.startswith("/admin") and path not in FRONT:
        assert len(found) == 1, f"{path} needs exactly one door, has {found}"
    return found.pop() if found else "open"


def _names(dependant: Dependant) -> Iterator[str]:
    for each in dependant.dependencies:
        yield getattr(each.call, "__name__", "")
        yield from _names(each)


async def try_every_door(house: House) -> Matrix:
    """Knock everywhere as everybody."""
    matrix = Matrix()
    buyer = await house.shop.key()
    bought = await house.http.post(PATH, headers=buyer.headers, json=order())
    request_id = bought.headers["x-request-id"]
    for knock in knocks(house):
        for who in EVERYBODY:
            matrix.cells += 1
            is_buyer = who == "key" and knock.door == "owned"
            headers = dict(buyer.headers) if is_buyer else await _headers(house, who)
            status = await _knock(house, knock, headers, request_id)
            if not _is_right(knock, who, status):
                matrix.wrong.append(
                    f"{knock.method} {knock.path} ({knock.door}) as {who}: {status}"
                )
    return matrix


def _is_right(knock: Knock, who: Who, status: int) -> bool:
    """Whether the door did what it is for: who may pass is told something else than to go."""
    is_operator = who.startswith("admin")
    match knock.door:
        case "open":
            return status != 500
        case "owned":
            if who == "key":
                return status == 200
            return status == (404 if who.endswith("_key") else 401)
        case "paid":  # an empty body is refused before anybody is looked up
            return status in {400, 404, 415}
        case "keyed":
            if who in {"nobody", "admin", "admin_without_code"}:
                return status == 401
            return status < 500 and (status not in {401, 403} or who == "revoked_key")
        case "reading" | "writing":  # 503: this house makes no backups
            is_told = status not in {401, 403} and (status < 500 or status == 503)
            return is_told if is_operator else status == 403
        case "confirmed" | "withdrawing":
            if who == "admin_without_code":
                return status == 401
            return (status not in {401, 403} and status < 500) if is_operator else status == 403


# ── knocking ──────────────────────────────────────────────────────────────────────────────────


async def _knock(house: House, knock: Knock, headers: dict[str, str], request_id: str) -> int:
    path = knock.path.replace(":path}", "}")
    values = {
        "request_id": request_id,
        "path": "nothing/here",
        "digest": "0" * 12,
        "name": "none.js",
    }
    while "{" in path:
        name = path[path.index("{") + 1 : path.index("}")]
        path = path.replace(f"{{{name}}}", values.get(name, f"{name}_none"))
    is_page = path.startswith("/admin") and not f"{path}/".startswith(("/admin/api/", WITHDRAW))
    body = b"" if knock.method == "GET" else b"a=b" if is_page else b"{}"
    if body:
        headers["content-type"] = FORM if is_page else "application/json"
    async with house.http.stream(
        knock.method, path, headers=headers, content=body, timeout=TIMEOUT_S
    ) as answer:
        return int(answer.status_code)  # a stream of events has no end


async def _headers(house: House, who: Who) -> dict[str, str]:
    """What they show; each time somebody new."""
    match who:
        case "nobody":
            return {}
        case "key" | "other_key" | "revoked_key":
            key = await house.shop.key()
            if who == "revoked_key":
                await _execute(
                    house, "UPDATE apikey SET revoked_at = created_at WHERE id = :id", id=key.id
                )
            return dict(key.headers)
        case "admin" | "admin_without_code":
            headers = session_headers(house.ctx, await _logged_in(house), house.origin)
            if who == "admin":
                headers["x-admin-totp"] = await fresh_code(house.ctx)
            return headers


async def _logged_in(house: House) -> Opened:
    """A session of its own, without the log-in that has tests of its own."""
    opened = new_session(house.ctx, "session")
    row = row_of(house.ctx, opened)
    await house.ctx.ledger.submit(OpenSession(user_id=house.user_id, session=row))
    return opened


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSession(RowCommand[None]):
    """A session by itself."""

    user_id: str
    session: NewSession

    async def run(self, transaction: Transaction) -> None:
        await write_session(transaction, self.user_id, self.session)


async def _execute(house: House, sql: str, **values: object) -> None:
    async with house.ctx.database.writer.begin() as connection:
        await connection.execute(text(sql), values)
