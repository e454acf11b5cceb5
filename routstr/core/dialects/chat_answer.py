"""What a chat answer says: its usage, its output, its errors (OpenAI's chat dialect).

Laws: everything an upstream sends is hostile; nothing here raises. Output is content, reasoning,
refusal, tool calls, audio and images; a role or an id is none.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import orjson

from routstr.core.order import CHOICES_MAX
from routstr.core.pricing import Usage
from routstr.core.usage import Insane, normalise_usage

Part = Literal["delta", "message", "text"]
"""Where a choice keeps its output: a stream's chunk, a whole answer, a bare completion."""

_TEXT_FIELDS: Final = ("content", "refusal")
# Vendors send one thought under several names at once: the longest counts.
_REASONING_FIELDS: Final = ("reasoning_content", "reasoning", "reasoning_details")
_OTHER_FIELDS: Final = ("tool_calls", "function_call", "audio", "images")
# Where text lies inside content parts, thoughts, calls and audio.
_INNER_TEXT_FIELDS: Final = frozenset(
    {"text", "thinking", "summary", "refusal", "name", "arguments", "input", "transcript"}
)
# Where more of them lie.
_INNER_FIELDS: Final = frozenset({"function", "custom", "thinking", "content"})
_INNER_DEPTH_MAX: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A stream chunk, or a whole body; `indexes` of its choices, `finished` those that ended."""

    usage: Usage | Insane | None
    indexes: frozenset[int]
    finished: frozenset[int]
    output_seen: bool
    output_text_bytes: int
    is_error: bool


def json_object(data: bytes) -> dict[str, object] | None:
    """The JSON object in `data`, or None if it is something else."""
    try:
        value: object = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def piece_in(data: bytes, *, part: Part, usage_cap: int) -> Piece | None:
    """What the JSON object in `data` says; None if it is something else."""
    value = json_object(data)
    return None if value is None else read_piece(value, part=part, usage_cap=usage_cap)


def read_piece(value: Mapping[str, object], *, part: Part, usage_cap: int) -> Piece:
    """What `value` says; `part` is where its choices keep their output."""
    choices = value.get("choices")
    indexes: set[int] = set()
    finished: set[int] = set()
    seen, text_bytes = False, 0
    for place, choice in enumerate(choices if isinstance(choices, list) else ()):
        if not isinstance(choice, dict):
            continue
        index = choice.get("index", place)
        if type(index) is int and 0 <= index < CHOICES_MAX:
            indexes.add(index)
            if choice.get("finish_reason"):  # some say "" as long as there is none
                finished.add(index)
        output = {"content": choice.get(part)} if part == "text" else choice.get(part)
        if isinstance(output, dict):
            part_seen, part_bytes = _output_of(output)
            seen, text_bytes = seen or part_seen, text_bytes + part_bytes
    return Piece(
        usage=normalise_usage(value.get("usage"), usage_cap),
        indexes=frozenset(indexes),
        finished=frozenset(finished),
        output_seen=seen,
        output_text_bytes=text_bytes,
        is_error=bool(value.get("error")),
    )


# ── output ────────────────────────────────────────────────────────────────────────────────────


def _output_of(output: Mapping[str, object]) -> tuple[bool, int]:
    """Whether a delta or message holds output, and the UTF-8 bytes of its text."""
    seen, text_bytes = False, 0
    for name in _TEXT_FIELDS + _OTHER_FIELDS:
        value = output.get(name)
        if value:
            seen = True
            text_bytes += _text_bytes(value)
    thoughts = [value for name in _REASONING_FIELDS if (value := output.get(name))]
    if thoughts:
        return True, text_bytes + max(_text_bytes(value) for value in thoughts)
    return seen, text_bytes


def _text_bytes(value: object, depth: int = 0) -> int:
    """UTF-8 bytes of the text in a value; what is not text (ids, types, data) counts nothing."""
    if isinstance(value, str):
        return len(value.encode())
    if depth == _INNER_DEPTH_MAX:
        return 0
    if isinstance(value, list):
        return sum(_text_bytes(item, depth + 1) for item in value)
    if not isinstance(value, dict):
        return 0
    return sum(
        _text_bytes(inner, depth + 1)
        for name, inner in value.items()
        if name in _INNER_FIELDS or (name in _INNER_TEXT_FIELDS and isinstance(inner, str))
    )
