"""The hot path: POST /v1/chat/completions as a plain ASGI endpoint. Read this file first.

Every refusal that costs nothing comes before the exchange begins, the cheapest first. From there
on the money belongs to a task that no client can cancel (`flows/road.py`).
"""

import re
from collections.abc import Mapping
from typing import Final

from starlette.routing import BaseRoute, Match, Route
from starlette.types import Receive, Scope, Send

from routstr.core.order import parse_chat_order
from routstr.core.pricing import quote_of
from routstr.errors import (
    Pending,
    RouteNotPriced,
    RoutstrError,
    TokenAlreadySpent,
    UnsupportedMediaType,
)
from routstr.flows.authenticate import shown_credential
from routstr.flows.offer import payment_required
from routstr.flows.oneshot import check_payment
from routstr.flows.purchase import Purchase
from routstr.flows.road import begin, forwardable
from routstr.web.bodies import Bodies, ClientGone, headers_of
from routstr.web.errors import error_response
from routstr.web.scope import context_of, request_id_of
from routstr.web.streaming import respond

CHAT: Final = "/chat/completions"
PAYMENT: Final = "x-cashu"
_TOKEN: Final = re.compile(r"(?:cashu:)?cashu[AB][A-Za-z0-9_=-]+")
_JSON: Final = re.compile(
    r'application/json(?:[ \t]*;[ \t]*+(?:charset="?utf-8"?|(?!charset)[^;]*+))*', re.IGNORECASE
)


class ProxyEndpoint:
    """The paid road's door: one for all its routes, because it counts the bodies in flight."""

    def __init__(self) -> None:
        """No body yet."""
        self._bodies = Bodies()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        try:
            await self._sell(scope, receive, send)
        except ClientGone:
            return
        except RoutstrError as error:
            _echo_payment(error, scope)
            response = error_response(error, request_id=request_id_of(scope), path=scope["path"])
            await response(scope, receive, send)

    async def _sell(self, scope: Scope, receive: Receive, send: Send) -> None:
        ctx, headers = context_of(scope), headers_of(scope)
        path = _priced_path(scope["path"])
        check_media(headers)
        with self._bodies.reading(ctx) as reading:
            body = await reading.body(headers, receive)
            payment = headers.get(PAYMENT)
            shown = None if payment else shown_credential(ctx, headers)  # who
            order = parse_chat_order(body, depth_max=ctx.limits.json_depth_max)  # what
            quote = quote_of(order, ctx.catalog.find(order.model_id))  # at most how much
            credential = await check_payment(ctx, payment, quote) if payment else shown
            if credential is None:
                raise await payment_required(ctx, quote)
            purchase = Purchase(
                path=path,
                headers=forwardable(headers),
                credential=credential,
                order=order,
                quote=quote,
            )
            exchange = begin(ctx, purchase, request_id=request_id_of(scope))  # reserve … settle
            await respond(ctx, exchange, receive, send)


# ── the head ──────────────────────────────────────────────────────────────────────────────────


def _priced_path(path: str) -> str:
    """The upstream's path for ours. Raises RouteNotPriced for every one that is not sold."""
    if path.removeprefix("/v1") != CHAT:
        raise RouteNotPriced
    return CHAT


def check_media(headers: Mapping[str, str]) -> None:
    """Raises UnsupportedMediaType for all but plain JSON in UTF-8."""
    is_json = _JSON.fullmatch(headers.get("content-type", "")) is not None
    if not is_json or headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType


def _echo_payment(error: RoutstrError, scope: Scope) -> None:
    """Give the token back that nobody took: it is still money (contract, section 7)."""
    token = headers_of(scope).get(PAYMENT, "")
    was_taken = "X-Routstr-Claim-Secret" in error.headers
    if was_taken or isinstance(error, TokenAlreadySpent | Pending):
        return
    if _TOKEN.fullmatch(token):
        error.headers["X-Cashu"] = token


# ── the routes ────────────────────────────────────────────────────────────────────────────────


class _PostOnly(Route):
    """A catch-all that does not stand in the way of other methods: they are not found, not 405."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child_scope = super().matches(scope)
        return (match, child_scope) if match is Match.FULL else (Match.NONE, {})


def routes() -> list[BaseRoute]:
    """The road's routes; they come last, because they take every POST that nobody else took."""
    endpoint = ProxyEndpoint()
    return [
        Route(f"/v1{CHAT}", endpoint, methods=["POST"], name="chat_v1"),
        Route(CHAT, endpoint, methods=["POST"], name="chat"),
        _PostOnly("/v1/{path:path}", endpoint, methods=["POST"], name="paid_v1"),
        _PostOnly("/{path:path}", endpoint, methods=["POST"], name="paid"),
    ]
