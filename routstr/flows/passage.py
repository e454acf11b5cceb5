"""A stream that nobody reads here: its bytes pass as they come, and it costs a request if it ends.

Laws: the settlement comes before the answer's end; a stream that broke off costs nothing, and its
client sees that it did, because the answer is never brought to an end. Who leaves shortly before
the end has had it all: the rest is waited for a moment.
"""

import asyncio
from typing import Final

from routstr.core.billing import judge
from routstr.core.dialects.route import WHOLE
from routstr.core.outcome import Ending, Tally
from routstr.errors import RoutstrError, UpstreamRequestFailed
from routstr.flows.context import Context
from routstr.flows.exchange import Answer, Exchange
from routstr.flows.purchase import Purchase, paid_headers
from routstr.flows.queue import Chunk
from routstr.flows.reserve import Reserved
from routstr.flows.settle import settle
from routstr.flows.turns import Turns
from routstr.gateways.upstream import UpstreamReply
from routstr.gateways.upstream_failure import UpstreamFailure, UpstreamStalled

_PASSED_DOWN: Final = ("content-type",)
_UNBUFFERED: Final = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


async def relay_unread(
    ctx: Context,
    exchange: Exchange,
    purchase: Purchase,
    reserved: Reserved,
    turns: Turns,
    reply: UpstreamReply,
) -> bool:
    """Pass the stream on, settle, end it. Raises the RoutstrError that it broke off with."""
    passed = {name: reply.headers[name] for name in _PASSED_DOWN if name in reply.headers}
    headers = (
        passed | _UNBUFFERED | paid_headers(ctx, exchange, reserved) | exchange.claim_headers()
    )
    exchange.answer_with(Answer(status=reply.status, headers=headers, body=None, is_raw=True))
    loop = asyncio.get_running_loop()

    def stop_reading() -> None:
        if exchange.stopped is Ending.CLIENT_LEFT and exchange.queue.handed_bytes:
            loop.call_later(ctx.limits.drain_timeout_s, reply.close)
        else:
            reply.close()

    exchange.when_stopped(stop_reading)
    ending = await _pump(exchange, reply)
    exchange.watch.heard()
    exchange.when_stopped(None)
    is_whole = ending is Ending.WHOLE
    if is_whole and exchange.stopped is Ending.CLIENT_LEFT:
        ending = Ending.CLIENT_LEFT
    verdict = judge(
        ending,
        WHOLE if is_whole else Tally(),
        stream=False,
        begun=exchange.queue.handed_bytes > 0,
        prompt_text_bytes=0,
        output_tokens_max=0,
    )
    turns.judged(verdict)
    ctx.failpoint("passage.judged")
    await settle(ctx, exchange, hold=reserved.hold, quote=reserved.quote, verdict=verdict)
    ctx.failpoint("passage.settled")
    if not is_whole:
        raise _broken(ending)
    exchange.finish(b"")
    return True


async def _pump(exchange: Exchange, reply: UpstreamReply) -> Ending:
    """Pass chunks on until the stream ends, however it does."""
    try:
        while (chunk := await reply.read_chunk()) is not None:
            exchange.watch.began_to_answer()
            await exchange.queue.put(Chunk(data=chunk))
    except UpstreamFailure as failure:
        broken = Ending.STALLED if isinstance(failure, UpstreamStalled) else Ending.CUT
        return exchange.stopped or broken
    return Ending.WHOLE


def _broken(ending: Ending) -> RoutstrError:
    return UpstreamRequestFailed(f"The answer broke off ({ending.value}); nothing was charged.")
