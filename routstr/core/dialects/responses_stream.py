"""Metering a stream of OpenAI's responses while its bytes pass (contract, section 6).

Laws: as for every stream. The terminal event tells the usage, and is held back until settlement;
nothing else is. A stream without one was cut, whatever else it said.
"""

from collections.abc import Mapping
from typing import Final

from routstr.core.dialects.chat_answer import json_object
from routstr.core.dialects.event_meter import EventMeter, event_of
from routstr.core.dialects.responses_answer import Deltas, is_error, texts_of, usage_object
from routstr.core.pricing import Usage
from routstr.core.receipt import add_usage, changed_within, splice_cost, usage_in
from routstr.core.sse import EVENT_BYTES_MAX, data_of, with_data
from routstr.core.usage import normalise_usage

_ENDS: Final = frozenset({"response.completed", "response.incomplete"})
_FAILURES: Final = frozenset({"response.failed", "response.cancelled", "error"})
_INCOMPLETE: Final = {
    "status": "incomplete",
    "incomplete_details": {"reason": "max_output_tokens"},
}
# A response of which nothing is known.
_NOBODY: Final[Mapping[str, object]] = {"id": "", "object": "response", "output": []}
_NOTHING: Final = b"{}"
_SEQUENCE_MAX: Final = 2**53


class ResponsesStreamMeter(EventMeter):
    """The meter of one stream: `feed` each chunk, `close` at its end, then one of the ends."""

    def __init__(self, *, usage_cap: int, event_bytes_max: int = EVENT_BYTES_MAX) -> None:
        """Nothing was seen."""
        super().__init__(usage_cap=usage_cap, event_bytes_max=event_bytes_max)
        self._deltas = Deltas()
        self._final_text_bytes = 0
        self._terminal = b""
        self._response_data = _NOTHING  # the last event with a `response` in it
        self._sequence: int | None = None

    # ── how it ends ───────────────────────────────────────────────────────────────────────────

    def finish(self, cost: bytes | None, comment: bytes, *, usage: Usage | None = None) -> bytes:
        """The end of a stream in good order: the comment, and the terminal event with the cost.

        `cost` comes from `cost_members`; `usage` stands in if the upstream reported none.
        """
        terminal = self._terminal
        if terminal and cost is not None:
            terminal = _with_cost(terminal, cost, usage)
        return self._given(self._said(comment) + terminal)

    def clean_end(self, usage: Usage, cost: bytes, comment: bytes) -> bytes:
        """The end that the node makes when the key's money ends: `response.incomplete`."""
        last = self._own("response.incomplete", _INCOMPLETE)
        return self._given(self._said(comment) + _with_cost(last, cost, usage))

    def error_end(
        self,
        error: Mapping[str, object],
        comment: bytes,
        *,
        cost: bytes | None = None,
        usage: Usage | None = None,
    ) -> bytes:
        """The end after a failure: the comment, and `response.failed` with the cost, if told.

        Of a response of which nothing was told, clients know no failure: there it is `error`.
        """
        if self._response_data == _NOTHING:
            return self._given(self._said(comment) + error_event(error))
        last = self._own("response.failed", {"status": "failed", "error": error})
        if cost is not None:
            last = _with_cost(last, cost, usage)
        return self._given(self._said(comment) + last)

    # ── one event ─────────────────────────────────────────────────────────────────────────────

    @property
    def output_text_bytes(self) -> int:
        """UTF-8 bytes of the output's text so far, or as the end repeats it."""
        return max(self._deltas.text_bytes, self._final_text_bytes)

    def _read(self, event: bytes, data: bytes, value: dict[str, object]) -> bytes:
        kind, response = value.get("type"), value.get("response")
        kind = kind if isinstance(kind, str) else ""
        if kind in _ENDS and isinstance(response, dict) and not is_error(response):
            self._take_terminal(event, response)
            return b""
        if kind in _FAILURES or kind in _ENDS or value.get("error"):
            self.error = value.get("error") or value
            if isinstance(response, dict):
                self.error = response.get("error") or value
                self._report(normalise_usage(response.get("usage"), self._usage_cap))
            self._is_over = True
            return b""
        if isinstance(response, dict):
            self._response_data = data
        self._deltas.count(kind, value)
        self._output_seen = self._output_seen or self._deltas.is_seen
        sequence = value.get("sequence_number")
        if type(sequence) is int and 0 <= sequence < _SEQUENCE_MAX:
            self._sequence = sequence
        return event

    def _pass_on(self, event: bytes) -> bytes:
        return event

    def _take_terminal(self, event: bytes, response: Mapping[str, object]) -> None:
        """Hold it; it repeats the whole output, which some vendors tell nowhere else."""
        self._terminal = event
        self._report(normalise_usage(response.get("usage"), self._usage_cap))
        texts = texts_of(response)
        self._final_text_bytes = texts.text_bytes
        self._output_seen = self._output_seen or texts.is_seen
        self._finish_seen = self._done_seen = self._is_over = True

    def _own(self, kind: str, changes: Mapping[str, object]) -> bytes:
        """An event of our own about the response as it was last told, with the next number."""
        told = (json_object(self._response_data) or {}).get("response")
        known = told if isinstance(told, dict) else _NOBODY
        try:
            return self._numbered(kind, {**known, **changes})
        except TypeError:  # nested deeper than it can be written
            return self._numbered(kind, {**_NOBODY, **changes})

    def _numbered(self, kind: str, response: Mapping[str, object]) -> bytes:
        following = 0 if self._sequence is None else self._sequence + 1
        return event_of({"type": kind, "sequence_number": following, "response": response})


def error_event(error: Mapping[str, object]) -> bytes:
    """An event of a failure without a response."""
    told = {name: error.get(name) for name in ("code", "message", "param")}
    return event_of({"type": "error", "sequence_number": 0, **told, "error": error})


def _with_cost(event: bytes, cost: bytes, usage: Usage | None) -> bytes:
    def spliced(response: bytes) -> bytes:
        if usage is not None and usage_in(response) is None:
            response = add_usage(response, usage_object(usage))
        return splice_cost(response, cost)

    return with_data(event, changed_within(data_of(event) or b"", "response", spliced))
