"""`/admin/mints`: whose ecash is taken, what lies there, and whether the change float is full.

Whoever is on the list can make money that this node accepts, so it changes only with a fresh code.
"""

from collections.abc import Sequence
from typing import Final

from fastapi import APIRouter, Request, Response

from routstr.errors import InvalidParameter
from routstr.flows.context import Context
from routstr.flows.house.money import mints
from routstr.flows.house.settings import MINTS, change_settings
from routstr.web.admin.guard import Admin, Confirmed, Reading
from routstr.web.deps import Ctx
from routstr.web.pages.entries import EMPTY, Form, Problem, RoomRoute, read_form, shows_again
from routstr.web.pages.shell import admin_page, back_to

HERE: Final = "/admin/mints"

router = APIRouter(prefix=HERE, route_class=RoomRoute, include_in_schema=False)


async def _list(
    request: Request,
    ctx: Context,
    admin: Admin,
    *,
    form: Form = EMPTY,
    problem: Problem | None = None,
) -> Response:
    return admin_page(
        request, ctx, admin, "admin/mints.html", here="mints", mints=await mints(ctx),
        limits=ctx.limits, form=form.told, problem=problem,
        status=problem.status if problem else 200,
    )  # fmt: skip


@router.get("")
async def mints_page(request: Request, admin: Reading, ctx: Ctx) -> Response:
    """Every mint that is accepted, or where something is."""
    return await _list(request, ctx, admin)


@router.post("/add")
@shows_again(_list)
async def accept_mint(request: Request, admin: Confirmed, ctx: Ctx) -> Response:
    """Take the ecash of another mint, which must answer."""
    url = (await read_form(request)).text("mint_url")
    if not url:
        raise InvalidParameter("Say the URL of the mint.", param="mint_url")
    changed = await _accept(ctx, admin, [*ctx.facts.mints, url])
    return back_to(HERE, "Its ecash is taken from now on." if changed else "It is on the list.")


@router.post("/remove")
@shows_again(_list)
async def refuse_mint(request: Request, admin: Confirmed, ctx: Ctx) -> Response:
    """Take its ecash no more; what is held there can still go out."""
    url = (await read_form(request)).text("mint_url")
    if url not in ctx.facts.mints:
        raise InvalidParameter("That mint is not on the list.", param="mint_url")
    if len(ctx.facts.mints) == 1:
        raise InvalidParameter("It is the only one: add another one first.", param="mint_url")
    rest = [each for each in ctx.facts.mints if each != url]
    await _accept(ctx, admin, rest)
    return back_to(HERE, "Its ecash is taken no more; what is held there can still go out.")


async def _accept(ctx: Context, admin: Admin, urls: Sequence[str]) -> bool:
    """Whether that changed anything; the change notes itself."""
    return bool(await change_settings(ctx, {MINTS: ", ".join(urls)}, changed_by=admin.name))
