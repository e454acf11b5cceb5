"""Messages, and the count of their tokens: the order in a body, and what is forwarded (Anthropic).

Law: the parameters read here are all there may be. The API refuses others as well, and the next one
that raises the price would be none of those.
"""

import re
from collections.abc import Mapping
from typing import Final

import orjson

from routstr.core.dialects.base import Media, StreamMeter
from routstr.core.dialects.messages_answer import meter_message
from routstr.core.dialects.messages_input import prompt_of_content, prompt_of_messages
from routstr.core.dialects.messages_stream import MessagesStreamMeter, error_event
from routstr.core.dialects.prompt import Prompt
from routstr.core.order import Medium, Order, bool_in, lowered_limits, model_id_in, output_limit_in
from routstr.core.outcome import Tally
from routstr.core.providers import COUNT_TOKENS, MESSAGES
from routstr.core.receipt import Receipt, cost_members, splice_cost
from routstr.core.strict_json import parse_strictly
from routstr.core.unsupported import fold, refuse_dear_caches, refuse_unsupported, tool_kinds
from routstr.errors import InvalidParameter, UnsupportedParameter

LIMIT_FIELDS: Final = ("max_tokens",)
THOUGHT_TOKENS_MIN: Final = 1_024  # the smallest budget of thinking that the API takes
# What the API writes into the prompt for a tool of its own making, which the client runs.
OWN_TOOL_TOKENS_MAX: Final = 2_048

_COUNTED: Final = (
    *("model", "messages", "system", "tools", "tool_choice", "thinking", "cache_control"),
    *("output_config", "output_format", "context_management"),
)
_READ: Final = (
    *_COUNTED,
    *("max_tokens", "stream", "temperature", "top_k", "top_p", "stop_sequences", "metadata"),
)
# Folded name -> the one spelling that is read here.
COUNT_READS: Final[Mapping[str, str]] = {fold(name): name for name in _COUNTED}
READS: Final[Mapping[str, str]] = {fold(name): name for name in _READ}

_EXPLAINED: Final = ("output_config", "output_format")  # to the model, in words of the API
_MEDIA: Final[frozenset[Medium]] = frozenset({"image_input"})
_OWN_TOOL: Final = re.compile(r"(?:bash|text_editor|computer|memory)_\d{8}")
# Edits that only take away; others summarise, which is a call of its own.
_EDITS: Final = ("clear_tool_uses_20250919", "clear_thinking_20251015")


class MessagesDialect:
    """POST /messages."""

    path: str = MESSAGES
    media: Final[Media] = "json"

    def parse(self, body: bytes, *, content_type: str, depth_max: int) -> Order:
        """The order; null means absent. Raises as `Dialect.parse`."""
        value, serialised = parse_strictly(body, depth_max)
        prompt, tools = _checked(value, serialised, READS)
        stream = bool_in(value, "stream")
        limit, limit_field = output_limit_in(value, LIMIT_FIELDS)
        if limit is None:
            raise InvalidParameter("max_tokens is needed.", param="max_tokens")
        return Order(
            model_id=model_id_in(value),
            stream=stream,
            usage_asked=stream,
            output_limit=limit,
            output_limit_field=limit_field,
            has_tools=bool(tools) or any(value.get(name) is not None for name in _EXPLAINED),
            input_unbounded=not prompt.is_bounded,
            media=frozenset() if prompt.is_bounded else _MEDIA,
            has_files=prompt.has_files,
            prompt_bytes=len(serialised) + _own_tool_tokens(tools),
            prompt_text_bytes=prompt.text_bytes + (len(orjson.dumps(tools)) if tools else 0),
            body=value,
        )

    def forward_body(
        self, order: Order, *, forwarded_model_id: str, output_limit: int | None = None
    ) -> bytes:
        """A lowered limit lowers the budget of thinking, too, which must stay below it."""
        body = {**order.body, "model": forwarded_model_id}
        if output_limit is not None:
            body |= lowered_limits(order.body, LIMIT_FIELDS, output_limit)
            body |= _lowered_thinking(order.body, output_limit)
        return orjson.dumps(body)

    def meter_body(self, body: bytes, *, order: Order, content_type: str, usage_cap: int) -> Tally:
        """The tally of a whole JSON answer; of one that is no JSON object, only that."""
        return meter_message(body, usage_cap=usage_cap)

    def with_cost(self, body: bytes, receipt: Receipt) -> bytes:
        """With the cost in `usage`."""
        return splice_cost(body, cost_members(receipt))

    def stream_meter(
        self, *, usage_asked: bool, usage_cap: int, event_bytes_max: int
    ) -> StreamMeter:
        """The meter of one stream; its usage always comes."""
        return MessagesStreamMeter(usage_cap=usage_cap, event_bytes_max=event_bytes_max)

    def error_event(self, error: Mapping[str, object]) -> bytes:
        """`event: error`, with Anthropic's envelope."""
        return error_event(error)


class CountTokensDialect(MessagesDialect):
    """POST /messages/count_tokens: it costs nothing, and needs a key all the same."""

    path: str = COUNT_TOKENS

    def parse(self, body: bytes, *, content_type: str, depth_max: int) -> Order:
        """The order; null means absent. Raises as `Dialect.parse`."""
        value, serialised = parse_strictly(body, depth_max)
        _checked(value, serialised, COUNT_READS)
        return Order(
            model_id=model_id_in(value),
            writes=False,
            is_free=True,
            prompt_bytes=0,
            prompt_text_bytes=0,
            body=value,
        )

    def meter_body(self, body: bytes, *, order: Order, content_type: str, usage_cap: int) -> Tally:
        """Nothing was used, whatever it says; of what is no message's answer, that."""
        tally = meter_message(body, usage_cap=usage_cap)
        return Tally(
            finish_seen=tally.done_seen,  # it has no output, and is an answer all the same
            done_seen=tally.done_seen,
            malformed_events=tally.malformed_events,
            error_seen=tally.error_seen,
        )

    def with_cost(self, body: bytes, receipt: Receipt) -> bytes:
        """As it came: there is no `usage` in it."""
        return body


def _checked(
    value: Mapping[str, object], serialised: bytes, reads: Mapping[str, str]
) -> tuple[Prompt, list[object]]:
    """The prompt without its tools, and the tools. Raises as `Dialect.parse`."""
    refuse_unsupported(value, reads, is_closed=True, is_client_tool=_is_client_tool)
    refuse_dear_caches(value, serialised)
    _refuse_edits(value.get("context_management"))
    prompt = prompt_of_messages(value.get("messages"))
    if value.get("system") is not None:
        prompt += prompt_of_content(value["system"], "system")
    for name in ("thinking", "output_config", "output_format"):
        if not isinstance(value.get(name), dict | None):
            raise InvalidParameter(f"{name} must be an object.", param=name)
    tools = value.get("tools")
    if not isinstance(tools, list | None):
        raise InvalidParameter("tools must be a list.", param="tools")
    return prompt, tools or []


def _is_client_tool(tool: object) -> bool:
    """Whether the client itself runs the tool: its own, or one that the API only describes."""
    kinds = tool_kinds(tool)
    return not kinds or kinds == ["custom"] or _is_own_tool(tool)


def _is_own_tool(tool: object) -> bool:
    kinds = tool_kinds(tool)
    return len(kinds) == 1 and _OWN_TOOL.fullmatch(kinds[0]) is not None


def _own_tool_tokens(tools: list[object]) -> int:
    return OWN_TOOL_TOKENS_MAX * sum(map(_is_own_tool, tools))


def _refuse_edits(management: object) -> None:
    if management is None:
        return
    edits = management.get("edits") if isinstance(management, dict) else None
    if not isinstance(edits, list) or not isinstance(management, dict) or len(management) > 1:
        raise UnsupportedParameter("Only edits are supported here.", param="context_management")
    if not all(isinstance(edit, dict) and edit.get("type") in _EDITS for edit in edits):
        raise UnsupportedParameter(
            "Only edits that clear are supported here: a summary is another call of the model.",
            param="context_management",
        )


def _lowered_thinking(body: Mapping[str, object], output_limit: int) -> dict[str, object]:
    """The thinking that fits below the limit; with too little room for any, none."""
    thinking = body.get("thinking")
    budget = thinking.get("budget_tokens") if isinstance(thinking, dict) else None
    if not isinstance(thinking, dict) or not isinstance(budget, int) or budget < output_limit:
        return {}
    if output_limit <= THOUGHT_TOKENS_MIN:
        return {"thinking": {"type": "disabled"}}
    return {"thinking": {**thinking, "budget_tokens": output_limit - 1}}
