"""Asking the upstream under a committed hold, and giving its answer to whoever carries it on.

Whoever has the hold settles it: here an exchange that came to no answer (released, at cost 0, and
only then the client hears of it), in `body.py` and `stream.py` one that did. A POST that may have
been sent is never repeated; one that provably was not, once.
"""

import asyncio
from typing import Final, NoReturn

from routstr.core.billing import judge
from routstr.core.outcome import Ending, Tally
from routstr.errors import RoutstrError, ServiceUnavailable
from routstr.flows.body import answer_whole
from routstr.flows.context import Context
from routstr.flows.exchange import Exchange
from routstr.flows.purchase import Purchase
from routstr.flows.receipts import receipt_headers
from routstr.flows.reserve import Reserved
from routstr.flows.settle import settle
from routstr.flows.stream import relay_stream
from routstr.gateways.upstream import Deadlines, UpstreamReply
from routstr.gateways.upstream_failure import (
    UpstreamFailure,
    UpstreamNotSent,
    UpstreamSlow,
    answer_for,
)

ATTEMPTS_MAX: Final = 2
ERROR_BODY_BYTES_MAX: Final = 256 * 1024
ERROR_BODY_TIMEOUT_S: Final = 10.0
JSON: Final = "application/json"
LONG_AGO_S: Final = 0.0  # on the loop's clock: a scope moved there ends at once


async def forward(ctx: Context, exchange: Exchange, purchase: Purchase, reserved: Reserved) -> None:
    """Bring the exchange to its end, its hold included. Raises what it came to without answer."""
    try:
        reply = await _ask(ctx, exchange, purchase, reserved)
    except _NotAnswered as failed:
        await _give_up(ctx, exchange, purchase, reserved, failed.ending, failed.error)
    ctx.failpoint("forward.answered")
    try:
        if not 200 <= reply.status < 300:
            await _pass_on_rejection(ctx, exchange, purchase, reserved, reply)
        elif purchase.order.stream and reply.content_type != JSON:
            await relay_stream(ctx, exchange, purchase, reserved, reply)
        else:
            await answer_whole(ctx, exchange, purchase, reserved, reply)
    finally:
        exchange.when_stopped(None)
        reply.close()


class _NotAnswered(Exception):
    """The upstream gave no head."""

    def __init__(self, ending: Ending, error: RoutstrError) -> None:
        super().__init__()
        self.ending = ending
        self.error = error


async def _ask(
    ctx: Context, exchange: Exchange, purchase: Purchase, reserved: Reserved
) -> UpstreamReply:
    """The answer's head. Raises _NotAnswered, also when the exchange was stopped meanwhile."""
    body = purchase.dialect.forward_body(
        purchase.order,
        forwarded_model_id=reserved.quote.model_id,
        output_limit=reserved.output_limit,
    )
    while True:
        if exchange.stopped is not None:
            raise _NotAnswered(exchange.stopped, gone(exchange.stopped))
        exchange.attempts += 1
        try:
            return await _post(ctx, exchange, purchase, reserved, body)
        except UpstreamNotSent as failure:
            if exchange.attempts >= ATTEMPTS_MAX:
                raise _NotAnswered(Ending.UPSTREAM_FAILED, answer_for(failure)) from failure
        except UpstreamFailure as failure:
            slow = isinstance(failure, UpstreamSlow)
            ending = Ending.STALLED if slow else Ending.UPSTREAM_FAILED
            raise _NotAnswered(ending, answer_for(failure)) from failure


async def _post(
    ctx: Context, exchange: Exchange, purchase: Purchase, reserved: Reserved, body: bytes
) -> UpstreamReply:
    """One try. A stop cancels the wait for the head, which closes the connection."""
    limits = ctx.limits
    try:
        async with asyncio.timeout(None) as patience:
            exchange.when_stopped(lambda: patience.reschedule(LONG_AGO_S))
            try:
                return await ctx.upstream.post(
                    path=purchase.dialect.path,
                    body=body,
                    headers=purchase.headers,
                    hold=reserved.hold,
                    deadlines=Deadlines(
                        connect_s=limits.upstream_connect_timeout_s,
                        first_byte_s=limits.upstream_first_byte_timeout_s,
                        idle_s=limits.upstream_idle_timeout_s,
                        total_s=limits.upstream_total_timeout_s,
                    ),
                )
            finally:
                exchange.when_stopped(None)
    except TimeoutError as error:
        stopped = exchange.stopped or Ending.CLIENT_LEFT
        raise _NotAnswered(stopped, gone(stopped)) from error


async def _pass_on_rejection(
    ctx: Context,
    exchange: Exchange,
    purchase: Purchase,
    reserved: Reserved,
    reply: UpstreamReply,
) -> None:
    """The upstream's 4xx or 5xx, in its own words where they are about the request."""
    exchange.when_stopped(reply.close)
    deadline = asyncio.get_running_loop().call_later(ERROR_BODY_TIMEOUT_S, reply.close)
    try:
        body = await reply.read_all(ERROR_BODY_BYTES_MAX)
    except UpstreamFailure:
        body = b""
    finally:
        deadline.cancel()
    is_rejection = 400 <= reply.status < 500
    ending = Ending.UPSTREAM_REJECTED if is_rejection else Ending.UPSTREAM_FAILED
    await _give_up(ctx, exchange, purchase, reserved, ending, reply.rejection(body))


async def _give_up(
    ctx: Context,
    exchange: Exchange,
    purchase: Purchase,
    reserved: Reserved,
    ending: Ending,
    error: RoutstrError,
) -> NoReturn:
    """Release the hold at cost 0, then raise the error."""
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
    raise error


def gone(ending: Ending) -> RoutstrError:
    """What an exchange that was stopped before its answer would be answered with."""
    if ending is Ending.NODE_STOPPED:
        return ServiceUnavailable("The node is shutting down. Nothing was charged.")
    return RoutstrError("The client left.")
