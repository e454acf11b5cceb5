"""What a client orders: the one parse of a request body, and what is forwarded of it.

Laws: a body means the same to us and to every upstream, or it is refused; what is forwarded is
our serialisation of what was quoted, never the client's bytes.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isinf
from typing import Final

import orjson

from routstr.core.unsupported import fold, refuse_unsupported
from routstr.errors import InvalidJson, InvalidParameter

JSON_DEPTH_MAX: Final = 64
MODEL_CHARACTERS_MAX: Final = 256
CHOICES_MAX: Final = 128

LIMIT_FIELDS: Final = ("max_completion_tokens", "max_tokens")

# Messages and content parts made only of these are bounded by the body's own bytes.
_MESSAGE_FIELDS: Final = frozenset(
    {
        "role", "name", "content", "refusal", "tool_calls", "tool_call_id", "function_call",
        "reasoning", "reasoning_content", "reasoning_details", "cache_control", "annotations",
        "prefix",
    }
)  # fmt: skip
_TEXT_PART_FIELDS: Final = frozenset({"type", "text", "refusal", "cache_control"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatOrder:
    """A chat completion as ordered.

    `output_limit` is tokens per choice, with the field that said so; None: the model's own.
    `prompt_bytes` is the length of our serialisation, an upper bound of the prompt's tokens,
    unless `input_unbounded`; `prompt_text_bytes` is the text alone, for estimates.
    """

    model_id: str
    stream: bool
    usage_asked: bool
    n: int
    output_limit: int | None
    output_limit_field: str | None
    has_tools: bool
    input_unbounded: bool
    prompt_bytes: int
    prompt_text_bytes: int
    body: Mapping[str, object] = field(repr=False)


# ── JSON ──────────────────────────────────────────────────────────────────────────────────────


def parse_json_object(body: bytes, *, depth_max: int = JSON_DEPTH_MAX) -> dict[str, object]:
    """The JSON object in `body`, if every parser reads the same in it (RFC 8259, RFC 7493).

    Raises InvalidJson for what is no UTF-8, no object, or read differently elsewhere: a key given
    twice, NaN and infinities, integers beyond 2^53 - 1, lone surrogates, depth over `depth_max`.
    """
    value, _ = _parse_strictly(body, depth_max)
    return value


def _parse_strictly(body: bytes, depth_max: int) -> tuple[dict[str, object], bytes]:
    """The object and our serialisation of it."""
    try:
        value: object = _DECODER.decode(body.decode())
    except UnicodeDecodeError as error:
        raise InvalidJson("The request body is not valid UTF-8.") from error
    except json.JSONDecodeError as error:
        raise InvalidJson(
            f"The request body is not valid JSON: {error.msg} at character {error.pos}."
        ) from error
    except RecursionError as error:
        raise InvalidJson(f"The request body is nested deeper than {depth_max}.") from error
    except ValueError as error:  # the interpreter's limit of digits, far beyond 2^53
        raise InvalidJson(_TOO_LARGE) from error
    if not isinstance(value, dict):
        raise InvalidJson("The request body must be a JSON object.")
    _refuse_depth(value, depth_max)
    return value, _serialised(value)


_TOO_LARGE: Final = "The request body holds an integer beyond 2^53 - 1 or a lone surrogate."


def _serialised(value: dict[str, object]) -> bytes:
    try:
        return orjson.dumps(value, option=orjson.OPT_STRICT_INTEGER)
    except TypeError as error:
        raise InvalidJson(_TOO_LARGE) from error


def _refuse_depth(value: dict[str, object], depth_max: int) -> None:
    """Walk the containers level by level: no recursion that a body could exhaust."""
    level: list[dict[str, object] | list[object]] = [value]
    for _ in range(depth_max):
        level = [
            child
            for container in level
            for child in (container.values() if isinstance(container, dict) else container)
            if isinstance(child, dict | list)
        ]
        if not level:
            return
    raise InvalidJson(f"The request body is nested deeper than {depth_max}.")


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise InvalidJson("An object in the request body has the same key twice.")
    return value


def _finite(text: str) -> float:
    number = float(text)  # inexact: JSON has such numbers; none of them is money
    if isinf(number):
        raise InvalidJson("The request body holds a number too large for a double.")
    return number


def _no_constant(text: str) -> object:
    raise InvalidJson(f"The request body holds {text}, which is not JSON.")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_unique_keys, parse_float=_finite, parse_constant=_no_constant
)


# ── chat completions ──────────────────────────────────────────────────────────────────────────


def parse_chat_order(body: bytes, *, depth_max: int = JSON_DEPTH_MAX) -> ChatOrder:
    """The order in a `chat/completions` body.

    Raises InvalidJson, InvalidParameter (param set), and UnsupportedParameter for what could
    raise the cost or redirect the request (guarantees, SR-10). null means absent.
    """
    value, serialised = _parse_strictly(body, depth_max)
    refuse_unsupported(value)
    messages = _messages(value)
    stream = _bool(value, "stream")
    limit, limit_field = _output_limit(value)
    tools_bytes = _tools_bytes(value, "tools") + _tools_bytes(value, "functions")
    return ChatOrder(
        model_id=_model_id(value),
        stream=stream,
        usage_asked=_is_usage_asked(value) and stream,
        n=_choices(value),
        output_limit=limit,
        output_limit_field=limit_field,
        has_tools=tools_bytes > 0,
        input_unbounded=not all(_is_bounded(message) for message in messages),
        prompt_bytes=len(serialised),
        prompt_text_bytes=tools_bytes + sum(_text_bytes(message) for message in messages),
        body=value,
    )


def forward_body(
    order: ChatOrder, *, forwarded_model_id: str, output_limit: int | None = None
) -> bytes:
    """The body sent upstream: ours, with the upstream's model id.

    `output_limit` (tokens per choice) lowers every limit the client gave, or is added as
    `max_completion_tokens`; None leaves them. Streams always ask for usage, or there would be
    nothing exact to charge by.
    """
    body = {**order.body, "model": forwarded_model_id}
    if output_limit is not None:
        given = {name: order.body[name] for name in LIMIT_FIELDS if order.body.get(name)}
        for name, limit in (given or {LIMIT_FIELDS[0]: output_limit}).items():
            assert isinstance(limit, int)
            body[name] = min(limit, output_limit)
    if order.stream:
        options = order.body.get("stream_options")
        asked = options.items() if isinstance(options, dict) else ()
        others = {name: given for name, given in asked if fold(name) != "includeusage"}
        body["stream_options"] = {**others, "include_usage": True}
    return orjson.dumps(body)


def _model_id(value: Mapping[str, object]) -> str:
    model_id = value.get("model")
    if not isinstance(model_id, str) or not 0 < len(model_id) <= MODEL_CHARACTERS_MAX:
        raise InvalidParameter(
            f"model must be a string of 1 to {MODEL_CHARACTERS_MAX} characters.", param="model"
        )
    return model_id


def _messages(value: Mapping[str, object]) -> list[dict[str, object]]:
    messages = value.get("messages")
    if not isinstance(messages, list) or not messages:
        raise InvalidParameter("messages must be a list of at least one.", param="messages")
    if not all(isinstance(message, dict) for message in messages):
        raise InvalidParameter("Each of messages must be an object.", param="messages")
    return messages


def _bool(value: Mapping[str, object], name: str, *, param: str | None = None) -> bool:
    given = value.get(name)
    if given is not None and not isinstance(given, bool):
        raise InvalidParameter(f"{param or name} must be true or false.", param=param or name)
    return given is True


def _is_usage_asked(value: Mapping[str, object]) -> bool:
    options = value.get("stream_options")
    if options is None:
        return False
    if not isinstance(options, dict):
        raise InvalidParameter("stream_options must be an object.", param="stream_options")
    return _bool(options, "include_usage", param="stream_options.include_usage")


def _int_from_one(value: Mapping[str, object], name: str) -> int | None:
    given = value.get(name)
    if given is None:
        return None
    if not isinstance(given, int) or isinstance(given, bool) or given < 1:
        raise InvalidParameter(f"{name} must be an integer of at least 1.", param=name)
    return given


def _choices(value: Mapping[str, object]) -> int:
    choices = _int_from_one(value, "n") or 1
    if choices > CHOICES_MAX:
        raise InvalidParameter(f"n must be at most {CHOICES_MAX}.", param="n")
    return choices


def _output_limit(value: Mapping[str, object]) -> tuple[int | None, str | None]:
    """The larger of the limits given, and its field: an upstream may heed either."""
    limit: int | None = None
    limit_field: str | None = None
    for name in LIMIT_FIELDS:
        given = _int_from_one(value, name)
        if given is not None and (limit is None or given > limit):
            limit, limit_field = given, name
    return limit, limit_field


def _tools_bytes(value: Mapping[str, object], name: str) -> int:
    tools = value.get(name)
    if tools is None:
        return 0
    if not isinstance(tools, list):
        raise InvalidParameter(f"{name} must be a list.", param=name)
    return len(orjson.dumps(tools)) if tools else 0


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
