"""`/admin/invites`: codes that let somebody make a key; each is shown once, where it was made."""

from typing import Final

from fastapi import APIRouter, Request, Response

from routstr.errors import InvalidParameter
from routstr.flows.context import Context
from routstr.flows.house.invites import NewInvite, end_invite, invites, make_invite
from routstr.web.admin.guard import Admin, Reading, Writing
from routstr.web.deps import Ctx
from routstr.web.pages.entries import EMPTY, Form, Problem, RoomRoute, read_form, shows_again
from routstr.web.pages.shell import admin_page, back_to

HERE: Final = "/admin/invites"
INVITES_SHOWN: Final = 200

router = APIRouter(prefix=HERE, route_class=RoomRoute, include_in_schema=False)


async def _page(
    request: Request,
    ctx: Context,
    admin: Admin,
    *,
    form: Form = EMPTY,
    problem: Problem | None = None,
    made: NewInvite | None = None,
    invite_id: str = "",
) -> Response:
    shown, total = await invites(ctx, limit=INVITES_SHOWN)
    return admin_page(
        request, ctx, admin, "admin/invites.html", here="invites",
        invites=shown, total=total, made=made, needs_invite=ctx.switches.needs_invite,
        form=form.told, problem=problem, status=problem.status if problem else 200,
    )  # fmt: skip


@router.get("")
async def invites_page(request: Request, admin: Reading, ctx: Ctx) -> Response:
    """The newest, and a form for another one."""
    return await _page(request, ctx, admin)


@router.post("")
@shows_again(_page)
async def keep_invite(request: Request, admin: Writing, ctx: Ctx) -> Response:
    """Make one; its code is in this answer, and nowhere else ever."""
    form = await read_form(request)
    uses = form.whole("uses")
    if uses is None:
        raise InvalidParameter("Say for how many keys.", param="uses")
    made = await make_invite(
        ctx,
        uses=uses,
        note=form.text("note"),
        expires_at=form.moment("expires_at"),
        actor=admin.name,
    )
    return await _page(request, ctx, admin, made=made)


@router.post("/{invite_id}/end")
@shows_again(_page)
async def revoke_invite(admin: Writing, ctx: Ctx, invite_id: str) -> Response:
    """Let nobody in with it any more."""
    await end_invite(ctx, invite_id, actor=admin.name)
    return back_to(HERE, "Revoked: nobody gets in with it any more. Keys that were made stay.")
