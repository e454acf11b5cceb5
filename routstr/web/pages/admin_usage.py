"""`/admin/usage`: what was sold, by model, upstream or outcome, and the requests that failed."""

from typing import Final

from fastapi import APIRouter, Request, Response

from routstr.flows.house.usage import error_details, usage
from routstr.web.admin.guard import Reading
from routstr.web.deps import Ctx
from routstr.web.pages.overview_view import HOURS, SPAN, figures
from routstr.web.pages.shell import admin_page

FAILURES: Final = 50
BY: Final = ("model", "upstream", "outcome")

router = APIRouter(include_in_schema=False)


@router.get("/admin/usage")
async def usage_page(
    request: Request, admin: Reading, ctx: Ctx, span: str = SPAN, by: str = BY[0]
) -> Response:
    """The rows behind the overview's charts."""
    span, by = span if span in HOURS else SPAN, by if by in BY else BY[0]
    sold = await usage(ctx, hours=HOURS[span])
    failed = await error_details(ctx, hours=HOURS[span], limit=FAILURES)
    return admin_page(
        request,
        ctx,
        admin,
        "admin/usage.html",
        here="usage",
        span=span,
        by=by,
        shares={
            "model": sold.by_model,
            "upstream": sold.by_upstream,
            "outcome": sold.by_outcome,
        }[by],
        total=sold.total,
        figures=figures(sold, span),
        failures=failed.failures,
    )
