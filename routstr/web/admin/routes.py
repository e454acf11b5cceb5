"""Every router of the operator's API, in one place."""

from fastapi import APIRouter

from routstr.web.admin.audit import router as audit_router
from routstr.web.admin.invites import router as invites_router
from routstr.web.admin.keys import router as keys_router
from routstr.web.admin.money import router as money_router
from routstr.web.admin.session import router as session_router
from routstr.web.admin.settings import router as settings_router
from routstr.web.admin.upstreams import router as upstreams_router
from routstr.web.admin.usage import router as usage_router
from routstr.web.admin.withdraw import router as withdraw_router
from routstr.web.admin.work import router as work_router


def admin_routers() -> tuple[APIRouter, ...]:
    """All of them; each names its own paths below `/admin/api`."""
    return (
        session_router,
        audit_router,
        settings_router,
        invites_router,
        money_router,
        keys_router,
        upstreams_router,
        withdraw_router,
        work_router,
        usage_router,
    )
