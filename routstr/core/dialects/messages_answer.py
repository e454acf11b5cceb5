"""What a message of Anthropic's dialect says: its output and its errors, whole or as events.

Laws: everything an upstream sends is hostile; nothing here raises. Output is text, thoughts and
calls of tools; signatures, citations and results of tools are none.
"""

from collections.abc import Mapping
from typing import Final

import orjson

from routstr.core.dialects.chat_answer import json_object
from routstr.core.outcome import Tally
from routstr.core.pricing import Usage
from routstr.core.usage import INSANE, messages_usage

# The text in a block, and in a delta of one.
_TEXT_FIELDS: Final = ("text", "thinking", "partial_json")
_CALLS: Final = ("tool_use", "server_tool_use", "mcp_tool_use")
_HIDDEN: Final = ("redacted_thinking",)


def meter_message(body: bytes, *, usage_cap: int) -> Tally:
    """The tally of a whole JSON answer; of one that is no JSON object, only that."""
    value = json_object(body)
    if value is None:
        return Tally(malformed_events=1)
    content = value.get("content")
    outputs = [output_in(block) for block in (content if isinstance(content, list) else ())]
    usage = messages_usage(value.get("usage"), usage_cap)
    return Tally(
        usage=None if usage is INSANE else usage,
        usage_insane=usage is INSANE,
        finish_seen=value.get("stop_reason") is not None,
        done_seen=True,
        output_seen=any(seen for seen, _ in outputs),
        output_text_bytes=sum(text_bytes for _, text_bytes in outputs),
        error_seen=is_error(value),
    )


def output_in(block: object) -> tuple[bool, int]:
    """Whether a block, or a delta of one, holds output, and the UTF-8 bytes of its text."""
    if not isinstance(block, dict):
        return False, 0
    texts = [text for name in _TEXT_FIELDS if isinstance(text := block.get(name), str) and text]
    text_bytes = sum(len(text.encode()) for text in texts)
    kind = block.get("type")
    if kind in _CALLS:
        return True, text_bytes + _call_bytes(block)
    return bool(texts) or kind in _HIDDEN, text_bytes


def is_error(value: Mapping[str, object]) -> bool:
    """Whether it is an error envelope."""
    return value.get("type") == "error" or bool(value.get("error"))


def usage_object(usage: Usage) -> bytes:
    """A `usage` object for an answer whose upstream sent none."""
    counted = {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}
    return orjson.dumps(counted)


def _call_bytes(block: Mapping[str, object]) -> int:
    name, given = block.get("name"), block.get("input")
    name_bytes = len(name.encode()) if isinstance(name, str) else 0
    return name_bytes + (_json_bytes(given) if given else 0)


def _json_bytes(value: object) -> int:
    try:
        return len(orjson.dumps(value))
    except TypeError:  # nested deeper than it writes, though not deeper than it reads
        return 0
