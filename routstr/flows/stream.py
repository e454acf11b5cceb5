"""A stream: its bytes pass while the meter counts them, and it is settled before its last event.

Laws: the client's connection is fed through a bounded queue and never waited for longer than it
stalls; estimates count what was handed to the client; the hold covers what is handed on, or the
stream ends cleanly; whatever happens, exactly one settlement precedes the terminal event.
"""

import asyncio
from dataclasses import replace
from typing import Final

from routstr.core.billing import judge
from routstr.core.dialects import StreamMeter
from routstr.core.envelope import error_object
from routstr.core.outcome import ERROR_OUTCOMES, Ending, Evidence, Outcome, Tally, Verdict
from routstr.core.receipt import comment_line, cost_members
from routstr.core.sse import EventTooLarge
from routstr.errors import (
    RoutstrError,
    ServiceUnavailable,
    UpstreamRequestFailed,
    UpstreamTimeout,
)
from routstr.flows.budget import Budget
from routstr.flows.context import Context
from routstr.flows.exchange import Answer, Exchange
from routstr.flows.oneshot import give_change
from routstr.flows.purchase import Purchase, paid_headers
from routstr.flows.queue import Chunk
from routstr.flows.reserve import Reserved
from routstr.flows.settle import Bill, SettlementLost, settle
from routstr.gateways.upstream import UpstreamReply
from routstr.gateways.upstream_failure import UpstreamFailure, UpstreamStalled

_PASSED_DOWN: Final = ("content-type", "openai-processing-ms")
_UNBUFFERED: Final = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}

# After `[DONE]` only the end of the HTTP body follows; reading it keeps the connection usable.
TAIL_TIMEOUT_S: Final = 1.0
TAIL_CHUNKS_MAX: Final = 8


async def relay_stream(
    ctx: Context,
    exchange: Exchange,
    purchase: Purchase,
    reserved: Reserved,
    reply: UpstreamReply,
) -> None:
    """Pass the stream on, settle, end it."""
    passed = {name: reply.headers[name] for name in _PASSED_DOWN if name in reply.headers}
    headers = passed | _UNBUFFERED | paid_headers(ctx, reserved)
    headers |= exchange.claim_headers()
    exchange.answer_with(Answer(status=reply.status, headers=headers, body=None))
    await _Relay(ctx, exchange, purchase, reserved, reply).run()


class _Relay:
    """One stream on its way."""

    def __init__(
        self,
        ctx: Context,
        exchange: Exchange,
        purchase: Purchase,
        reserved: Reserved,
        reply: UpstreamReply,
    ) -> None:
        self._ctx = ctx
        self._exchange = exchange
        self._order = purchase.order
        self._quote = reserved.quote
        self._reply = reply
        self._budget = Budget(ctx, reserved.hold, reserved.quote)
        self._text_bytes = 0
        self._dialect = purchase.dialect
        self._meter = self._new_meter(usage_asked=purchase.order.usage_asked)

    def _new_meter(self, *, usage_asked: bool) -> StreamMeter:
        return self._dialect.stream_meter(
            usage_asked=usage_asked,
            usage_cap=self._quote.usage_cap,
            event_bytes_max=self._ctx.limits.sse_event_bytes_max,
        )

    async def run(self) -> None:
        exchange, meter = self._exchange, self._meter
        exchange.when_stopped(self._stop_reading)
        ending = await self._pump()
        if not meter.is_over:
            self._reply.close()
        exchange.when_stopped(None)
        await self._budget.settled_down()
        self._ctx.failpoint("stream.ended")
        verdict = await self._verdict(ending)
        self._ctx.failpoint("stream.judged")
        try:
            bill = await settle(
                self._ctx,
                exchange,
                hold=self._budget.hold,
                quote=self._quote,
                verdict=verdict,
            )
        except SettlementLost as error:
            exchange.finish(meter.error_end(error_object(error), b""))
            return
        self._ctx.failpoint("stream.settled")
        change = None if exchange.one_shot is None else await give_change(self._ctx, exchange)
        exchange.finish(self._last_bytes(bill, change))
        await self._read_tail()

    # ── reading ───────────────────────────────────────────────────────────────────────────────

    async def _pump(self) -> Ending:
        """Pass chunks on until the stream ends, however it does."""
        exchange, meter = self._exchange, self._meter
        while True:
            try:
                chunk = await self._reply.read_chunk()
            except UpstreamFailure as failure:
                await self._hand_on(meter.close())
                broken = Ending.STALLED if isinstance(failure, UpstreamStalled) else Ending.CUT
                return self._stopped_or(broken)
            if chunk is None:
                await self._hand_on(meter.close())
                return self._whole()
            try:
                await self._hand_on(meter.feed(chunk))
            except EventTooLarge as error:
                await self._hand_on(error.ready)
                return self._stopped_or(Ending.CUT)
            if meter.is_over:
                return self._whole()
            if exchange.stopped is not None:
                continue  # only what is on its way is read
            if not await self._budget.covers(meter.output_tokens_estimate):
                return self._stopped_or(Ending.BUDGET_EXHAUSTED)

    def _stopped_or(self, ending: Ending) -> Ending:
        return self._exchange.stopped or ending

    def _whole(self) -> Ending:
        """It ended by itself; a client that left meanwhile makes it a drain."""
        has_left = self._exchange.stopped is Ending.CLIENT_LEFT
        return Ending.CLIENT_LEFT if has_left else Ending.WHOLE

    async def _hand_on(self, data: bytes) -> None:
        """Queue it with the count of the text in it; a full queue pauses the reading."""
        if not data:
            return
        tally = self._meter.tally
        if tally.finish_seen:  # some of what was counted is held back: count what is not
            self._text_bytes += self._text_bytes_in(data)
        else:
            self._text_bytes = tally.output_text_bytes
        await self._exchange.queue.put(
            Chunk(data=data, text_bytes=self._text_bytes, output_seen=tally.output_seen)
        )

    def _text_bytes_in(self, data: bytes) -> int:
        meter = self._new_meter(usage_asked=True)
        meter.feed(data)
        return meter.tally.output_text_bytes

    def _stop_reading(self) -> None:
        """Close the upstream: at once, or after the drain if only usage is still to come."""
        if self._exchange.stopped is Ending.CLIENT_LEFT and self._meter.finish_seen:
            loop = asyncio.get_running_loop()
            loop.call_later(self._ctx.limits.drain_timeout_s, self._reply.close)
        else:
            self._reply.close()

    async def _read_tail(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.call_later(TAIL_TIMEOUT_S, self._reply.close)
        try:
            for _ in range(TAIL_CHUNKS_MAX):
                if await self._reply.read_chunk() is None:
                    return
        except UpstreamFailure:
            return
        finally:
            deadline.cancel()

    # ── judging ───────────────────────────────────────────────────────────────────────────────

    async def _verdict(self, ending: Ending) -> Verdict:
        """The verdict; an estimate waits until what it counts was handed out."""
        queue = self._exchange.queue
        verdict = self._judge(ending)
        if verdict.evidence is Evidence.ESTIMATED and not queue.is_abandoned:
            await queue.emptied()
            if queue.is_abandoned:
                verdict = self._judge(Ending.CLIENT_LEFT)
        return verdict

    def _judge(self, ending: Ending) -> Verdict:
        return judge(
            ending,
            self._tally(),
            stream=True,
            begun=self._exchange.queue.handed_bytes > 0,
            prompt_text_bytes=self._order.prompt_text_bytes,
            output_tokens_max=self._quote.output_tokens_max,
        )

    def _tally(self) -> Tally:
        """What was metered, less what a client that left was never handed."""
        tally, queue = self._meter.tally, self._exchange.queue
        if not queue.is_abandoned:
            return tally
        return replace(
            tally,
            output_text_bytes=min(tally.output_text_bytes, queue.handed.text_bytes),
            output_seen=tally.output_seen and queue.handed.output_seen,
        )

    # ── ending ────────────────────────────────────────────────────────────────────────────────

    def _last_bytes(self, bill: Bill, change: str | None) -> bytes:
        """The held events with the cost, the comment, and the terminal event."""
        signed = None if bill.signed is None else bill.signed.document
        comment = comment_line(self._exchange.request_id, bill.receipt, change, signed)
        cost = cost_members(bill.receipt)
        usage = bill.verdict.usage
        outcome = bill.verdict.outcome
        if outcome in ERROR_OUTCOMES:
            error = _error_of(outcome)
            error.refund_token = change
            return self._meter.error_end(error_object(error), comment, cost=cost, usage=usage)
        if outcome is Outcome.BUDGET_EXHAUSTED:
            return self._meter.clean_end(usage, cost, comment)
        is_estimated = bill.verdict.evidence is Evidence.ESTIMATED
        return self._meter.finish(cost, comment, usage=usage if is_estimated else None)


def _error_of(outcome: Outcome) -> RoutstrError:
    """The error event's error; what was charged, the comment before it says."""
    if outcome is Outcome.STALLED:
        return UpstreamTimeout("The upstream fell silent.")
    if outcome is Outcome.NODE_STOPPED:
        return ServiceUnavailable("The node is shutting down.")
    return UpstreamRequestFailed("The upstream's answer broke off.")
