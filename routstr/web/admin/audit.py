"""`/admin/api/audit`: whether the books are whole, each invariant by its name."""

from fastapi import APIRouter

from routstr.flows.audit import audit
from routstr.web.admin.guard import Reading
from routstr.web.deps import Ctx

router = APIRouter(prefix="/admin/api", tags=["admin"])


@router.get("/audit")
async def check_books(admin: Reading, ctx: Ctx) -> dict[str, object]:
    """Evaluate the invariants on what has moved since the last clean run."""
    report = await audit(ctx, full=False, deep=False)
    return {
        "ok": report.ok,
        "checked_at": int(report.checked_at.timestamp()),
        "invariants": [
            {
                "name": each.name,
                "title": each.title,
                "breaches": each.breaches,
                "examples": list(each.examples),
            }
            for each in report.invariants
        ],
    }
