"""Every door of the node on one app: what the composition root installs, and tests as well."""

from functools import cache

from fastapi import APIRouter
from starlette.routing import BaseRoute

from routstr.web.admin.guard import install_guard
from routstr.web.admin.routes import admin_routers
from routstr.web.balance import router as balance_router
from routstr.web.catalog import router as catalog_router
from routstr.web.change import router as change_router
from routstr.web.errors import install_errors
from routstr.web.front import NodeApp
from routstr.web.incoming import router as incoming_router
from routstr.web.lightning import router as lightning_router
from routstr.web.metrics import router as metrics_router
from routstr.web.middleware import HeaderLimits, guarded, install_middleware
from routstr.web.openapi import describe
from routstr.web.pages.routes import page_routers
from routstr.web.proxy import ProxyEndpoint
from routstr.web.proxy import routes as proxy_routes
from routstr.web.quote import router as quote_router
from routstr.web.quote import routes as quote_routes
from routstr.web.receipts import router as receipts_router
from routstr.web.teams import key_router
from routstr.web.teams import router as teams_router


def install_doors(app: NodeApp, limits: HeaderLimits) -> None:
    """Errors, middleware and every route; the paid road comes last, it takes what nobody took."""
    install_errors(app)
    install_guard(app)
    install_middleware(app, limits)
    app.router.routes.extend(_plain_doors())
    road = ProxyEndpoint()
    app.router.routes.extend([*quote_routes(), *proxy_routes(road)])
    app.open_road(guarded(road, limits))
    describe(app)


@cache
def _plain_doors() -> tuple[BaseRoute, ...]:
    """What is FastAPI's to answer, once for a process, however many apps it makes.

    FastAPI derives much of every route when an app is first asked for one.
    """
    doors = APIRouter()
    doors.include_router(catalog_router)
    doors.include_router(metrics_router)
    doors.include_router(quote_router)
    doors.include_router(receipts_router)
    doors.include_router(key_router)
    for prefix in ("/v1/balance", "/v1/wallet"):
        doors.include_router(balance_router, prefix=prefix)
        doors.include_router(change_router, prefix=prefix)
        doors.include_router(incoming_router, prefix=prefix)
        doors.include_router(teams_router, prefix=prefix)
    for prefix in ("", "/v1/balance", "/v1/wallet", "/v2"):
        doors.include_router(lightning_router, prefix=f"{prefix}/lightning")
    for router in (*admin_routers(), *page_routers()):
        doors.include_router(router)
    return tuple(doors.routes)
