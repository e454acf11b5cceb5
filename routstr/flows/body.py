"""A whole JSON answer: read, metered, settled, and only then handed to the client.

Laws: an answer that did not become whole costs nothing; the client gets the upstream's bytes with
the cost in their `usage`, after the commit that charged it.
"""

import asyncio
from dataclasses import dataclass, replace
from typing import Final

from routstr.core.billing import judge
from routstr.core.outcome import Ending, Evidence, Outcome, Tally, Verdict
from routstr.errors import (
    RETRY_AFTER_S,
    RoutstrError,
    ServiceUnavailable,
    UpstreamRejected,
    UpstreamRequestFailed,
    UpstreamTimeout,
)
from routstr.flows.context import Context
from routstr.flows.exchange import Answer, Exchange
from routstr.flows.kept import is_keepable, priced
from routstr.flows.oneshot import give_change
from routstr.flows.purchase import Purchase, paid_headers
from routstr.flows.receipts import receipt_headers
from routstr.flows.reserve import Reserved
from routstr.flows.settle import settle
from routstr.flows.turns import Turns, came_to_nothing
from routstr.gateways.upstream import UpstreamReply
from routstr.gateways.upstream_failure import UpstreamFailure, UpstreamStalled

JSON: Final = "application/json"
_PASSED_DOWN: Final = ("content-type", "openai-processing-ms")

# What a client may have; everything else is answered with an error.
_ANSWERS: Final = frozenset(
    {
        Outcome.COMPLETED,
        Outcome.COMPLETED_NO_USAGE,
        Outcome.EMPTY,
        Outcome.OVER_RESERVE,
        Outcome.USAGE_INSANE,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """A body as far as it came; `body` is empty unless `is_whole`."""

    ending: Ending
    body: bytes
    is_whole: bool
    has_begun: bool


async def answer_whole(
    ctx: Context,
    exchange: Exchange,
    purchase: Purchase,
    reserved: Reserved,
    turns: Turns,
    reply: UpstreamReply,
) -> bool:
    """Read the answer to its end, settle, and answer with it; raises an error that cost nothing.

    False: it came to nothing, and somebody else is asked.
    """
    quote = reserved.quote
    read = await _read(ctx, exchange, reply)
    tally = _tally(purchase, reply, read, quote.usage_cap)
    verdict = judge(
        read.ending,
        tally,
        stream=False,
        begun=read.has_begun,
        prompt_text_bytes=purchase.order.prompt_text_bytes,
        output_tokens_max=quote.output_tokens_max,
    )
    ctx.failpoint("forward.metered")
    refused = _refused(reply, read) if tally.error_seen else None
    if refused is not None:
        verdict = replace(verdict, outcome=Outcome.UPSTREAM_REJECTED)
    turns.judged(verdict)
    if came_to_nothing(verdict, tally) and turns.go_on():
        return False
    headers = {name: reply.headers[name] for name in _PASSED_DOWN if name in reply.headers}
    headers |= paid_headers(ctx, exchange, reserved)
    answer = Answer(status=reply.status, headers=headers, body=read.body)
    bill = await settle(
        ctx,
        exchange,
        hold=reserved.hold,
        quote=quote,
        verdict=verdict,
        keep=answer if _is_kept(purchase, reply, read, verdict) else None,
    )
    if bill.verdict.outcome not in _ANSWERS:
        error = refused or _failed(bill.verdict.outcome, reply)
        error.headers |= receipt_headers(bill.signed)
        raise error
    change = None if exchange.one_shot is None else await give_change(ctx, exchange)
    said = {**receipt_headers(bill.signed), **exchange.claim_headers(change)}
    exchange.answer_with(priced(purchase.dialect, answer, bill.receipt, said))
    return True


def _refused(reply: UpstreamReply, read: _Read) -> UpstreamRejected | None:
    """The upstream's error, said with a 2xx, if the request itself is at fault."""
    error = reply.rejection(read.body)
    return error if isinstance(error, UpstreamRejected) else None


def _is_kept(purchase: Purchase, reply: UpstreamReply, read: _Read, verdict: Verdict) -> bool:
    """Whether a repeat gets this: JSON for the client, or for one that left and was charged."""
    if purchase.claim is None:
        return False
    is_json = reply.content_type == JSON and is_keepable(read.body)
    was_charged = verdict.outcome is Outcome.CLIENT_LEFT and verdict.evidence is not Evidence.NONE
    is_answer = verdict.outcome in _ANSWERS or was_charged
    return is_json and is_answer


def _tally(purchase: Purchase, reply: UpstreamReply, read: _Read, usage_cap: int) -> Tally:
    """What the meter saw of an answer that became whole; of any other, nothing."""
    if not read.is_whole:
        return Tally()
    return purchase.dialect.meter_body(
        read.body, order=purchase.order, content_type=reply.content_type, usage_cap=usage_cap
    )


async def _read(ctx: Context, exchange: Exchange, reply: UpstreamReply) -> _Read:
    """Read all of it. A client that leaves ends it, at once or, once it began, after the drain."""
    loop = asyncio.get_running_loop()
    pieces = bytearray()

    def stop_reading() -> None:
        if exchange.stopped is Ending.CLIENT_LEFT and pieces:
            loop.call_later(ctx.limits.drain_timeout_s, reply.close)
        else:
            reply.close()

    exchange.when_stopped(stop_reading)
    ending, is_whole = Ending.WHOLE, True
    try:
        while (chunk := await reply.read_chunk()) is not None:
            pieces += chunk
            if len(pieces) > ctx.limits.answer_bytes_max:
                ending, is_whole = Ending.CUT, False
                break
    except UpstreamFailure as failure:
        broken = Ending.STALLED if isinstance(failure, UpstreamStalled) else Ending.CUT
        ending, is_whole = exchange.stopped or broken, False
    exchange.watch.heard()
    if exchange.one_shot is None:  # whose change may have to wait for a mint
        ctx.admission.enter(exchange.request_id, ctx.monotonic_s())
    exchange.when_stopped(None)
    if is_whole and exchange.stopped is Ending.CLIENT_LEFT:
        ending = Ending.CLIENT_LEFT
    return _Read(
        ending=ending,
        body=bytes(pieces) if is_whole else b"",
        is_whole=is_whole,
        has_begun=bool(pieces),
    )


def _failed(outcome: Outcome, reply: UpstreamReply) -> RoutstrError:
    """The error for an outcome that gives the client nothing, and cost nothing."""
    if outcome is Outcome.STALLED:
        return UpstreamTimeout(upstream_status=reply.status, retry_after_s=RETRY_AFTER_S)
    if outcome is Outcome.NODE_STOPPED:
        return ServiceUnavailable("The node is shutting down. Nothing was charged.")
    return UpstreamRequestFailed(upstream_status=reply.status, retry_after_s=RETRY_AFTER_S)
