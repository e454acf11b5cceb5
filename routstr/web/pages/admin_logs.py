"""`/admin/logs`: what this process has logged lately, and all that is known of one request."""

from typing import Annotated, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response

from routstr.flows.house.logs import KeptLine, of_request, recent
from routstr.log import LEVELS
from routstr.web.admin.guard import Reading
from routstr.web.deps import Ctx
from routstr.web.pages.shell import admin_page

SHOWN: Final = 100
SEARCH_CHARS_MAX: Final = 100
LEVEL: Final = "info"
HIDDEN: Final = frozenset({"timestamp", "request_id", "logger"})

router = APIRouter(include_in_schema=False)


@router.get("/admin/logs")
async def logs_page(
    request: Request,
    admin: Reading,
    ctx: Ctx,
    level: str = LEVEL,
    search: Annotated[str, Query(max_length=SEARCH_CHARS_MAX)] = "",
    before: Annotated[int | None, Query(ge=1, le=2**53)] = None,
) -> Response:
    """A page of lines, newest first; `before` is the number of the last one that was shown."""
    level = level if level in LEVELS else LEVEL
    found = recent(ctx, level=level, search=search, limit=SHOWN + 1, before=before)
    asked = {"level": level, **({"search": search} if search else {})}
    older = {**asked, "before": found[SHOWN - 1].number} if len(found) > SHOWN else None
    return admin_page(
        request,
        ctx,
        admin,
        "admin/logs.html",
        here="logs",
        lines=shown(found[:SHOWN]),
        level=level,
        levels=[(each, each) for each in LEVELS],
        search=search,
        is_filtered=bool(search) or level != LEVEL,
        newer=f"/admin/logs?{urlencode(asked)}" if before else None,
        older=None if older is None else f"/admin/logs?{urlencode(older)}",
    )


@router.get("/admin/logs/{request_id}")
async def request_page(request: Request, admin: Reading, ctx: Ctx, request_id: str) -> Response:
    """One request: its hold, its rows, its lines. Raises NotFound."""
    found = await of_request(ctx, request_id)
    return admin_page(
        request,
        ctx,
        admin,
        "admin/request.html",
        here="logs",
        title="Request",
        found=found,
        lines=shown(found.lines),
    )


def shown(lines: tuple[KeptLine, ...]) -> list[tuple[KeptLine, list[tuple[str, object]]]]:
    """Each line with the fields that have no column of their own."""
    return [
        (line, [(name, value) for name, value in line.fields.items() if name not in HIDDEN])
        for line in lines
    ]
