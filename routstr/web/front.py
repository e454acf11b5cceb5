"""The app, and in front of FastAPI's own stack and routes the paid road, found by one look-up.

What is on the road is answered exactly as the road's own routes would, inside of the same
middleware, for a tenth of the price: FastAPI matches every router in turn. Everything else is
FastAPI's. Source: design, decision 9.
"""

from typing import Any, Final

from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig
from starlette.types import ASGIApp, Receive, Scope, Send

from routstr.core.dialects import DIALECTS
from routstr.flows.upstreams import OWN_PATHS
from routstr.web.proxy import is_priced

# Where requests are told to is the operator's setting (`OTLP_ENDPOINT`), and bodies never are.
_UNTOLD: Final[TelemetryConfig] = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "auto_configure": False,
}

_SOLD: Final = frozenset(f"{prefix}{path}" for path in DIALECTS for prefix in ("", "/v1"))


class NodeApp(FastAPI):
    """FastAPI, behind the road's door once that is open."""

    def __init__(self, **options: Any) -> None:
        """`options` are FastAPI's."""
        super().__init__(telemetry=_UNTOLD, **options)
        self._road: ASGIApp | None = None

    def open_road(self, road: ASGIApp) -> None:
        """From now on `road` answers what is sold, and every POST to nothing of our own."""
        self._road = road

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        scope["app"] = self
        if self._road is not None and scope["type"] == "http" and _is_on_road(scope):
            await self._road(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def _is_on_road(scope: Scope) -> bool:
    """Whether no route of FastAPI's comes before the road's own there."""
    path: str = scope["path"]
    is_post = scope["method"] == "POST"
    if is_post and path in _SOLD:
        return True
    bare = path.removeprefix("/v1")
    first = bare[1:].partition("/")[0]
    if not bare.startswith("/") or not first or first in OWN_PATHS:
        return False
    return is_post or is_priced(scope)
