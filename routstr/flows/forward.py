"""Asking upstreams under a committed hold, and giving an answer to whoever carries it on.

Whoever has the hold settles it: here an exchange that came to no answer (released, at cost 0, and
only then the client hears of it), in `body.py` and `stream.py` one that did. Before the client has
a byte, an attempt that failed may be followed by one at somebody else (`turns.py`).
"""

import asyncio
from typing import Final

from routstr.core.billing import judge
from routstr.core.outcome import Ending, Tally
from routstr.errors import RoutstrError, ServiceUnavailable, UpstreamError, UpstreamRejected
from routstr.flows.body import answer_whole
from routstr.flows.context import Context
from routstr.flows.exchange import Exchange
from routstr.flows.passage import relay_unread
from routstr.flows.purchase import Purchase
from routstr.flows.receipts import receipt_headers
from routstr.flows.reserve import Reserved
from routstr.flows.settle import settle
from routstr.flows.stream import relay_stream
from routstr.flows.turns import ACCOUNT, ASKED_AGAIN, Turns
from routstr.gateways.upstream import Deadlines, UpstreamReply
from routstr.gateways.upstream_failure import (
    UpstreamFailure,
    UpstreamGarbled,
    UpstreamLost,
    UpstreamNotSent,
    UpstreamSlow,
    answer_for,
)

ERROR_BODY_BYTES_MAX: Final = 256 * 1024
ERROR_BODY_TIMEOUT_S: Final = 10.0
JSON: Final = "application/json"
EVENTS: Final = "text/event-stream"
LONG_AGO_S: Final = 0.0  # on the loop's clock: a scope moved there ends at once


async def forward(ctx: Context, exchange: Exchange, purchase: Purchase, reserved: Reserved) -> None:
    """Bring the exchange to its end, its hold included. Raises what it came to without answer."""
    turns = Turns(ctx, exchange, purchase.candidates)
    try:
        try:
            turns.start()
        except UpstreamError as error:
            ending = Ending.UPSTREAM_FAILED
            raise await _given_up(ctx, exchange, purchase, reserved, ending, error) from None
        while not await _attempt(ctx, exchange, purchase, reserved, turns):
            pass
    finally:
        turns.close()


async def _attempt(
    ctx: Context, exchange: Exchange, purchase: Purchase, reserved: Reserved, turns: Turns
) -> bool:
    """Ask the candidate whose turn it is. False: to no avail, and the next attempt has begun."""
    try:
        reply = await _ask(ctx, exchange, purchase, reserved, turns)
    except _Stopped as stop:
        error = gone(stop.ending)
        raise await _given_up(ctx, exchange, purchase, reserved, stop.ending, error) from stop
    except UpstreamFailure as failure:
        turns.failed(failure.kind, is_unreachable=_is_unreachable(failure))
        if turns.go_on(same=isinstance(failure, UpstreamNotSent)):
            return False
        slow = isinstance(failure, UpstreamSlow)
        ending = Ending.STALLED if slow else Ending.UPSTREAM_FAILED
        ending = exchange.stopped or ending
        error = answer_for(failure) if exchange.stopped is None else gone(ending)
        raise await _given_up(ctx, exchange, purchase, reserved, ending, error) from failure
    ctx.failpoint("forward.answered")
    try:
        if not 200 <= reply.status < 300:
            return await _pass_on_rejection(ctx, exchange, purchase, reserved, turns, reply)
        turns.attempt.began()
        carry = answer_whole
        if purchase.order.is_opaque and reply.content_type == EVENTS:
            carry = relay_unread
        elif purchase.order.stream and reply.content_type != JSON:
            carry = relay_stream
        return await carry(ctx, exchange, purchase, reserved, turns, reply)
    finally:
        exchange.when_stopped(None)
        reply.close()


def _is_unreachable(failure: UpstreamFailure) -> bool:
    """Whether nobody there can be asked for anything; slow or garbled may be one model alone."""
    is_answer = isinstance(failure, UpstreamGarbled | UpstreamSlow)
    return isinstance(failure, UpstreamNotSent | UpstreamLost) and not is_answer


class _Stopped(Exception):
    """The exchange was stopped while nobody had answered."""

    def __init__(self, ending: Ending) -> None:
        super().__init__()
        self.ending = ending


async def _ask(
    ctx: Context, exchange: Exchange, purchase: Purchase, reserved: Reserved, turns: Turns
) -> UpstreamReply:
    """The answer's head. Raises UpstreamFailure, and _Stopped when there is no use in it."""
    if exchange.stopped is not None:
        raise _Stopped(exchange.stopped)
    body = purchase.dialect.forward_body(
        purchase.order,
        forwarded_model_id=turns.candidate.forwarded_model_id,
        output_limit=reserved.output_limit,
    )
    exchange.attempts += 1
    return await _post(ctx, exchange, purchase, reserved, turns, body)


async def _post(
    ctx: Context,
    exchange: Exchange,
    purchase: Purchase,
    reserved: Reserved,
    turns: Turns,
    body: bytes,
) -> UpstreamReply:
    """One try. A stop cancels the wait for the head, which closes the connection."""
    try:
        async with asyncio.timeout(None) as patience:
            exchange.when_stopped(lambda: patience.reschedule(LONG_AGO_S))
            try:
                ctx.admission.forget(exchange.request_id)  # it waits for the upstream now
                exchange.watch.asked()
                return await turns.attempt.client.request(
                    method=purchase.order.method,
                    path=purchase.dialect.path,
                    query=purchase.order.query,
                    body=body,
                    headers=purchase.headers,
                    hold=reserved.hold,
                    deadlines=_deadlines(ctx, purchase, turns),
                )
            finally:
                exchange.watch.heard()
                exchange.when_stopped(None)
    except TimeoutError as error:
        raise _Stopped(exchange.stopped or Ending.CLIENT_LEFT) from error


def _deadlines(ctx: Context, purchase: Purchase, turns: Turns) -> Deadlines:
    """What is left of the time; a stream that others could serve is not waited for as long."""
    limits = ctx.limits
    first_byte_s = limits.upstream_first_byte_timeout_s
    if purchase.order.stream and turns.has_other():
        first_byte_s = min(first_byte_s, limits.upstream_first_token_timeout_s)
    return Deadlines(
        connect_s=limits.upstream_connect_timeout_s,
        first_byte_s=first_byte_s,
        idle_s=limits.upstream_idle_timeout_s,
        total_s=turns.left_s(),
    )


async def _pass_on_rejection(
    ctx: Context,
    exchange: Exchange,
    purchase: Purchase,
    reserved: Reserved,
    turns: Turns,
    reply: UpstreamReply,
) -> bool:
    """The upstream's 4xx or 5xx, in its own words where they are about the request.

    False: it is not, and somebody else is asked.
    """
    exchange.when_stopped(reply.close)
    deadline = asyncio.get_running_loop().call_later(ERROR_BODY_TIMEOUT_S, reply.close)
    try:
        body = await reply.read_all(ERROR_BODY_BYTES_MAX)
    except UpstreamFailure:
        body = b""
    finally:
        deadline.cancel()
        exchange.watch.heard()
    error = reply.rejection(body)
    is_rejection = 400 <= reply.status < 500 or isinstance(error, UpstreamRejected)
    if isinstance(error, UpstreamRejected):
        turns.attempt.succeeded()
    else:
        turns.failed(
            f"status_{reply.status}",
            status=reply.status,
            told_wait_s=reply.retry_after_s,
            is_final=reply.status in ACCOUNT,
        )
        # What a route does is not known here: doing it twice may be worse than not at all.
        again = reply.status in ASKED_AGAIN and not purchase.order.is_opaque
        if turns.go_on(same=again):
            return False
    ending = Ending.UPSTREAM_REJECTED if is_rejection else Ending.UPSTREAM_FAILED
    raise await _given_up(ctx, exchange, purchase, reserved, ending, error)


async def _given_up(
    ctx: Context,
    exchange: Exchange,
    purchase: Purchase,
    reserved: Reserved,
    ending: Ending,
    error: RoutstrError,
) -> RoutstrError:
    """Release the hold at cost 0; gives the error to raise then."""
    verdict = judge(
        ending,
        Tally(),
        stream=purchase.order.stream,
        begun=False,
        prompt_text_bytes=purchase.order.prompt_text_bytes,
        output_tokens_max=reserved.quote.output_tokens_max,
    )
    bill = await settle(ctx, exchange, hold=reserved.hold, quote=reserved.quote, verdict=verdict)
    error.headers |= receipt_headers(bill.signed)
    return error


def gone(ending: Ending) -> RoutstrError:
    """What an exchange that was stopped before its answer would be answered with."""
    if ending is Ending.NODE_STOPPED:
        return ServiceUnavailable("The node is shutting down. Nothing was charged.")
    return RoutstrError("The client left.")
