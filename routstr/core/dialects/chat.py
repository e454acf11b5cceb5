"""Chat completions: the order in a body, and what is forwarded of it (OpenAI)."""

import json
from collections.abc import Mapping
from typing import Final

import orjson

from routstr.core.dialects.base import Media, StreamMeter
from routstr.core.dialects.chat_answer import Part, json_object, read_piece
from routstr.core.dialects.chat_stream import ChatStreamMeter
from routstr.core.dialects.prompt import names_no_image
from routstr.core.order import (
    Medium,
    Order,
    bool_in,
    choices_in,
    lowered_limits,
    model_id_in,
    output_limit_in,
)
from routstr.core.outcome import Tally
from routstr.core.receipt import Receipt, cost_members, splice_cost
from routstr.core.strict_json import parse_strictly
from routstr.core.unsupported import (
    fold,
    refuse_dear_caches,
    refuse_file_ids,
    refuse_thought_modes,
    refuse_unsupported,
    stored_input,
)
from routstr.core.usage import INSANE
from routstr.errors import InvalidParameter

LIMIT_FIELDS: Final = ("max_completion_tokens", "max_tokens")

# Folded name -> the one spelling that is read here.
READS: Final[Mapping[str, str]] = {
    "model": "model",
    "messages": "messages",
    "stream": "stream",
    "streamoptions": "stream_options",
    "n": "n",
    "maxtokens": "max_tokens",
    "maxcompletiontokens": "max_completion_tokens",
    "tools": "tools",
    "functions": "functions",
}

# Messages and content parts made only of these are bounded by the body's own bytes.
_MESSAGE_FIELDS: Final = frozenset(
    {
        "role", "name", "content", "refusal", "tool_calls", "tool_call_id", "function_call",
        "reasoning", "reasoning_content", "reasoning_details", "cache_control", "annotations",
        "prefix",
    }
)  # fmt: skip
_MEDIA: Final[frozenset[Medium]] = frozenset({"audio_input", "image_input"})
# Parts that no upstream takes for a document, unless their own words say so.
_SEEN_PARTS: Final = ("text", "refusal", "thinking", "image_url", "input_audio")
_TEXT_PART_FIELDS: Final = frozenset({"type", "text", "refusal", "cache_control"})


class ChatDialect:
    """POST /chat/completions."""

    path = "/chat/completions"
    media: Final[Media] = "json"
    limit_fields: tuple[str, ...] = LIMIT_FIELDS
    part: Part = "message"

    def parse(self, body: bytes, *, content_type: str, depth_max: int) -> Order:
        """The order; null means absent. Raises as `Dialect.parse`."""
        value, serialised = parse_strictly(body, depth_max)
        refuse_unsupported(value, READS)
        refuse_dear_caches(value, serialised)
        refuse_thought_modes(value)
        messages = _messages(value)
        stream = bool_in(value, "stream")
        limit, limit_field = output_limit_in(value, LIMIT_FIELDS)
        tools = tools_bytes(value, "tools") + tools_bytes(value, "functions")
        is_unbounded = not all(_is_bounded(message) for message in messages)
        if is_unbounded:
            for message in messages:
                _refuse_stored(message)
        return Order(
            model_id=model_id_in(value),
            stream=stream,
            usage_asked=usage_is_asked(value) and stream,
            n=choices_in(value),
            output_limit=limit,
            output_limit_field=limit_field,
            has_tools=tools > 0,
            input_unbounded=is_unbounded,
            media=_MEDIA if is_unbounded else frozenset(),
            has_files=is_unbounded and any(map(_has_files, messages)),
            prompt_bytes=len(serialised) + laid_out_tokens(value),
            prompt_text_bytes=tools + sum(_text_bytes(message) for message in messages),
            body=value,
        )

    def forward_body(
        self, order: Order, *, forwarded_model_id: str, output_limit: int | None = None
    ) -> bytes:
        """Streams always ask for usage, or there would be nothing exact to charge by."""
        body = {**order.body, "model": forwarded_model_id}
        if output_limit is not None:
            body |= lowered_limits(order.body, self.limit_fields, output_limit)
        if order.stream:
            options = order.body.get("stream_options")
            asked = options.items() if isinstance(options, dict) else ()
            others = {name: given for name, given in asked if fold(name) != "includeusage"}
            body["stream_options"] = {**others, "include_usage": True}
        return orjson.dumps(body)

    def meter_body(self, body: bytes, *, order: Order, content_type: str, usage_cap: int) -> Tally:
        """The tally of a whole JSON answer; of one that is no JSON object, only that."""
        return meter_body(body, usage_cap=usage_cap, part=self.part)

    def with_cost(self, body: bytes, receipt: Receipt) -> bytes:
        """With the cost in `usage`."""
        return splice_cost(body, cost_members(receipt))

    def stream_meter(
        self, *, usage_asked: bool, usage_cap: int, event_bytes_max: int
    ) -> StreamMeter:
        """The meter of one chat stream."""
        return ChatStreamMeter(
            usage_asked=usage_asked, usage_cap=usage_cap, event_bytes_max=event_bytes_max
        )

    def error_event(self, error: Mapping[str, object]) -> bytes:
        """`data: {"error":{…}}`."""
        return b"data: " + orjson.dumps({"error": error}) + b"\n\n"


def meter_body(body: bytes, *, usage_cap: int, part: Part = "message") -> Tally:
    """The tally of a whole JSON answer; of one that is no JSON object, only that."""
    value = json_object(body)
    if value is None:
        return Tally(malformed_events=1)
    piece = read_piece(value, part=part, usage_cap=usage_cap)
    return Tally(
        usage=None if piece.usage is INSANE else piece.usage,
        usage_insane=piece.usage is INSANE,
        finish_seen=bool(piece.finished),
        done_seen=True,
        output_seen=piece.output_seen,
        output_text_bytes=piece.output_text_bytes,
        error_seen=piece.is_error,
    )


def _messages(value: Mapping[str, object]) -> list[dict[str, object]]:
    messages = value.get("messages")
    if not isinstance(messages, list) or not messages:
        raise InvalidParameter("messages must be a list of at least one.", param="messages")
    if not all(isinstance(message, dict) for message in messages):
        raise InvalidParameter("Each of messages must be an object.", param="messages")
    return messages


def usage_is_asked(value: Mapping[str, object]) -> bool:
    """Whether a stream's usage is asked for. Raises InvalidParameter."""
    options = value.get("stream_options")
    if options is None:
        return False
    if not isinstance(options, dict):
        raise InvalidParameter("stream_options must be an object.", param="stream_options")
    return bool_in(options, "include_usage", param="stream_options.include_usage")


def tools_bytes(value: Mapping[str, object], name: str) -> int:
    """The bytes of tool definitions. Raises InvalidParameter for what is no list."""
    tools = value.get(name)
    if tools is None:
        return 0
    if not isinstance(tools, list):
        raise InvalidParameter(f"{name} must be a list.", param=name)
    return len(orjson.dumps(tools)) if tools else 0


def laid_out_tokens(value: Mapping[str, object]) -> int:
    """What a template may add to the tools' own bytes by the way it writes them as JSON.

    Indented, each member and each bracket takes a line end and its indent; escaped, a letter beyond
    ASCII takes up to six characters.
    """
    tools = [value[name] for name in ("tools", "functions") if value.get(name)]
    if not tools:
        return 0
    plain, escaped = orjson.dumps(tools), json.dumps(tools, separators=(",", ":"))
    lines = sum(plain.count(sign) for sign in (b",", b":", b"[", b"]", b"{", b"}"))
    return len(escaped) - len(plain) + 2 * lines


# ── how much prompt a message is ──────────────────────────────────────────────────────────────


def _is_bounded(message: Mapping[str, object]) -> bool:
    """Whether the body's bytes bound the message: no images, files, audio or unknown references."""
    if any(message[name] is not None for name in message.keys() - _MESSAGE_FIELDS):
        return False
    content = message.get("content")
    if content is None or isinstance(content, str):
        return True
    return isinstance(content, list) and all(_is_text_part(part) for part in content)


def _is_text_part(part: object) -> bool:
    return isinstance(part, str) or (
        isinstance(part, dict)
        and part.get("type") in ("text", "refusal")
        and part.keys() <= _TEXT_PART_FIELDS
    )


def _has_files(message: Mapping[str, object]) -> bool:
    content = message.get("content")
    return any(
        part.get("type") not in _SEEN_PARTS or names_no_image(part)
        for part in (content if isinstance(content, list) else ())
        if isinstance(part, dict) and part.get("type") != "video_url"
    )


def _refuse_stored(message: Mapping[str, object]) -> None:
    """Raises UnsupportedParameter for a file or a sound that only the upstream has."""
    refuse_file_ids(message, "messages")
    audio, content = message.get("audio"), message.get("content")
    if isinstance(audio, dict) and audio.get("id") is not None:
        raise stored_input("messages")
    for part in content if isinstance(content, list) else ():
        if isinstance(part, dict):
            for value in (part, *part.values()):
                if isinstance(value, dict):
                    refuse_file_ids(value, "messages")


def _text_bytes(message: Mapping[str, object]) -> int:
    """UTF-8 bytes of the message's text and tool calls."""
    content = message.get("content")
    parts = content if isinstance(content, list) else [content]
    texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
    total = sum(len(text.encode()) for text in texts if isinstance(text, str))
    for name in ("tool_calls", "function_call"):
        calls = message.get(name)
        total += len(orjson.dumps(calls)) if calls else 0
    return total
