"""The hot path: POST /v1/* as a plain ASGI endpoint. Read this file first.

Every refusal that costs nothing comes before the exchange begins, the cheapest first. From there
on the money belongs to a task that no client can cancel (`flows/road.py`).
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Final

from starlette.routing import BaseRoute, Match, Route
from starlette.types import Receive, Scope, Send

from routstr.core.dialects import CHAT, DIALECTS, Dialect
from routstr.core.order import Order
from routstr.core.quote import Quote, quote_of
from routstr.errors import (
    MissingApiKey,
    Pending,
    RouteNotPriced,
    RoutstrError,
    TokenAlreadySpent,
    UnsupportedMediaType,
)
from routstr.flows.authenticate import shown_credential
from routstr.flows.candidates import candidates_for
from routstr.flows.catalog import Candidate, Listing
from routstr.flows.context import Context
from routstr.flows.offer import payment_required
from routstr.flows.oneshot import check_payment
from routstr.flows.purchase import Purchase
from routstr.flows.repeat import claim_of, idempotency_key
from routstr.flows.road import begin, forwardable
from routstr.web.bodies import Bodies, ClientGone, headers_of
from routstr.web.errors import error_response
from routstr.web.scope import context_of, request_id_of
from routstr.web.streaming import respond

PAYMENT: Final = "x-cashu"
_TOKEN: Final = re.compile(r"(?:cashu:)?cashu[AB][A-Za-z0-9_=-]+")
_JSON: Final = re.compile(
    r'application/json(?:[ \t]*;[ \t]*+(?:charset="?utf-8"?|(?!charset)[^;]*+))*', re.IGNORECASE
)

_MULTIPART: Final = re.compile(r"multipart/form-data[ \t]*;.+", re.IGNORECASE)


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
        dialect = dialect_at(scope["path"])
        check_media(headers, dialect)
        payment = headers.get(PAYMENT)
        repeat = None if payment else idempotency_key(ctx, headers)
        with self._bodies.reading(ctx) as reading:
            body = await reading.body(headers, receive)
            shown = None if payment else shown_credential(ctx, headers)  # who
            order = parse_order(ctx, dialect, headers, body)  # what
            listing = ctx.catalog.listing(order.model_id, dialect.path)
            quote = quote_of(order, listing.model)  # at most how much
            candidates = who_serves(ctx, listing, dialect, order, quote)
            credential = await check_payment(ctx, payment, quote) if payment else shown
            if credential is None:
                raise await payment_required(ctx, quote) if quote.total_msat else MissingApiKey()
            purchase = Purchase(
                headers=forwardable(headers, order),
                credential=credential,
                dialect=dialect,
                order=order,
                quote=quote,
                candidates=candidates,
                request_sha256=hashlib.sha256(body).hexdigest(),
                claim=claim_of(ctx, repeat, dialect, headers, body),
            )
            exchange = begin(ctx, purchase, request_id=request_id_of(scope))  # reserve … settle
            await respond(ctx, exchange, receive, send)


# ── the head ──────────────────────────────────────────────────────────────────────────────────


def dialect_at(path: str) -> Dialect:
    """The dialect of one of our paths. Raises RouteNotPriced for every one that is not sold."""
    dialect = DIALECTS.get(path.removeprefix("/v1"))
    if dialect is None:
        raise RouteNotPriced
    return dialect


def parse_order(ctx: Context, dialect: Dialect, headers: Mapping[str, str], body: bytes) -> Order:
    """The order in a body; raises as `Dialect.parse`."""
    content_type = headers.get("content-type", "")
    return dialect.parse(body, content_type=content_type, depth_max=ctx.limits.json_depth_max)


def who_serves(
    ctx: Context, listing: Listing, dialect: Dialect, order: Order, quote: Quote
) -> tuple[Candidate, ...]:
    """Who may be asked. Raises InvalidModel if nobody speaks this dialect."""
    loss_ppm_max = ctx.limits.failover_loss_ppm_max
    return candidates_for(listing, order, quote, path=dialect.path, loss_ppm_max=loss_ppm_max)


def check_media(headers: Mapping[str, str], dialect: Dialect) -> None:
    """Raises UnsupportedMediaType for all but plain JSON in UTF-8, or what the dialect speaks."""
    pattern = _JSON if dialect.media == "json" else _MULTIPART
    is_spoken = pattern.fullmatch(headers.get("content-type", "")) is not None
    if not is_spoken or headers.get("content-encoding", "identity").lower() != "identity":
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
        Route(f"/v1{CHAT.path}", endpoint, methods=["POST"], name="chat_v1"),
        Route(CHAT.path, endpoint, methods=["POST"], name="chat"),
        _PostOnly("/v1/{path:path}", endpoint, methods=["POST"], name="paid_v1"),
        _PostOnly("/{path:path}", endpoint, methods=["POST"], name="paid"),
    ]
