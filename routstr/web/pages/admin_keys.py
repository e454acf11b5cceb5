"""`/admin/keys`: the keys of users: found, looked at row by row, bound to terms, ended.

A key's text is money: it is searched for by POST and hashed at once, and it never gets into an
address, a log or a page. An id and the beginning of a preview are no secrets.
"""

from collections.abc import Mapping
from typing import Annotated, Final, Literal, get_args
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response

from routstr.core.cap import RESETS
from routstr.errors import InvalidParameter
from routstr.flows.context import Context
from routstr.flows.house.actions import note_action
from routstr.flows.house.keys import (
    KeyPage,
    all_keys,
    find_keys,
    key_rows,
    key_shown,
    revive_key,
    revoke_key,
    set_key_limits,
)
from routstr.flows.house.money import Ask, withdrawals
from routstr.web.admin.guard import Admin, Reading, Writing
from routstr.web.deps import Ctx
from routstr.web.pages.entries import EMPTY, Form, Problem, RoomRoute, go, read_form, shows_again
from routstr.web.pages.shell import admin_page, back_to

HERE: Final = "/admin/keys"
SECRET_CHARS: Final = 20  # nobody types that much of a text that is not the whole of it
Filter = Literal["all", "funded", "children", "expired", "revoked"]
FILTERS: Final[tuple[Filter, ...]] = get_args(Filter)
FILTER_WORDS: Final = {
    "all": "All",
    "funded": "With balance",
    "children": "Children",
    "expired": "Expired",
    "revoked": "Revoked",
}
KEYS_SHOWN: Final = 50
ROWS_SHOWN: Final = 50
WITHDRAWALS_SHOWN: Final = 10

router = APIRouter(prefix=HERE, route_class=RoomRoute, include_in_schema=False)

Text = Annotated[str, Query(max_length=200)]


async def _list(
    request: Request,
    ctx: Context,
    admin: Admin,
    *,
    search: str = "",
    shown: str = "all",
    after: str = "",
    form: Form = EMPTY,
    problem: Problem | None = None,
) -> Response:
    chosen: Filter = next((each for each in FILTERS if each == shown), "all")
    found = KeyPage(keys=(), after=None)
    if problem is None:
        found = await find_keys(
            ctx, search=search, shown=chosen, limit=KEYS_SHOWN, after=after or None
        )
    kept = {"search": search, "shown": "" if chosen == "all" else chosen}
    return admin_page(
        request, ctx, admin, "admin/keys.html", here="keys",
        found=found, totals=await all_keys(ctx), search=search, chosen=chosen,
        filters=[(_here(kept | {"shown": name}), word, name)
                 for name, word in FILTER_WORDS.items()],
        older=None if found.after is None else _here(kept | {"after": found.after}),
        newest=_here(kept) if after else None,
        problem=problem, status=problem.status if problem else 200,
    )  # fmt: skip


def _here(query: dict[str, str]) -> str:
    asked = urlencode({name: text for name, text in query.items() if text})
    return f"{HERE}?{asked}" if asked else HERE


def _may_be_secret(text: str) -> bool:
    return text.strip().startswith("sk-") and len(text) > SECRET_CHARS


@router.get("")
async def keys_page(
    request: Request,
    admin: Reading,
    ctx: Ctx,
    search: Text = "",
    shown: Text = "all",
    after: Text = "",
) -> Response:
    """The newest keys, or those that fit."""
    search = "" if _may_be_secret(search) else search.strip()
    return await _list(request, ctx, admin, search=search, shown=shown, after=after)


@router.post("/search")
@shows_again(_list)
async def search_keys(request: Request, admin: Reading, ctx: Ctx) -> Response:
    """Look for a key; a text that may be a secret leads straight to its key, or nowhere."""
    form = await read_form(request)
    text, shown = form.text("search"), form.text("shown")
    if text.startswith("cashu"):
        raise InvalidParameter("That is a token, not a key: the node keeps none.", param="search")
    if _may_be_secret(text):
        found = await find_keys(ctx, search=text, limit=1)
        if not found.keys:
            raise InvalidParameter("No key of this node has that text.", param="search")
        return go(f"{HERE}/{found.keys[0].key.id}")
    return go(_here({"search": text, "shown": "" if shown == "all" else shown}))


# ── one key ───────────────────────────────────────────────────────────────────────────────────


async def _one(
    request: Request,
    ctx: Context,
    admin: Admin,
    *,
    key_id: str,
    before: int | None = None,
    form: Form = EMPTY,
    problem: Problem | None = None,
) -> Response:
    """Raises NotFound."""
    shown = await key_shown(ctx, key_id)
    rows = await key_rows(ctx, key_id, limit=ROWS_SHOWN + 1, before=before)
    older = rows[ROWS_SHOWN - 1].row.sequence if len(rows) > ROWS_SHOWN else None
    paid = await withdrawals(ctx, Ask(search=key_id, limit=WITHDRAWALS_SHOWN))
    key, now = shown.key.key, ctx.clock.now()
    return admin_page(
        request, ctx, admin, "admin/key.html", here="keys", title=key.preview or key.id,
        shown=shown, key=key, cap=None if key.cap is None else key.cap.at(now),
        rows=[each.row for each in rows[:ROWS_SHOWN]], resets=RESETS,
        older=None if older is None else f"{HERE}/{key_id}?before={older}#rows",
        newest=None if before is None else f"{HERE}/{key_id}#rows",
        paid=paid, form=form.told, problem=problem, status=problem.status if problem else 200,
    )  # fmt: skip


@router.get("/{key_id}")
async def key_page(
    request: Request,
    admin: Reading,
    ctx: Ctx,
    key_id: str,
    before: Annotated[int | None, Query(ge=0, le=2**63 - 1)] = None,
) -> Response:
    """One key with the rows of its chain."""
    return await _one(request, ctx, admin, key_id=key_id, before=before)


@router.post("/{key_id}/limits")
@shows_again(_one)
async def save_limits(request: Request, admin: Writing, ctx: Ctx, key_id: str) -> Response:
    """Bind it to what the form says; what is left empty binds no more."""
    form = await read_form(request)
    changes = {
        "balance_limit_msat": form.msat("balance_limit_msat"),
        "limit_reset": form.said("limit_reset"),
        "expires_at": form.moment("expires_at"),
        "allowed_models": form.words("allowed_models") or None,
        "requests_per_minute": form.whole("requests_per_minute"),
        "tokens_per_minute": form.whole("tokens_per_minute"),
        "concurrent_max": form.whole("concurrent_max"),
    }
    await set_key_limits(ctx, key_id, changes, actor=admin.name)
    told = {name: str(value) for name, value in changes.items() if value is not None}
    await _note(ctx, admin, key_id, told)
    return back_to(f"{HERE}/{key_id}", "Saved. It holds from the next request on.")


@router.post("/{key_id}/revoke")
@shows_again(_one)
async def end_key(admin: Writing, ctx: Ctx, key_id: str) -> Response:
    """End it; its money stays on it."""
    await revoke_key(ctx, key_id, actor=admin.name)
    await _note(ctx, admin, key_id, {"revoked": True})
    return back_to(f"{HERE}/{key_id}", "Revoked. Nothing is served with this key any more.")


@router.post("/{key_id}/revive")
@shows_again(_one)
async def take_end_back(admin: Writing, ctx: Ctx, key_id: str) -> Response:
    """It works again."""
    await revive_key(ctx, key_id, actor=admin.name)
    await _note(ctx, admin, key_id, {"revoked": False})
    return back_to(f"{HERE}/{key_id}", "The key works again.")


async def _note(ctx: Context, admin: Admin, key_id: str, detail: Mapping[str, object]) -> None:
    await note_action(ctx, actor=admin.name, action="key.change", target=key_id, detail=detail)
