"""A stream: its bytes pass while the meter counts them, and it is settled before its last event.

Laws: the client's connection is fed through a bounded queue and never waited for longer than it
stalls; estimates count what was handed to the client; the hold covers what is handed on, or the
stream ends cleanly; whatever happens, exactly one settlement precedes the terminal event.
"""

import asyncio
from dataclasses import replace
from typing import Final

import orjson

from routstr.core.billing import judge
from routstr.core.dialects import StreamMeter
from routstr.core.envelope import error_object
from routstr.core.outcome import ERROR_OUTCOMES, Ending, Evidence, Outcome, Tally, Verdict
from routstr.core.receipt import comment_line, cost_members
from routstr.errors import (
    RoutstrError,
    ServiceUnavailable,
    UpstreamRejected,
    UpstreamRequestFailed,
    UpstreamTimeout,
)
from routstr.flows.budget import Budget
from routstr.flows.context import Context
from routstr.flows.exchange import Answer, Exchange
from routstr.flows.oneshot import give_change
from routstr.flows.opening import Opening, Part, next_part
from routstr.flows.purchase import Purchase, paid_headers
from routstr.flows.queue import Chunk
from routstr.flows.receipts import receipt_headers
from routstr.flows.reserve import Reserved
from routstr.flows.settle import Bill, SettlementLost, settle
from routstr.flows.turns import Turns, came_to_nothing
from routstr.gateways.upstream import UpstreamReply
from routstr.gateways.upstream_failure import UpstreamFailure

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
    turns: Turns,
    reply: UpstreamReply,
) -> bool:
    """Pass the stream on, settle, end it. Raises what it came to before the client had a head.

    False: it came to nothing, and somebody else is asked.
    """
    return await _Relay(ctx, exchange, purchase, reserved, turns, reply).run()


class _Relay:
    """One stream on its way."""

    def __init__(
        self,
        ctx: Context,
        exchange: Exchange,
        purchase: Purchase,
        reserved: Reserved,
        turns: Turns,
        reply: UpstreamReply,
    ) -> None:
        self._ctx = ctx
        self._exchange = exchange
        self._order = purchase.order
        self._reserved = reserved
        self._quote = reserved.quote
        self._turns = turns
        self._reply = reply
        self._budget = Budget(ctx, reserved.hold, reserved.quote)
        self._text_bytes = 0
        self._is_begun = False
        self._gave_output = False
        self._dialect = purchase.dialect
        self._meter = self._new_meter(usage_asked=purchase.order.usage_asked)

    def _new_meter(self, *, usage_asked: bool) -> StreamMeter:
        return self._dialect.stream_meter(
            usage_asked=usage_asked,
            usage_cap=self._quote.usage_cap,
            event_bytes_max=self._ctx.limits.sse_event_bytes_max,
        )

    async def run(self) -> bool:
        exchange, meter = self._exchange, self._meter
        exchange.when_stopped(self._stop_reading)
        first = await self._open()
        exchange.watch.heard()
        if not self._is_begun and first.ending is not None:
            await self._refuse_if_refused(first.ending)
            if self._is_followed(first):
                return False
        self._begin()
        ending = await self._pump(first)
        if not meter.is_over:
            self._reply.close()
        exchange.when_stopped(None)
        await self._budget.settled_down()
        self._ctx.failpoint("stream.ended")
        verdict = await self._verdict(ending)
        self._judged(verdict)
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
            return True
        self._ctx.failpoint("stream.settled")
        change = None if exchange.one_shot is None else await give_change(self._ctx, exchange)
        exchange.finish(self._last_bytes(bill, change))
        await self._read_tail()
        return True

    # ── beginning ─────────────────────────────────────────────────────────────────────────────

    async def _open(self) -> Part:
        """The first part: all before any output, as long as others could be asked instead."""
        if self._turns.has_other():
            return await Opening(
                self._ctx, self._turns, self._reply, self._meter, self._begin
            ).read()
        self._begin()
        return await next_part(self._reply, self._meter)

    def _begin(self) -> None:
        """Give the client the head; from here on nobody else is asked."""
        if self._is_begun:
            return
        self._is_begun = True
        reply, exchange = self._reply, self._exchange
        passed = {name: reply.headers[name] for name in _PASSED_DOWN if name in reply.headers}
        headers = passed | _UNBUFFERED | paid_headers(self._ctx, exchange, self._reserved)
        headers |= exchange.claim_headers()
        exchange.answer_with(Answer(status=reply.status, headers=headers, body=None))

    def _is_followed(self, first: Part) -> bool:
        """Whether this came to nothing, and the next attempt has begun."""
        assert first.ending is not None
        verdict = self._judge(self._stopped_or(first.ending))
        if not came_to_nothing(verdict, self._meter.tally) or not self._turns.has_other():
            return False
        self._turns.judged(verdict, trouble=first.trouble)
        return self._turns.go_on()

    async def _refuse_if_refused(self, ending: Ending) -> None:
        """Raises the upstream's error if it is about the request itself, all settled.

        Not if there was output before it: what is charged for is handed on.
        """
        refused, verdict = self._refused(), self._judge(ending)
        is_charged = verdict.evidence is not Evidence.NONE
        if refused is None or is_charged or self._exchange.stopped is not None:
            return
        self._turns.attempt.succeeded()
        verdict = replace(verdict, outcome=Outcome.UPSTREAM_REJECTED)
        hold = self._budget.hold
        bill = await settle(
            self._ctx, self._exchange, hold=hold, quote=self._quote, verdict=verdict
        )
        refused.headers |= receipt_headers(bill.signed)
        raise refused

    def _refused(self) -> UpstreamRejected | None:
        """The upstream's error event as an error of the request itself, if it is one."""
        if self._meter.error is None:
            return None
        error = self._reply.rejection(orjson.dumps({"error": self._meter.error}))
        return error if isinstance(error, UpstreamRejected) else None

    # ── reading ───────────────────────────────────────────────────────────────────────────────

    async def _pump(self, part: Part) -> Ending:
        """Pass parts on, from this first one, until the stream ends, however it does."""
        exchange, meter = self._exchange, self._meter
        while True:
            await self._hand_on(part.data)
            if part.ending is Ending.WHOLE:
                return self._whole()
            if part.ending is not None:
                return self._stopped_or(part.ending)
            # Of a stream that was stopped, only what is on its way is read; of one that is complete
            # only its usage, which is charged as far as it can be paid.
            if exchange.stopped is None and not meter.is_complete:
                tokens = meter.output_tokens_estimate
                if not (self._budget.is_roomy_for(tokens) or await self._budget.covers(tokens)):
                    return self._stopped_or(Ending.BUDGET_EXHAUSTED)
            part = await next_part(self._reply, meter)
            exchange.watch.heard()

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
        meter = self._meter
        self._exchange.watch.began_to_answer()
        if meter.output_seen and not self._gave_output:
            self._gave_output = True
            self._turns.attempt.succeeded()
        if meter.finish_seen:  # some of what was counted is held back: count what is not
            self._text_bytes += self._text_bytes_in(data)
        else:
            self._text_bytes = meter.output_text_bytes
        await self._exchange.queue.put(
            Chunk(data=data, text_bytes=self._text_bytes, output_seen=meter.output_seen)
        )

    def _text_bytes_in(self, data: bytes) -> int:
        meter = self._new_meter(usage_asked=True)
        meter.feed(data)
        return meter.output_text_bytes

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

    def _judged(self, verdict: Verdict) -> None:
        """Say how it went; a request that was refused says nothing against its upstream."""
        if self._refused() is not None:
            self._turns.attempt.succeeded()
        else:
            self._turns.judged(verdict)

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
            error = self._refused() or _error_of(outcome)
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
