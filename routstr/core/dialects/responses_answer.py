"""What an answer of OpenAI's responses says: its output and its errors, whole or as events.

Laws: everything an upstream sends is hostile; nothing here raises. Output is text, refusals,
thoughts and calls of tools; a thought and its summary are one thought, so the longer one counts.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import orjson

from routstr.core.dialects.chat_answer import json_object
from routstr.core.outcome import Tally
from routstr.core.pricing import Usage
from routstr.core.usage import INSANE, normalise_usage

FAILED: Final = frozenset({"failed", "cancelled"})

_OUTPUT: Final = "output"
_THOUGHT: Final = "thought"
_SUMMARY: Final = "summary"
# Where an item keeps its own text, and where its parts do.
_ITEM_FIELDS: Final = ("name", "arguments", "input")
_PART_FIELDS: Final = ("text", "refusal", "transcript")


@dataclass(slots=True)
class Texts:
    """UTF-8 bytes of an answer's text, by what it is; `is_seen` if there is any output."""

    is_seen: bool = False
    counted: dict[str, int] = field(default_factory=dict)

    def add(self, kind: str, text_bytes: int) -> None:
        """Count some."""
        self.counted[kind] = self.counted.get(kind, 0) + text_bytes

    @property
    def text_bytes(self) -> int:
        """All of it, a thought once."""
        thought, summary = self.counted.get(_THOUGHT, 0), self.counted.get(_SUMMARY, 0)
        return self.counted.get(_OUTPUT, 0) + max(thought, summary)


def meter_response(body: bytes, *, usage_cap: int) -> Tally:
    """The tally of a whole JSON answer; of one that is no JSON object, only that."""
    value = json_object(body)
    if value is None:
        return Tally(malformed_events=1)
    usage = normalise_usage(value.get("usage"), usage_cap)
    texts = texts_of(value)
    return Tally(
        usage=None if usage is INSANE else usage,
        usage_insane=usage is INSANE,
        finish_seen=value.get("status") in ("completed", "incomplete"),
        done_seen=True,
        output_seen=texts.is_seen,
        output_text_bytes=texts.text_bytes,
        error_seen=is_error(value),
    )


def texts_of(response: Mapping[str, object]) -> Texts:
    """The output of a `response` object."""
    texts = Texts()
    items = response.get("output")
    for item in items if isinstance(items, list) else ():
        if isinstance(item, dict):
            _count_item(texts, item)
    return texts


def is_error(response: Mapping[str, object]) -> bool:
    """Whether a `response` object, or an envelope, says that it failed."""
    status = response.get("status")
    return bool(response.get("error")) or (isinstance(status, str) and status in FAILED)


def text_in(value: Mapping[str, object], names: tuple[str, ...]) -> int:
    """UTF-8 bytes of the texts among the members `names`."""
    texts = (value.get(name) for name in names)
    return sum(len(text.encode()) for text in texts if isinstance(text, str))


def is_call(item: Mapping[str, object]) -> bool:
    """Whether an output item is output by being there: a call or a picture, not a message."""
    return item.get("type") not in ("message", "reasoning", None)


def usage_object(usage: Usage) -> bytes:
    """A `usage` object for an answer whose upstream sent none."""
    return orjson.dumps(
        {
            "input_tokens": usage.input_tokens,
            "input_tokens_details": {"cached_tokens": usage.cache_read_tokens},
            "output_tokens": usage.output_tokens,
            "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
            "total_tokens": usage.input_tokens + usage.output_tokens,
        }
    )


def _count_item(texts: Texts, item: Mapping[str, object]) -> None:
    texts.is_seen = texts.is_seen or is_call(item)
    texts.add(_OUTPUT, text_in(item, _ITEM_FIELDS))
    is_thought = item.get("type") == "reasoning"
    for name, kind in (("content", _THOUGHT if is_thought else _OUTPUT), ("summary", _SUMMARY)):
        for part in _parts(item.get(name)):
            text_bytes = text_in(part, _PART_FIELDS)
            texts.is_seen = texts.is_seen or text_bytes > 0
            texts.add(kind, text_bytes)


def _parts(value: object) -> Iterator[Mapping[str, object]]:
    for part in value if isinstance(value, list) else ():
        if isinstance(part, dict):
            yield part


# ── deltas ────────────────────────────────────────────────────────────────────────────────────

# What the events of a stream add to, by what stands before `.delta` and `.done` in their type.
_STEMS: Final[Mapping[str, str]] = {
    "response.output_text": _OUTPUT,
    "response.refusal": _OUTPUT,
    "response.function_call_arguments": _OUTPUT,
    "response.custom_tool_call_input": _OUTPUT,
    "response.audio.transcript": _OUTPUT,
    "response.reasoning_text": _THOUGHT,
    "response.reasoning": _THOUGHT,
    "response.reasoning_summary_text": _SUMMARY,
    "response.reasoning_summary": _SUMMARY,
}
_OTHER: Final = "other"
_SOUND: Final = frozenset({"response.audio", "response.output_audio"})
_DONE_FIELDS: Final = ("text", "refusal", "arguments", "input", "transcript")
_CALLS: Final = "response.output_item"


class Deltas:
    """The text of a stream, each piece counted once though `.done` repeats what `.delta` said.

    Some vendors send only one of them, so the larger of both sums is the truth.
    """

    def __init__(self) -> None:
        """Nothing was said."""
        self.is_seen = False
        self._said: dict[str, int] = {}
        self._repeated: dict[str, int] = {}

    def count(self, kind: str, value: Mapping[str, object]) -> None:
        """Count an event of that type."""
        stem, _, end = kind.rpartition(".")
        if end == "delta":
            delta = value.get("delta")
            if isinstance(delta, str) and delta:
                self.is_seen = True
                self._add(self._said, stem, 0 if stem in _SOUND else len(delta.encode()))
        elif end == "done" and stem in _STEMS:
            text_bytes = text_in(value, _DONE_FIELDS)
            self.is_seen = self.is_seen or text_bytes > 0
            self._add(self._repeated, stem, text_bytes)
        elif stem == _CALLS:
            item = value.get("item")
            if isinstance(item, dict) and is_call(item):
                self.is_seen = True
                if end == "added":  # its arguments come as deltas
                    self._add(self._said, _CALLS, text_in(item, ("name",)))

    @property
    def text_bytes(self) -> int:
        """UTF-8 bytes of all text so far."""
        texts = Texts()
        for stem in self._said.keys() | self._repeated.keys():
            text_bytes = max(self._said.get(stem, 0), self._repeated.get(stem, 0))
            texts.add(_STEMS.get(stem, _OUTPUT), text_bytes)
        return texts.text_bytes

    def _add(self, sums: dict[str, int], stem: str, text_bytes: int) -> None:
        known = stem if stem in _STEMS or stem == _CALLS else _OTHER
        sums[known] = sums.get(known, 0) + text_bytes
