"""The hot path: POST /v1/*, and every priced route, as a plain ASGI endpoint. Read this file first.

Every refusal that costs nothing comes before the exchange begins, the cheapest first. From there
on the money belongs to a task that no client can cancel (`flows/road.py`).
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from starlette.routing import BaseRoute, Match, Route
from starlette.types import Receive, Scope, Send

from routstr.core.dialects import CHAT, DIALECTS, Dialect
from routstr.core.dialects.route import RouteDialect
from routstr.core.order import Order
from routstr.core.quote import Quote, quote_of
from routstr.errors import (
    MissingApiKey,
    Overloaded,
    Pending,
    RouteNotPriced,
    RoutstrError,
    TokenAlreadySpent,
    UnsupportedMediaType,
)
from routstr.flows.authenticate import shown_credential
from routstr.flows.candidates import candidates_for
from routstr.flows.catalog import Candidate, Listing, sold_route
from routstr.flows.catalog import Route as PricedRoute
from routstr.flows.context import Context
from routstr.flows.long_bodies import takes_long
from routstr.flows.offer import payment_required
from routstr.flows.oneshot import check_payment
from routstr.flows.operate import check_spending
from routstr.flows.purchase import Purchase
from routstr.flows.repeat import claim_of, idempotency_key
from routstr.flows.road import begin, forwardable
from routstr.web.bodies import Bodies, ClientGone, headers_of
from routstr.web.errors import error_response
from routstr.web.scope import context_of, request_id_of
from routstr.web.streaming import respond
from routstr.web.wire import wire_of

PAYMENT: Final = "x-cashu"
_TOKEN: Final = re.compile(r"(?:cashu:)?cashu[AB][A-Za-z0-9_=-]+")
_JSON: Final = re.compile(
    r'application/json(?:[ \t]*;[ \t]*+(?:charset="?utf-8"?|(?!charset)[^;]*+))*', re.IGNORECASE
)

_SPOKEN: Final = {
    "json": _JSON,
    "multipart": re.compile(r"multipart/form-data[ \t]*;.+", re.IGNORECASE),
    "any": re.compile(r".*"),
}
ROUTE_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")


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
            if not scope["state"].get("is_begun"):
                context_of(scope).meters.note_refused(error.code)
            _echo_payment(error, scope)
            response = error_response(error, request_id=request_id_of(scope), path=scope["path"])
            await response(scope, receive, send)

    async def _sell(self, scope: Scope, receive: Receive, send: Send) -> None:
        ctx, headers = context_of(scope), headers_of(scope)
        if ctx.admission.is_full:
            raise Overloaded
        sale = sale_at(ctx, scope["method"], scope["path"], scope["query_string"].decode("latin-1"))
        check_media(headers, sale.dialect)
        payment = headers.get(PAYMENT)
        repeat = None if payment else idempotency_key(ctx, headers)
        if repeat is None:
            check_spending(ctx)
        wire = wire_of(scope)
        with self._bodies.reading(ctx) as reading:
            body = await reading.body(headers, receive, wire)
            shown = None if payment else shown_credential(ctx, headers)  # who
            order = await read_order(ctx, sale.dialect, headers, body)  # what
            listing = sale.route or ctx.catalog.listing(order.model_id, sale.dialect.path)
            quote = quote_of(order, listing.model)  # at most how much
            candidates = who_serves(ctx, listing, sale.dialect, order, quote)
            credential = await check_payment(ctx, payment, quote) if payment else shown
            if credential is None:
                raise await payment_required(ctx, quote) if quote.total_msat else MissingApiKey()
            purchase = Purchase(
                headers=forwardable(headers, order),
                credential=credential,
                dialect=sale.dialect,
                order=order,
                quote=quote,
                candidates=candidates,
                request_sha256=hashlib.sha256(body).hexdigest(),
                claim=claim_of(
                    ctx, repeat, sale.dialect, headers, body, path=sale.name, query=order.query
                ),
            )
            scope["state"]["is_begun"] = True
            exchange = begin(ctx, purchase, request_id=request_id_of(scope))  # reserve … settle
            await respond(ctx, exchange, receive, send, wire)


# ── the head ──────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class Sale:
    """What one of our paths sells: a dialect's models, or a route by the request.

    `name` is what a repeat must name again.
    """

    dialect: Dialect
    name: str
    route: Listing | None = None


def sale_at(ctx: Context, method: str, path: str, query: str = "") -> Sale:
    """What is sold there. Raises RouteNotPriced for every path that is not, letter for letter.

    Of the path, as the server decoded it, nothing reaches the upstream; `query` goes to a route.
    """
    dialect = DIALECTS.get(path.removeprefix("/v1")) if method == "POST" else None
    if dialect is not None:
        return Sale(dialect=dialect, name=dialect.path)
    route = priced_route(ctx, method, path)
    if route is None:
        raise RouteNotPriced
    listing = sold_route(route)
    name = listing.model.id
    return Sale(
        dialect=RouteDialect(
            name=name, method=method, upstream_path=route.upstream_path, query=query
        ),
        name=name,
        route=listing,
    )


def priced_route(ctx: Context, method: str, path: str) -> PricedRoute | None:
    """The route of that path, with or without `/v1` in front of it."""
    bare = path.removeprefix("/v1")
    if bare.startswith("/v1/") or not bare.startswith("/"):
        return None
    return ctx.catalog.route(method, f"/v1{bare}") or ctx.catalog.route(method, bare)


async def read_order(
    ctx: Context, dialect: Dialect, headers: Mapping[str, str], body: bytes
) -> Order:
    """The order in a body; raises as `Dialect.parse`, and Overloaded."""
    parse = partial(
        dialect.parse,
        body,
        content_type=headers.get("content-type", ""),
        depth_max=ctx.limits.json_depth_max,
    )
    return await ctx.long_bodies.run(parse) if takes_long(body) else parse()


def who_serves(
    ctx: Context, listing: Listing, dialect: Dialect, order: Order, quote: Quote
) -> tuple[Candidate, ...]:
    """Who may be asked. Raises InvalidModel if nobody speaks this dialect."""
    loss_ppm_max = ctx.limits.failover_loss_ppm_max
    return candidates_for(listing, order, quote, path=dialect.path, loss_ppm_max=loss_ppm_max)


def check_media(headers: Mapping[str, str], dialect: Dialect) -> None:
    """Raises UnsupportedMediaType for all but plain JSON in UTF-8, or what the dialect speaks."""
    is_spoken = _SPOKEN[dialect.media].fullmatch(headers.get("content-type", "")) is not None
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


class _PricedOnly(Route):
    """Takes what is sold by the request, and stands in the way of nothing else."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child_scope = super().matches(scope)
        if match is not Match.FULL or not is_priced(scope):
            return (Match.NONE, {})
        return (match, child_scope)


def is_priced(scope: Scope) -> bool:
    """Whether a route is sold there, even if not at this moment."""
    try:
        return priced_route(context_of(scope), scope["method"], scope["path"]) is not None
    except RoutstrError:
        return True


def routes(endpoint: ProxyEndpoint) -> list[BaseRoute]:
    """The road's routes; they come last, because they take every POST that nobody else took."""
    return [
        Route(f"/v1{CHAT.path}", endpoint, methods=["POST"], name="chat_v1"),
        Route(CHAT.path, endpoint, methods=["POST"], name="chat"),
        _PostOnly("/v1/{path:path}", endpoint, methods=["POST"], name="paid_v1"),
        _PostOnly("/{path:path}", endpoint, methods=["POST"], name="paid"),
        _PricedOnly("/{path:path}", endpoint, methods=ROUTE_METHODS, name="priced"),
    ]
