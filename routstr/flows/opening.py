"""A stream before its first output, which the client need not see yet, because others could do it.

Laws: what was read is kept and handed on byte for byte; it is bounded; the wait for the first
output is, too, and ends with another upstream, or with the client's stream begun.
"""

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from routstr.core.dialects import StreamMeter
from routstr.core.outcome import Ending
from routstr.core.sse import EventTooLarge
from routstr.flows.context import Context
from routstr.flows.turns import Turns
from routstr.gateways.upstream import UpstreamReply
from routstr.gateways.upstream_failure import UpstreamFailure, UpstreamStalled


class Part(NamedTuple):
    """Bytes to hand on, and how the stream ended, if it did.

    `trouble` names what is worse about it than its ending says.
    """

    data: bytes
    ending: Ending | None
    trouble: str | None = None


async def next_part(reply: UpstreamReply, meter: StreamMeter) -> Part:
    """The next bytes, metered."""
    try:
        chunk = await reply.read_chunk()
    except UpstreamFailure as failure:
        broken = Ending.STALLED if isinstance(failure, UpstreamStalled) else Ending.CUT
        return Part(data=meter.close(), ending=broken)
    if chunk is None:
        return Part(data=meter.close(), ending=Ending.WHOLE)
    try:
        data = meter.feed(chunk)
    except EventTooLarge as error:
        return Part(data=error.ready, ending=Ending.CUT)
    return Part(data=data, ending=Ending.WHOLE if meter.is_over else None)


class Opening:
    """Reads one stream up to its first output; `begin` lets the client's stream begin before it."""

    def __init__(
        self,
        ctx: Context,
        turns: Turns,
        reply: UpstreamReply,
        meter: StreamMeter,
        begin: Callable[[], None],
    ) -> None:
        self._limits = ctx.limits
        self._turns = turns
        self._reply = reply
        self._meter = meter
        self._begin = begin
        self._is_late = False
        self._is_given_up = False

    async def read(self) -> Part:
        """All up to the first output, or the end, or a malformed event before both."""
        wait_s = self._limits.upstream_first_token_timeout_s - self._turns.attempt.age_s()
        timer = asyncio.get_running_loop().call_later(max(0.0, wait_s), self._grow_late)
        data = bytearray()
        try:
            while True:
                part = await next_part(self._reply, self._meter)
                data += part.data
                if self._is_given_up:
                    return Part(data=bytes(data), ending=Ending.STALLED, trouble="slow_first_token")
                seen = self._meter.output_seen
                if not seen and self._meter.tally.malformed_events and self._turns.has_other():
                    return Part(data=bytes(data), ending=Ending.CUT, trouble="malformed")
                is_enough = seen or len(data) > self._limits.sse_event_bytes_max
                if part.ending is not None or is_enough or self._is_late:
                    return Part(data=bytes(data), ending=part.ending)
        finally:
            timer.cancel()

    def _grow_late(self) -> None:
        """The first output is late: somebody else's turn, or the client gets what there is."""
        if self._turns.has_other():
            self._is_given_up = True
            self._reply.close()
        else:
            self._is_late = True
            self._begin()
