"""Completions of a bare prompt: the order in a body, and what comes back (OpenAI, legacy)."""

from collections.abc import Mapping
from typing import Final

from routstr.core.dialects.chat import ChatDialect, usage_is_asked
from routstr.core.dialects.chat_answer import Part
from routstr.core.dialects.chat_stream import ChatStreamMeter
from routstr.core.order import (
    CHOICES_MAX,
    Order,
    bool_in,
    choices_in,
    count_in,
    model_id_in,
    output_limit_in,
)
from routstr.core.strict_json import parse_strictly
from routstr.core.unsupported import refuse_unsupported
from routstr.errors import InvalidParameter

LIMIT_FIELDS: Final = ("max_tokens",)

READS: Final[Mapping[str, str]] = {
    "model": "model",
    "prompt": "prompt",
    "stream": "stream",
    "streamoptions": "stream_options",
    "n": "n",
    "bestof": "best_of",
    "maxtokens": "max_tokens",
}


class CompletionsDialect(ChatDialect):
    """POST /completions: chat's ways with a prompt in place of messages."""

    path = "/completions"
    limit_fields = LIMIT_FIELDS
    part: Part = "text"

    def parse(self, body: bytes, *, content_type: str, depth_max: int) -> Order:
        """The order; each prompt gets `n` answers, of `best_of` that are generated and billed."""
        value, serialised = parse_strictly(body, depth_max)
        refuse_unsupported(value, READS)
        prompts, text_bytes = texts_in(value, "prompt")
        answers = max(choices_in(value), count_in(value, "best_of", most=CHOICES_MAX) or 1)
        if prompts * answers > CHOICES_MAX:
            raise InvalidParameter(
                f"prompts times answers must be at most {CHOICES_MAX}.", param="prompt"
            )
        stream = bool_in(value, "stream")
        limit, limit_field = output_limit_in(value, LIMIT_FIELDS)
        return Order(
            model_id=model_id_in(value),
            stream=stream,
            usage_asked=usage_is_asked(value) and stream,
            n=prompts * answers,
            inputs=prompts,
            output_limit=limit,
            output_limit_field=limit_field,
            prompt_bytes=len(serialised),
            prompt_text_bytes=text_bytes,
            body=value,
        )

    def stream_meter(
        self, *, usage_asked: bool, usage_cap: int, event_bytes_max: int
    ) -> "CompletionsStreamMeter":
        """The meter of one stream."""
        return CompletionsStreamMeter(
            usage_asked=usage_asked, usage_cap=usage_cap, event_bytes_max=event_bytes_max
        )


class CompletionsStreamMeter(ChatStreamMeter):
    """Chunks whose choices have their text beside the index."""

    part: Part = "text"
    chunk_object = "text_completion"
    nothing_more: Mapping[str, object] = {"text": "", "logprobs": None}


def texts_in(value: Mapping[str, object], name: str) -> tuple[int, int]:
    """How many texts a parameter holds, and their UTF-8 bytes, four for each token given as such.

    A text, a list of texts, a list of tokens, or a list of those. Raises InvalidParameter.
    """
    given = value.get(name)
    if isinstance(given, str):
        return 1, len(given.encode())
    if not isinstance(given, list) or not given:
        raise InvalidParameter(f"{name} must be a text or a list of at least one.", param=name)
    if all(type(item) is int for item in given):
        return 1, 4 * len(given)
    if all(isinstance(item, str) for item in given):
        return len(given), sum(len(item.encode()) for item in given)
    if all(_is_tokens(item) for item in given):
        return len(given), sum(4 * len(item) for item in given)
    raise InvalidParameter(f"{name} must hold texts, or tokens, not both.", param=name)


def _is_tokens(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(type(item) is int for item in value)
