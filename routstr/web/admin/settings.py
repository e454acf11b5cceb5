"""`/admin/api/settings`: every setting, and those that change while the node runs."""

from typing import Annotated

from fastapi import APIRouter, Body, Query, Request
from pydantic import JsonValue

from routstr.errors import InvalidParameter
from routstr.flows.house.settings import (
    SettingShown,
    change_settings,
    needs_code,
    setting_history,
    settings_shown,
)
from routstr.web.admin.guard import Reading, Writing, confirmed_admin
from routstr.web.admin.shape import REDACTED, Id, Shown, Unix
from routstr.web.bodies import BoundedRoute
from routstr.web.deps import Ctx
from routstr.web.scope import request_id_of

router = APIRouter(prefix="/admin/api/settings", tags=["admin"], route_class=BoundedRoute)

NAMES_MAX = 100


class SettingView(Shown):
    """A setting: its value, where it comes from, and what it may be."""

    value: JsonValue
    source: str
    editable: bool
    needs_totp: bool
    started_with: JsonValue
    group: str | None
    kind: str | None
    meaning: str | None
    bounds: dict[str, JsonValue]
    changed_by: str | None
    changed_at: Unix | None


class VersionView(Shown):
    """One change; without `has_value` a change was taken back."""

    version: int
    value: JsonValue
    has_value: bool
    changed_by: str
    changed_at: Unix


class HistoryView(Shown):
    """The changes of one setting, the newest first."""

    name: str
    history: list[VersionView]


@router.get("")
async def show(admin: Reading, ctx: Ctx) -> dict[str, SettingView]:
    """All settings by name; secrets are masked."""
    return {each.name: _view(each) for each in await settings_shown(ctx)}


@router.patch("")
async def change(
    request: Request,
    admin: Writing,
    ctx: Ctx,
    body: Annotated[dict[str, JsonValue], Body(max_length=NAMES_MAX)],
) -> dict[str, SettingView]:
    """Change settings by name; null takes a change back, a masked value is left alone.

    Where ecash is taken, where earnings go and where the public finds the node need a fresh code.
    """
    said = {name: value for name, value in body.items() if value != REDACTED}
    if any(len(name) > NAMES_MAX for name in said):
        raise InvalidParameter("That is no setting.")
    if needs_code(list(said)):
        await confirmed_admin(request, ctx)
    await change_settings(
        ctx,
        {name: value for name, value in said.items() if value is not None},
        resets=[name for name, value in said.items() if value is None],
        changed_by=admin.name,
        request_id=request_id_of(request.scope),
    )
    return {each.name: _view(each) for each in await settings_shown(ctx)}


@router.get("/{name}/history")
async def history(
    admin: Reading,
    ctx: Ctx,
    name: Id,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    before: Annotated[int | None, Query(ge=1, le=2**53)] = None,
) -> HistoryView:
    """How a setting was changed, and by whom; `before` is a version."""
    rows = await setting_history(ctx, name, limit=limit, before=before)
    return HistoryView(name=name, history=[VersionView.model_validate(each) for each in rows])


def _view(each: SettingShown) -> SettingView:
    about = each.about
    return SettingView.model_validate(
        {
            "value": each.value,
            "source": each.source,
            "editable": each.is_editable,
            "needs_totp": about is not None and about.needs_code,
            "started_with": each.started_with,
            "group": None if about is None else about.group,
            "kind": None if about is None else about.kind,
            "meaning": None if about is None else about.meaning,
            "bounds": each.bounds,
            "changed_by": each.changed_by,
            "changed_at": each.changed_at,
        }
    )
