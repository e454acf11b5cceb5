"""Metering a chat stream while its bytes pass (contract section 6, guarantees I-21).

Laws: bytes out are bytes in, less or plus the events the contract names; how the bytes were
chunked changes neither them nor the tally; the last usage seen counts, never a sum.

Held back until settlement: the event with `finish_reason`, the usage event if the client asked
for usage (else it is dropped), what trails them without output, and `[DONE]`.
"""

from collections.abc import Mapping
from functools import partial
from typing import Final

import orjson

from routstr.core.dialects.chat_alike import Alike
from routstr.core.dialects.chat_answer import Part, Piece, piece_in, read_piece
from routstr.core.dialects.event_meter import EventMeter
from routstr.core.pricing import Usage
from routstr.core.receipt import add_usage, splice_cost, usage_in, usage_object
from routstr.core.sse import EVENT_BYTES_MAX, data_of, with_data

DONE_EVENT: Final = b"data: [DONE]\n\n"


class ChatStreamMeter(EventMeter):
    """The meter of one chat stream: `feed` each chunk, `close` at its end, then one of the ends.

    `usage_cap` is the most tokens a sane usage reports (`Quote.usage_cap`). `part` is where a
    choice keeps its output, `nothing_more` what one says that ends without any.
    """

    part: Part = "delta"
    chunk_object = "chat.completion.chunk"
    nothing_more: Mapping[str, object] = {"delta": {}}

    def __init__(
        self, *, usage_asked: bool, usage_cap: int, event_bytes_max: int = EVENT_BYTES_MAX
    ) -> None:
        """Nothing was seen."""
        super().__init__(usage_cap=usage_cap, event_bytes_max=event_bytes_max)
        self._usage_asked = usage_asked
        self._held_bytes_max = event_bytes_max
        self._held = _Held()
        self._done_event = DONE_EVENT
        self._first: dict[str, object] = {}
        self._open: set[int] = set()
        self._finished: set[int] = set()
        self._usage_data: bytes | None = None
        self._goes_on = False
        self._alike = Alike(partial(piece_in, part=self.part, usage_cap=usage_cap))

    @property
    def is_complete(self) -> bool:
        """Whether every choice that was begun has ended; one that goes on all the same has not."""
        return bool(self._finished) and self._open <= self._finished and not self._goes_on

    # ── how it ends ───────────────────────────────────────────────────────────────────────────

    def finish(self, cost: bytes | None, comment: bytes, *, usage: Usage | None = None) -> bytes:
        """The end of a stream in good order: what was held with the cost, the comment, `[DONE]`.

        `cost` comes from `cost_members`; `usage` stands in if the upstream reported none. Asked
        for, the cost goes where the usage is; else into the event with `finish_reason`. Without
        either event there is only the comment.
        """
        held = self._held.events
        place = self._held.finish_at
        if self._usage_asked and self._held.usage_at is not None:
            place = self._held.usage_at
        if cost is not None and place is not None:
            held[place] = self._with_cost(held[place], cost, usage)
        return self._given(self._held.release() + self._said(comment) + self._done_event)

    def clean_end(self, usage: Usage, cost: bytes, comment: bytes) -> bytes:
        """The end that the node makes when the key's money ends: `finish_reason: "length"`.

        `usage` is what to tell, `cost` comes from `cost_members`. Choices that said by themselves
        why they stop keep that.
        """
        if self._held.events and self.is_complete:
            return self.finish(cost, comment, usage=usage)
        choices = [
            {"index": index, **self.nothing_more, "finish_reason": "length"}
            for index in sorted(self._open - self._finished or {0})
        ]
        last = orjson.dumps({**self._identity(), "choices": choices})
        told = usage_object(usage)
        if self._usage_asked:
            usage_chunk = orjson.dumps({**self._identity(), "choices": []})
            events = _event(last) + _event(splice_cost(add_usage(usage_chunk, told), cost))
        else:
            events = _event(splice_cost(add_usage(last, told), cost))
        return self._given(self._held.release() + events + self._said(comment) + DONE_EVENT)

    def error_end(
        self,
        error: Mapping[str, object],
        comment: bytes,
        *,
        cost: bytes | None = None,
        usage: Usage | None = None,
    ) -> bytes:
        """The end after a failure: what was held, the comment, `{"error":{…}}`."""
        said = _event(orjson.dumps({"error": error}))
        return self._given(self._held.release() + self._said(comment) + said)

    # ── one event ─────────────────────────────────────────────────────────────────────────────

    def _take(self, event: bytes) -> bytes:
        text_bytes = self._alike.text_bytes_of(event)
        if text_bytes is None:
            return super()._take(event)
        # It says what the one said that it is like, of which all but the text was counted.
        self._output_text_bytes += text_bytes
        self._goes_on = True
        return self._held.release() + event if self._held.events else event

    def _read(self, event: bytes, data: bytes, value: dict[str, object]) -> bytes:
        piece = read_piece(value, part=self.part, usage_cap=self._usage_cap)
        is_usage_only = self._is_usage_only(piece)
        self._count(piece, value, data)
        if piece.is_error:
            self.error, self._is_over = value["error"], True
            return b""
        if piece.finished:
            released = self._held.release()
            self._held.hold_finish(event, has_usage=piece.usage is not None)
            return released
        if is_usage_only:
            if not self._usage_asked:
                return b""
            self._held.hold_usage(event)
            return self._held.release_over(self._held_bytes_max)
        if not piece.output_seen:
            return self._pass_on(event)
        if value.get("usage") is None:  # in one, a word may decide whether it counts
            self._alike.learn(event, piece)
        return self._held.release() + event

    def _pass_malformed(self, event: bytes) -> bytes:
        return self._held.release() + event

    def _take_done(self, event: bytes) -> None:
        self._done_seen = self._is_over = True
        self._done_event = event

    def _is_usage_only(self, piece: Piece) -> bool:
        """Whether the event is there for its usage alone: no choices, or only ended ones."""
        return piece.usage is not None and not piece.output_seen and piece.indexes <= self._finished

    def _pass_on(self, event: bytes) -> bytes:
        """Hand on an event without output, behind what is held."""
        if not self._held.events:
            return event
        self._held.hold(event)
        return self._held.release_over(self._held_bytes_max)

    def _count(self, piece: Piece, value: dict[str, object], data: bytes) -> None:
        if not self._first and piece.indexes:
            self._first = {name: value.get(name) for name in ("id", "created", "model")}
        self._open |= piece.indexes
        self._finished |= piece.finished
        self._output_seen = self._output_seen or piece.output_seen
        self._output_text_bytes += piece.output_text_bytes
        self._finish_seen = bool(self._finished)
        self._goes_on = piece.output_seen and piece.usage is None
        self._report(piece.usage)
        if piece.usage is not None:
            self._usage_data = data if self._usage is not None else None

    def _with_cost(self, event: bytes, cost: bytes, usage: Usage | None) -> bytes:
        data = data_of(event) or b""
        if not (self._usage_asked and usage_in(data)):
            reported = usage_in(self._usage_data) if self._usage_data else None
            shown = reported or (None if usage is None else usage_object(usage))
            data = add_usage(data, shown) if shown else data
        return with_data(event, splice_cost(data, cost))

    def _identity(self) -> dict[str, object]:
        return {"object": self.chunk_object, **self._first}


class _Held:
    """The events held back, in order, and which of them can carry the cost."""

    __slots__ = ("_bytes", "events", "finish_at", "usage_at")

    def __init__(self) -> None:
        self.events: list[bytes] = []
        self._bytes = 0
        self.finish_at: int | None = None
        self.usage_at: int | None = None

    def hold_finish(self, event: bytes, *, has_usage: bool) -> None:
        self.finish_at = len(self.events)
        if has_usage:
            self.usage_at = self.finish_at
        self.hold(event)

    def hold_usage(self, event: bytes) -> None:
        self.usage_at = len(self.events)
        self.hold(event)

    def hold(self, event: bytes) -> None:
        self.events.append(event)
        self._bytes += len(event)

    def release(self) -> bytes:
        """Everything held, which is then held no more."""
        out = b"".join(self.events)
        self.events.clear()
        self._bytes = 0
        self.finish_at = self.usage_at = None
        return out

    def release_over(self, bytes_max: int) -> bytes:
        """Everything, if it is more than `bytes_max`: an endless trail must not fill the memory."""
        return self.release() if self._bytes > bytes_max else b""


def _event(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"
