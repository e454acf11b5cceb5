"""Every router of pages for people, in one place."""

from fastapi import APIRouter

from routstr.web.pages.account import router as account_router
from routstr.web.pages.admin_actions import router as actions_router
from routstr.web.pages.admin_audit import router as audit_router
from routstr.web.pages.admin_backups import router as backups_router
from routstr.web.pages.admin_invites import router as invites_router
from routstr.web.pages.admin_jobs import router as jobs_router
from routstr.web.pages.admin_keys import router as keys_router
from routstr.web.pages.admin_logs import router as logs_router
from routstr.web.pages.admin_mints import router as mints_router
from routstr.web.pages.admin_models import router as models_router
from routstr.web.pages.admin_overview import router as overview_router
from routstr.web.pages.admin_payout import router as payout_router
from routstr.web.pages.admin_settings import router as settings_router
from routstr.web.pages.admin_upstreams import router as upstreams_router
from routstr.web.pages.admin_usage import router as usage_router
from routstr.web.pages.admin_withdrawals import router as withdrawals_router
from routstr.web.pages.begin import router as begin_router
from routstr.web.pages.entry import router as entry_router
from routstr.web.pages.kit import router as static_router


def page_routers() -> tuple[APIRouter, ...]:
    """All of them, the static files first."""
    return (
        static_router,
        account_router,
        actions_router,
        audit_router,
        backups_router,
        invites_router,
        jobs_router,
        logs_router,
        keys_router,
        mints_router,
        models_router,
        payout_router,
        settings_router,
        overview_router,
        upstreams_router,
        withdrawals_router,
        usage_router,
        begin_router,
        entry_router,
    )
