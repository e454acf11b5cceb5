"""Every router of the operator's API, in one place."""

from fastapi import APIRouter

from routstr.web.admin.audit import router as audit_router


def admin_routers() -> tuple[APIRouter, ...]:
    """All of them; each names its own paths below `/admin/api`."""
    return (audit_router,)
