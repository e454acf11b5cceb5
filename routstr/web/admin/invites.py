"""`/admin/api/invites`: codes that let somebody make a key, where that needs one."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import Field

from routstr.flows.house.invites import USES_MAX, end_invite, invites, make_invite
from routstr.flows.keys import UNIX_S_MAX
from routstr.web.admin.guard import Reading, Writing
from routstr.web.admin.shape import Body, Id, InPage, Shown, Text, Unix
from routstr.web.bodies import BoundedRoute
from routstr.web.deps import Ctx
from routstr.web.scope import request_id_of

router = APIRouter(prefix="/admin/api/invites", tags=["admin"], route_class=BoundedRoute)


class InviteBody(Body):
    """For how many keys, until when, and what you call it."""

    uses: int = Field(default=1, ge=1, le=USES_MAX)
    note: Text = ""
    expires_at: Annotated[int, Field(ge=1, le=UNIX_S_MAX)] | None = None


class InviteShown(Shown):
    """An invite; its code is nowhere any more."""

    id: str
    note: str | None
    uses: int
    uses_left: int
    created_at: Unix
    expires_at: Unix | None


class Invites(Shown):
    """A page of them."""

    invites: list[InviteShown]
    total: int


class Made(Shown):
    """A new one, with its code, which is shown once."""

    id: str
    code: str


class Ended(Shown):
    """It lets nobody in any more."""

    ok: bool = True


@router.get("")
async def list_invites(admin: Reading, ctx: Ctx, page: InPage) -> Invites:
    """The invites, newest first."""
    found, total = await invites(ctx, search=page.search, limit=page.limit, offset=page.offset)
    return Invites(invites=[InviteShown.model_validate(each) for each in found], total=total)


@router.post("")
async def make(
    request: Request, response: Response, admin: Writing, ctx: Ctx, body: InviteBody
) -> Made:
    """Make an invite; its code is in the answer and nowhere else."""
    response.headers["cache-control"] = "no-store"
    ends = body.expires_at
    made = await make_invite(
        ctx,
        uses=body.uses,
        note=body.note,
        expires_at=None if ends is None else datetime.fromtimestamp(ends, UTC),
        actor=admin.name,
        request_id=request_id_of(request.scope),
    )
    return Made(id=made.id, code=made.code)


@router.delete("/{invite_id}")
async def end(request: Request, admin: Writing, ctx: Ctx, invite_id: Id) -> Ended:
    """End an invite: it lets nobody in any more."""
    await end_invite(ctx, invite_id, actor=admin.name, request_id=request_id_of(request.scope))
    return Ended()
