"""Metering a stream of Anthropic's messages while its bytes pass (contract, section 6).

Laws: as for every stream. The input's usage comes first, the output's last, and each may repeat the
other: of each count the last one told is true, never a sum, and none is before the output's.

Held back until settlement: the last `message_delta`, which gets the cost, what trails it without
output, and `message_stop`.
"""

from collections.abc import Mapping
from typing import Final

from routstr.core.dialects.event_meter import EventMeter, event_of
from routstr.core.dialects.messages_answer import is_error, output_in, usage_object
from routstr.core.pricing import Usage
from routstr.core.receipt import add_usage, splice_cost, usage_in
from routstr.core.sse import EVENT_BYTES_MAX, data_of, with_data
from routstr.core.usage import INSANE, merged_usage, messages_usage

MESSAGE_STOP: Final = event_of({"type": "message_stop"})
BLOCKS_MAX: Final = 10_000


class MessagesStreamMeter(EventMeter):
    """The meter of one stream: `feed` each chunk, `close` at its end, then one of the ends."""

    def __init__(self, *, usage_cap: int, event_bytes_max: int = EVENT_BYTES_MAX) -> None:
        """Nothing was seen."""
        super().__init__(usage_cap=usage_cap, event_bytes_max=event_bytes_max)
        self._held_bytes_max = event_bytes_max
        self._held: list[bytes] = []  # empty, or a message_delta and what trails it
        self._held_bytes = 0
        self._stop_event = MESSAGE_STOP
        self._counted: dict[str, object] = {}
        self._open: set[int] = set()

    # ── how it ends ───────────────────────────────────────────────────────────────────────────

    def finish(self, cost: bytes | None, comment: bytes, *, usage: Usage | None = None) -> bytes:
        """The end of a stream in good order: `message_delta` with the cost, the comment, the stop.

        `cost` comes from `cost_members`; `usage` stands in if the upstream reported none. Without
        a `message_delta` there is only the comment.
        """
        if self._held and cost is not None:
            self._held[0] = _with_cost(self._held[0], cost, usage)
        return self._given(self._released() + self._said(comment) + self._stop_event)

    def clean_end(self, usage: Usage, cost: bytes, comment: bytes) -> bytes:
        """The end that the node makes when the key's money ends: `stop_reason: "max_tokens"`.

        Open blocks are closed first. An answer that said by itself why it stops keeps that.
        """
        if self._held and self._finish_seen:
            return self.finish(cost, comment, usage=usage)
        stops = [
            event_of({"type": "content_block_stop", "index": index}) for index in sorted(self._open)
        ]
        stopped = {"stop_reason": "max_tokens", "stop_sequence": None}
        last = event_of({"type": "message_delta", "delta": stopped})
        ends = b"".join(stops) + _with_cost(last, cost, usage)
        return self._given(self._released() + ends + self._said(comment) + MESSAGE_STOP)

    def error_end(
        self,
        error: Mapping[str, object],
        comment: bytes,
        *,
        cost: bytes | None = None,
        usage: Usage | None = None,
    ) -> bytes:
        """The end after a failure: what was held, the comment, `event: error`."""
        return self._given(self._released() + self._said(comment) + error_event(error))

    # ── one event ─────────────────────────────────────────────────────────────────────────────

    def _read(self, event: bytes, data: bytes, value: dict[str, object]) -> bytes:
        if is_error(value):
            self.error, self._is_over = value.get("error") or value, True
            return b""
        match value.get("type"):
            case "content_block_delta":
                return self._output(event, value.get("delta"))
            case "content_block_start":
                self._track(value.get("index"), is_open=True)
                return self._output(event, value.get("content_block"))
            case "content_block_stop":
                self._track(value.get("index"), is_open=False)
                return self._released() + event
            case "message_start":
                message = value.get("message")
                if isinstance(message, dict):
                    self._counted = merged_usage(self._counted, message.get("usage"))
                return self._released() + event
            case "message_delta":
                return self._last_so_far(event, value)
            case "message_stop":
                self._done_seen = self._is_over = True
                self._stop_event = event
                return b""
        return self._pass_on(event)

    def _output(self, event: bytes, block: object) -> bytes:
        seen, text_bytes = output_in(block)
        self._output_seen = self._output_seen or seen
        self._output_text_bytes += text_bytes
        return self._released() + event

    def _last_so_far(self, event: bytes, value: Mapping[str, object]) -> bytes:
        """Keep its usage, and hold it: it is the last one unless another comes."""
        said, delta = value.get("usage"), value.get("delta")
        if isinstance(said, dict):
            self._counted = merged_usage(self._counted, said)
            if said.get("output_tokens") is not None:
                self._report(messages_usage(self._counted, self._usage_cap))
        elif said is not None:
            self._report(INSANE)
        if isinstance(delta, dict) and delta.get("stop_reason") is not None:
            self._finish_seen = True
        released = self._released()
        self._hold(event)
        return released

    def _pass_on(self, event: bytes) -> bytes:
        """Hand on an event without output, behind what is held; never hold an endless trail."""
        if not self._held:
            return event
        self._hold(event)
        return self._released() if self._held_bytes > self._held_bytes_max else b""

    def _track(self, index: object, *, is_open: bool) -> None:
        if type(index) is not int or not 0 <= index < BLOCKS_MAX:
            return
        if is_open:
            self._open.add(index)
        else:
            self._open.discard(index)

    def _hold(self, event: bytes) -> None:
        self._held.append(event)
        self._held_bytes += len(event)

    def _released(self) -> bytes:
        """Everything held, which is then held no more."""
        if not self._held:
            return b""
        out = b"".join(self._held)
        self._held.clear()
        self._held_bytes = 0
        return out


def error_event(error: Mapping[str, object]) -> bytes:
    """`event: error`, with Anthropic's envelope."""
    return event_of({"type": "error", "error": error})


def _with_cost(event: bytes, cost: bytes, usage: Usage | None) -> bytes:
    data = data_of(event) or b""
    if usage is not None and usage_in(data) is None:
        data = add_usage(data, usage_object(usage))
    return with_data(event, splice_cost(data, cost))
