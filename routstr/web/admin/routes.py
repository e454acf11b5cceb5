"""Every router of the operator's API, in one place."""

from fastapi import APIRouter

from routstr.web.admin.audit import router as audit_router
from routstr.web.admin.session import router as session_router


def admin_routers() -> tuple[APIRouter, ...]:
    """All of them; each names its own paths below `/admin/api`."""
    return (session_router, audit_router)
