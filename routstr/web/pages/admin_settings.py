"""`/admin/settings`: what can be changed while the node runs, what it does, and who changed it.

A setting is changed on a page of its own, beside its history. What decides where money goes takes a
fresh code, so those have an address of their own; the other one refuses them.
"""

from typing import Final

from fastapi import APIRouter, Request, Response

from routstr.errors import InvalidParameter, NotFound
from routstr.flows.context import Context
from routstr.flows.house.fixed import FIXED
from routstr.flows.house.settings import (
    SettingShown,
    change_settings,
    needs_code,
    setting_history,
    settings_shown,
)
from routstr.web.admin.guard import Admin, Confirmed, Reading, Writing
from routstr.web.deps import Ctx
from routstr.web.pages.entries import EMPTY, Form, Problem, RoomRoute, read_form, shows_again
from routstr.web.pages.shell import admin_page, back_to

HERE: Final = "/admin/settings"
HISTORY_SHOWN: Final = 50
SWITCHES: Final = "switches"
GROUP_WORDS: Final = {
    "node": "What it says of itself",
    "mints": "Mints",
    "money": "Money",
    "prices": "Prices",
    "keys": "Keys",
    "upstreams": "Upstreams",
    "change float": "Change float",
}
# What each switch says when it is off, and what goes on all the same.
STOPS: Final = {
    "deposits": "Nobody can pay in. What is on its way is credited all the same.",
    "spending": "No request is served. Those that run end as they began.",
    "withdrawals": "Nothing leaves the node. Change and failed payments go back all the same.",
    "needs_invite": "",
}

router = APIRouter(prefix=HERE, route_class=RoomRoute, include_in_schema=False)


@router.get("")
async def settings_page(request: Request, admin: Reading, ctx: Ctx) -> Response:
    """All of them, the switches first."""
    shown = await settings_shown(ctx)
    groups: dict[str, list[SettingShown]] = {}
    for each in shown:
        if each.about is not None:
            groups.setdefault(each.about.group, []).append(each)
    return admin_page(
        request, ctx, admin, "admin/settings.html", here="settings",
        switches=groups.pop(SWITCHES, []), groups=groups, words=GROUP_WORDS, stops=STOPS,
        fixed=[each for each in shown if each.about is None], meanings=FIXED,
    )  # fmt: skip


async def _one(
    request: Request,
    ctx: Context,
    admin: Admin,
    *,
    name: str,
    form: Form = EMPTY,
    problem: Problem | None = None,
) -> Response:
    """Raises NotFound."""
    shown = next((each for each in await settings_shown(ctx) if each.name == name), None)
    if shown is None or shown.about is None:
        raise NotFound
    history = await setting_history(ctx, name, limit=HISTORY_SHOWN)
    return admin_page(
        request, ctx, admin, "admin/setting.html", here="settings", title=shown.about.meaning,
        setting=shown, about=shown.about, history=history, form=form.told, problem=problem,
        stops=STOPS.get(name), status=problem.status if problem else 200,
    )  # fmt: skip


@router.get("/{name}")
async def setting_page(request: Request, admin: Reading, ctx: Ctx, name: str) -> Response:
    """One, with its history."""
    return await _one(request, ctx, admin, name=name)


@router.post("/{name}")
@shows_again(_one)
async def save_setting(request: Request, admin: Writing, ctx: Ctx, name: str) -> Response:
    """Change it, or take its change back."""
    if needs_code([name]):
        raise InvalidParameter("That takes a fresh code.", param="totp")
    return await _save(ctx, admin, name, await read_form(request))


@router.post("/{name}/confirmed")
@shows_again(_one)
async def save_confirmed(request: Request, admin: Confirmed, ctx: Ctx, name: str) -> Response:
    """The same with a fresh code."""
    return await _save(ctx, admin, name, await read_form(request))


async def _save(ctx: Context, admin: Admin, name: str, form: Form) -> Response:
    values = {} if form.is_on("reset") else {name: form.text("value")}
    resets = [name] if form.is_on("reset") else []
    changed = await change_settings(ctx, values, resets=resets, changed_by=admin.name)
    said = "is as it was at the start again" if resets else "holds from now on"
    where = HERE if form.is_on("from_list") else f"{HERE}/{name}"
    return back_to(
        where, f"{name.upper()} {said}." if changed else f"{name.upper()} was so already."
    )
