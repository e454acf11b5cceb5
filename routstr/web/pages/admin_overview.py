"""`/admin`: the thirty seconds a day. Its parts can be had by themselves; events say when."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from routstr.errors import NotFound
from routstr.flows.context import Context
from routstr.flows.house.overview import overview
from routstr.flows.house.watching import goes_on, is_valid
from routstr.web.admin.guard import COOKIE, Reading
from routstr.web.deps import Ctx
from routstr.web.pages.kit import page, rendered
from routstr.web.pages.overview_view import HOURS, PARTS, SPAN, shown
from routstr.web.pages.shell import admin_page

EVENT_HEADERS: Final = {
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
    "X-Content-Type-Options": "nosniff",
}

router = APIRouter(include_in_schema=False)


@router.get("/admin")
async def overview_page(request: Request, admin: Reading, ctx: Ctx, span: str = SPAN) -> Response:
    """Is it well, what did it earn, what needs you."""
    values = await _values(ctx, span)
    return admin_page(request, ctx, admin, "admin/overview.html", here="overview", **values)


@router.get("/admin/parts/{name}")
async def overview_part(admin: Reading, ctx: Ctx, name: str, span: str = SPAN) -> Response:
    """One part of it, as it is now. Raises NotFound."""
    if name not in PARTS:
        raise NotFound
    return page(f"admin/overview/{name}.html", **await _values(ctx, span))


@router.get("/admin/events")
async def events(request: Request, admin: Reading, ctx: Ctx) -> Response:
    """Which parts have changed, for as long as the session and the node go on.

    Raises RateLimited when too many listen.
    """
    cookie = request.cookies.get(COOKIE, "")

    async def look() -> Mapping[str, str]:
        values = await _values(ctx, SPAN)
        return {name: rendered(f"admin/overview/{name}.html", **values) for name in PARTS}

    async def is_open() -> bool:
        if admin.is_session:
            return await goes_on(ctx, cookie)
        return await is_valid(ctx, admin.session_id)

    changes = ctx.herald.changes(look, is_open)
    first = await anext(changes)  # what refuses is still an answer of its own
    return StreamingResponse(
        _told(first, changes), media_type="text/event-stream", headers=EVENT_HEADERS
    )


async def _told(
    first: tuple[str, ...], changes: AsyncGenerator[tuple[str, ...]]
) -> AsyncIterator[str]:
    """The stream. A browser comes back when it ends, and is then asked again who it is."""
    async with aclosing(changes):
        yield _event(first)
        async for names in changes:
            yield _event(names)


def _event(names: tuple[str, ...]) -> str:
    return f"event: changed\ndata: {' '.join(names)}\n\n" if names else ": here\n\n"


async def _values(ctx: Context, span: str) -> dict[str, Any]:
    span = span if span in HOURS else SPAN
    return shown(await overview(ctx, hours=HOURS[span]), span)
