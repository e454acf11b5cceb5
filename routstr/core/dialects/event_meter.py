"""What the meters of streams have in common: whole events in, each counted, each given on.

Laws: as for every stream (`base.StreamMeter`). An event is known by its data, because that is what
clients read; its `event:` line passes as it came.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Final

import orjson

from routstr.core.dialects.chat_answer import json_object
from routstr.core.outcome import Tally, output_tokens_of
from routstr.core.pricing import Usage
from routstr.core.sse import EventSplitter, EventTooLarge, data_of
from routstr.core.usage import Insane

_DONE: Final = b"[DONE]"
_ID: Final = re.compile(rb"id|[^\n]*\rid")


def event_of(value: Mapping[str, object]) -> bytes:
    """A typed event of our own: its name, then its data. Raises TypeError for what is no JSON."""
    name = str(value["type"]).encode()
    return b"event: " + name + b"\ndata: " + orjson.dumps(value) + b"\n\n"


class EventMeter(ABC):
    """The meter of one stream; a dialect says what each event is.

    `usage_cap` is the most tokens a sane usage reports (`Quote.usage_cap`).
    """

    def __init__(self, *, usage_cap: int, event_bytes_max: int) -> None:
        """Nothing was seen."""
        self._usage_cap = usage_cap
        self._splitter = EventSplitter(event_bytes_max=event_bytes_max)
        self._is_over = False
        self._usage: Usage | None = None
        self._usage_insane = False
        self._finish_seen = False
        self._done_seen = False
        self._output_seen = False
        self._output_text_bytes = 0
        self._malformed_events = 0
        self._bytes_out = 0
        self._has_ids = False
        self.error: object = None  # the upstream's own error object: redact before showing

    def feed(self, chunk: bytes) -> bytes:
        """Take a chunk of the upstream's bytes and give those to hand on now.

        Raises EventTooLarge, whose `ready` is what may still be handed on: the stream is cut.
        """
        if self._is_over:
            return b""
        out: list[bytes] = []
        try:
            for event in self._splitter.feed(chunk):
                out.append(self._take(event))
                if self._is_over:
                    break
        except EventTooLarge as error:
            self._is_over = True
            raise EventTooLarge(self._given(b"".join(out))) from error
        return self._given(b"".join(out))

    def close(self) -> bytes:
        """Say that the upstream's bytes have ended; gives the last to hand on. Call before `tally`.

        A last event without its empty line counts if it is complete otherwise; half an event is
        dropped, as every client drops it (WHATWG HTML 9.2.6).
        """
        tail = self._splitter.flush()
        if self._is_over or not tail:
            return b""
        event = tail + missing_end(tail)
        data = data_of(event)
        if data is None or (data.strip() != _DONE and json_object(data) is None):
            return b""
        return self._given(self._take(event))

    @property
    def is_over(self) -> bool:
        """Whether nothing more counts: the terminal event, an error or an oversized event came."""
        return self._is_over

    @property
    def finish_seen(self) -> bool:
        """Whether the answer is complete, so that a drain for usage is worth its wait."""
        return self._finish_seen

    @property
    def is_complete(self) -> bool:
        """Whether all output that was begun has ended, so that only usage is still to come."""
        return self._finish_seen

    @property
    def output_tokens_estimate(self) -> int:
        """Output tokens so far: our count, or the upstream's running one if that is higher."""
        counted = output_tokens_of(self.output_text_bytes)
        return counted if self._usage is None else max(counted, self._usage.output_tokens)

    @property
    def output_seen(self) -> bool:
        """Whether there was output so far."""
        return self._output_seen

    @property
    def output_text_bytes(self) -> int:
        """UTF-8 bytes of the output's text so far."""
        return self._output_text_bytes

    @property
    def tally(self) -> Tally:
        """What was seen so far, all of it."""
        return Tally(
            usage=self._usage,
            usage_insane=self._usage_insane,
            finish_seen=self._finish_seen,
            done_seen=self._done_seen,
            output_seen=self._output_seen,
            output_text_bytes=self.output_text_bytes,
            malformed_events=self._malformed_events,
            error_seen=self.error is not None,
            bytes_out=self._bytes_out,
        )

    # ── what a dialect says ───────────────────────────────────────────────────────────────────

    @abstractmethod
    def _read(self, event: bytes, data: bytes, value: dict[str, object]) -> bytes:
        """Count an event with a JSON object in it; gives what to hand on now."""

    @abstractmethod
    def _pass_on(self, event: bytes) -> bytes:
        """What to hand on now of an event that says nothing about the answer."""

    def _pass_malformed(self, event: bytes) -> bytes:
        """What to hand on now of an event whose data is no JSON object."""
        return self._pass_on(event)

    def _take_done(self, event: bytes) -> None:
        """Nothing follows `[DONE]`, which some vendors send in dialects that do not have it."""
        self._is_over = True

    # ── one event ─────────────────────────────────────────────────────────────────────────────

    def _take(self, event: bytes) -> bytes:
        if not self._has_ids and (b"\nid" in event or _ID.match(event)):
            self._has_ids = True
        data = data_of(event)
        if data is None or not data.strip():
            return self._pass_on(event)
        value = json_object(data)
        if value is not None:
            return self._read(event, data, value)
        if data.strip() == _DONE:
            self._take_done(event)
            return b""
        self._malformed_events += 1
        return self._pass_malformed(event)

    def _report(self, usage: Usage | Insane | None) -> None:
        """Keep the last usage that was reported."""
        if usage is not None:
            self._usage_insane = isinstance(usage, Insane)
            self._usage = None if isinstance(usage, Insane) else usage

    def _said(self, comment: bytes) -> bytes:
        """Our comment as an event of its own.

        After an event with an id some clients take the empty line behind a comment for an event of
        that id, without data: an empty id before it ends that (WHATWG HTML 9.2.6).
        """
        return b"id:\n\n" + comment if comment and self._has_ids else comment

    def _given(self, out: bytes) -> bytes:
        self._bytes_out += len(out)
        return out


def missing_end(tail: bytes) -> bytes:
    """What the last bytes of a stream lack to end an event."""
    if tail.endswith((b"\r\r", b"\n\r")):
        return b""
    return b"\n" if tail.endswith((b"\n", b"\r")) else b"\n\n"
