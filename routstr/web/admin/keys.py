"""`/admin/api/temporary-balances` and `/apikeys/{hashed_key}`: users' keys (contract, 8)."""

from datetime import UTC, datetime
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Request
from pydantic import Field

from routstr.errors import InvalidParameter
from routstr.flows.house.actions import note_action
from routstr.flows.house.keys import (
    KeyFilter,
    KeyRow,
    all_keys,
    find_keys,
    key_shown,
    keys_found,
    revive_key,
    revoke_key,
    set_key_limits,
)
from routstr.flows.keys import UNIX_S_MAX
from routstr.web.admin.guard import Reading, Writing
from routstr.web.admin.shape import Body, Id, InPage, Shown, Text, Unix
from routstr.web.bodies import BoundedRoute
from routstr.web.deps import Ctx
from routstr.web.scope import request_id_of

router = APIRouter(prefix="/admin/api", tags=["admin"], route_class=BoundedRoute)

PAGE: Final = 500
MODELS_MAX: Final = 200
Rate = Annotated[int, Field(ge=0, le=10**12)]


class KeyLine(Shown):
    """A key; `hashed_key` is its id, amounts are msat."""

    hashed_key: str
    preview: str | None
    balance: int
    reserved: int
    total_spent: int
    total_requests: int
    total_deposited: int
    refund_address: str | None = None
    key_expiry_time: Unix | None
    parent_key_hash: str | None
    created_at: Unix
    last_used_at: Unix | None
    revoked_at: Unix | None
    balance_limit: int | None
    balance_limit_reset: str | None
    validity_date: Unix | None
    allowed_models: list[str] | None
    requests_per_minute: int | None
    tokens_per_minute: int | None
    concurrent_max: int | None


class Totals(Shown):
    """All users' keys together; amounts in msat."""

    keys: int
    funded: int
    children: int
    balance_msat: int
    reserved_msat: int
    spent_msat: int
    requests: int


class Keys(Shown):
    """A page of keys, the newest first."""

    balances: list[KeyLine]
    total: int
    totals: Totals


class KeyBody(Body):
    """What a key is bound to from now on; null takes a bound away, a rate of 0 is no limit."""

    revoked: bool | None = None
    balance_limit: Annotated[int, Field(ge=1, le=2**63 - 1)] | None = None
    balance_limit_reset: Literal["daily", "weekly", "monthly"] | None = None
    validity_date: Annotated[int, Field(ge=1, le=UNIX_S_MAX)] | None = None
    allowed_models: list[Text] | None = Field(default=None, max_length=MODELS_MAX)
    requests_per_minute: Rate | None = None
    tokens_per_minute: Rate | None = None
    concurrent_max: Rate | None = None


NAMES: Final = {
    "balance_limit": "balance_limit_msat",
    "balance_limit_reset": "limit_reset",
    "validity_date": "expires_at",
}


@router.get("/temporary-balances")
async def list_keys(admin: Reading, ctx: Ctx, page: InPage, shown: KeyFilter = "all") -> Keys:
    """Users' keys; `search` is the beginning of an id or of a preview, or a whole key."""
    rows: list[KeyRow] = []
    after: str | None = None
    wanted = page.offset + page.limit
    while len(rows) < wanted:
        part = await find_keys(
            ctx,
            search=page.search,
            shown=shown,
            limit=min(PAGE, wanted - len(rows)),
            after=after,
        )
        rows += part.keys
        after = part.after
        if after is None:
            break
    totals = await all_keys(ctx)
    return Keys(
        balances=[_line(row) for row in rows[page.offset :]],
        total=await keys_found(ctx, search=page.search, shown=shown),
        totals=Totals.model_validate(totals),
    )


@router.get("/apikeys/{hashed_key}")
async def show_key(admin: Reading, ctx: Ctx, hashed_key: Id) -> KeyLine:
    """One key."""
    return _line((await key_shown(ctx, hashed_key)).key)


@router.patch("/apikeys/{hashed_key}")
async def bind_key(
    request: Request, admin: Writing, ctx: Ctx, hashed_key: Id, body: KeyBody
) -> KeyLine:
    """Bind a key to limits, end it, or take its end back; it counts from the next request on."""
    said = body.model_dump(exclude_unset=True)
    revoked = said.pop("revoked", None)
    changes = {NAMES.get(name, name): value for name, value in said.items()}
    ends = changes.get("expires_at")
    if isinstance(ends, int):
        changes["expires_at"] = datetime.fromtimestamp(ends, UTC)
    if not changes and revoked is None:
        raise InvalidParameter("Say what is to change.")
    if changes:
        await set_key_limits(ctx, hashed_key, changes, actor=admin.name)
    if revoked is not None:
        end = revoke_key if revoked else revive_key
        await end(ctx, hashed_key, actor=admin.name)
    detail = body.model_dump(exclude_unset=True)
    await note_action(
        ctx,
        actor=admin.name,
        action="key.change",
        target=hashed_key,
        detail=detail,
        request_id=request_id_of(request.scope),
    )
    return _line((await key_shown(ctx, hashed_key)).key)


def _line(row: KeyRow) -> KeyLine:
    key = row.key
    return KeyLine.model_validate(
        {
            "hashed_key": key.id,
            "preview": key.preview,
            "balance": key.balance_msat,
            "reserved": key.held_msat,
            "total_spent": key.total_spent_msat,
            "total_requests": key.total_requests,
            "total_deposited": row.total_deposited_msat,
            "key_expiry_time": key.expires_at,
            "parent_key_hash": key.parent_id,
            "created_at": key.created_at,
            "last_used_at": row.last_used_at,
            "revoked_at": key.revoked_at,
            "balance_limit": key.balance_limit_msat,
            "balance_limit_reset": key.limit_reset,
            "validity_date": key.expires_at,
            "allowed_models": None if key.allowed_models is None else list(key.allowed_models),
            **key.rates,
        }
    )
