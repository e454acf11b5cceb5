"""Responses: the order in a body, and what is forwarded of it (OpenAI).

Laws: the parameters read here are all there may be. Nothing is stored at the upstream, and nothing
that is stored there is read: all of the node's callers are one account to it.
"""

from collections.abc import Mapping
from typing import Final

import orjson

from routstr.core.dialects.base import Media, StreamMeter
from routstr.core.dialects.chat import laid_out_tokens, tools_bytes
from routstr.core.dialects.responses_answer import meter_response
from routstr.core.dialects.responses_input import prompt_of_input
from routstr.core.dialects.responses_stream import ResponsesStreamMeter, error_event
from routstr.core.order import Order, bool_in, lowered_limits, model_id_in, output_limit_in
from routstr.core.outcome import Tally
from routstr.core.providers import RESPONSES
from routstr.core.receipt import Receipt, cost_members, splice_cost
from routstr.core.strict_json import parse_strictly
from routstr.core.unsupported import (
    fold,
    refuse_dear_caches,
    refuse_thought_modes,
    refuse_unsupported,
)
from routstr.errors import InvalidParameter

LIMIT_FIELDS: Final = ("max_output_tokens",)

_READ: Final = (
    *("model", "input", "instructions", "stream", "stream_options", "max_output_tokens", "store"),
    *("tools", "tool_choice", "parallel_tool_calls", "max_tool_calls", "reasoning", "text"),
    *("truncation", "include", "metadata", "client_metadata", "user", "safety_identifier"),
    *("prompt_cache_key", "prompt_cache_retention", "prompt_cache_options"),
    *("temperature", "top_p", "top_logprobs"),
    # what upstreams of open models take besides
    *("top_k", "min_p", "seed", "stop", "frequency_penalty", "presence_penalty"),
    *("repetition_penalty", "logit_bias"),
)
# Folded name -> the one spelling that is read here.
READS: Final[Mapping[str, str]] = {fold(name): name for name in _READ}


class ResponsesDialect:
    """POST /responses."""

    path: Final = RESPONSES
    media: Final[Media] = "json"

    def parse(self, body: bytes, *, content_type: str, depth_max: int) -> Order:
        """The order; null means absent. Raises as `Dialect.parse`."""
        value, serialised = parse_strictly(body, depth_max)
        refuse_unsupported(value, READS, is_closed=True)
        refuse_dear_caches(value, serialised)
        _check_reasoning(value)
        bool_in(value, "store")
        prompt, media = prompt_of_input(value.get("input"))
        stream = bool_in(value, "stream")
        limit, limit_field = output_limit_in(value, LIMIT_FIELDS)
        tools = tools_bytes(value, "tools")
        return Order(
            model_id=model_id_in(value),
            stream=stream,
            usage_asked=stream,
            output_limit=limit,
            output_limit_field=limit_field,
            has_tools=tools > 0,
            input_unbounded=not prompt.is_bounded,
            media=media,
            has_files=prompt.has_files,
            prompt_bytes=len(serialised) + laid_out_tokens(value),
            prompt_text_bytes=prompt.text_bytes + _instructions_bytes(value) + tools,
            body=value,
        )

    def forward_body(
        self, order: Order, *, forwarded_model_id: str, output_limit: int | None = None
    ) -> bytes:
        """Nothing is stored, whatever the client asks."""
        body = {**order.body, "model": forwarded_model_id, "store": False}
        if output_limit is not None:
            body |= lowered_limits(order.body, LIMIT_FIELDS, output_limit)
        return orjson.dumps(body)

    def meter_body(self, body: bytes, *, order: Order, content_type: str, usage_cap: int) -> Tally:
        """The tally of a whole JSON answer; of one that is no JSON object, only that."""
        return meter_response(body, usage_cap=usage_cap)

    def with_cost(self, body: bytes, receipt: Receipt) -> bytes:
        """With the cost in `usage`."""
        return splice_cost(body, cost_members(receipt))

    def stream_meter(
        self, *, usage_asked: bool, usage_cap: int, event_bytes_max: int
    ) -> StreamMeter:
        """The meter of one stream; its usage always comes."""
        return ResponsesStreamMeter(usage_cap=usage_cap, event_bytes_max=event_bytes_max)

    def error_event(self, error: Mapping[str, object]) -> bytes:
        """`event: error`, because nothing is known of a response."""
        return error_event(error)


def _check_reasoning(value: Mapping[str, object]) -> None:
    """Raises UnsupportedParameter for a mode in which a thought is billed otherwise."""
    for name in ("reasoning", "text"):
        if not isinstance(value.get(name), dict | None):
            raise InvalidParameter(f"{name} must be an object.", param=name)
    refuse_thought_modes(value)


def _instructions_bytes(value: Mapping[str, object]) -> int:
    given = value.get("instructions")
    if not isinstance(given, str | None):
        raise InvalidParameter("instructions must be a text.", param="instructions")
    return len(given.encode()) if given else 0
