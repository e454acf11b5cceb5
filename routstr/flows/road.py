"""The paid road: reserve, forward, meter, settle, in one task that no client can cancel."""

from collections.abc import Mapping

from routstr.core import betas
from routstr.core.order import Order
from routstr.ecash.token import Token
from routstr.errors import InvalidParameter, RoutstrError
from routstr.flows.authenticate import Credential, identify
from routstr.flows.context import Context
from routstr.flows.exchange import Answer, Exchange
from routstr.flows.forward import forward
from routstr.flows.oneshot import refund, take_payment
from routstr.flows.purchase import Purchase
from routstr.flows.queue import ChunkQueue
from routstr.flows.reserve import reserve
from routstr.gateways.upstream_headers import ROUTE_UP, UP, is_clean_value


def begin(ctx: Context, purchase: Purchase, *, request_id: str) -> Exchange:
    """Start the exchange in a task of the node's own; the request's id is also its hold's."""
    queue = ChunkQueue(
        chunks_max=ctx.limits.stream_queue_chunks_max, bytes_max=ctx.limits.stream_queue_bytes_max
    )
    exchange = Exchange(
        request_id=request_id,
        request_sha256=purchase.request_sha256,
        queue=queue,
        dialect=purchase.dialect,
    )
    ctx.admission.begin()
    if not _waits_for_mint(purchase.credential):
        ctx.admission.enter(request_id, ctx.monotonic_s())
    ctx.tasks.start(_travel(ctx, exchange, purchase), name=request_id)
    return exchange


def forwardable(headers: Mapping[str, str], order: Order) -> dict[str, str]:
    """The caller's headers, names in lower case, that may go upstream; a form has our boundary.

    Raises InvalidParameter for a value that no header can carry, UnsupportedParameter for a beta
    that changes the price, before any money is held.
    """
    names = ROUTE_UP if order.is_opaque else UP
    passed = {name: headers[name] for name in names if name in headers}
    for name, value in passed.items():
        if not is_clean_value(value):
            raise InvalidParameter("A header has a value this node cannot forward.", param=name)
    if betas.HEADER in passed:
        passed[betas.HEADER] = betas.passed_betas(passed[betas.HEADER])
    if order.content_type:
        passed["content-type"] = order.content_type
    elif order.is_opaque:
        passed.setdefault("content-type", "application/octet-stream")
    return {name: value for name, value in passed.items() if value or name != betas.HEADER}


def _waits_for_mint(credential: Credential | Token) -> bool:
    """Whether a token has to be accepted first: then it is not the node that takes the time."""
    return isinstance(credential, Token) or credential.token_text is not None


async def _travel(ctx: Context, exchange: Exchange, purchase: Purchase) -> None:
    try:
        if isinstance(purchase.credential, Token):
            caller = await take_payment(ctx, exchange, purchase.credential)
        else:
            caller = await identify(ctx, purchase.credential)
        reserved = await reserve(
            ctx, exchange, caller, purchase.order, purchase.quote, purchase.claim
        )
        ctx.admission.leave(exchange.request_id, ctx.monotonic_s())
        if isinstance(reserved, Answer):  # this request was bought before
            exchange.answer_with(reserved)
        else:
            await forward(ctx, exchange, purchase, reserved)
    except RoutstrError as error:
        if not exchange.api_key_id:
            ctx.meters.note_refused(error.code)
        if exchange.one_shot is not None:
            await refund(ctx, exchange, error)
        exchange.refuse(error)
    finally:
        ctx.admission.leave(exchange.request_id, ctx.monotonic_s())
        ctx.admission.end()
        # No money here: a hold that was not settled ends with its lease.
        ctx.holds.remove(exchange.request_id)
        if exchange.one_shot is not None:
            ctx.one_shots.discard(exchange.one_shot.account_id)
        exchange.close()
