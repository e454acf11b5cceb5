"""What an upstream says it serves: its list of models, read as a stranger's.

Shapes: OpenAI and all that speak like it (ids, and what vLLM, Groq and others add), OpenRouter
(prices, context, modalities), Anthropic. Whatever is malformed is left out, entry by entry; nothing
here decides whether a model can be sold.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from routstr.core.prices import decimal_from, usd_prices, usd_texts
from routstr.core.pricing import CONTEXT_TOKENS_MAX

MODELS_MAX: Final = 5_000
ID_CHARS_MAX: Final = 200
TEXT_CHARS_MAX: Final = 1_000
WORDS_MAX: Final = 64
WORD_CHARS_MAX: Final = 64
IMAGE_PER_TOKEN_MAX: Final = 10  # times the price of a text token; more is a price per image

# The same fact under the names that servers give it.
_CONTEXT: Final = ("context_length", "context_window", "max_model_len", "max_input_tokens")
_OUTPUT: Final = ("max_completion_tokens", "max_output_tokens", "max_tokens")
# OpenRouter's names for prices, all per token but those of units.
_OPENROUTER: Final = {
    "prompt": "input",
    "completion": "output",
    "request": "request",
    "input_cache_read": "cache_read",
    "input_cache_write": "cache_write",
    "internal_reasoning": "reasoning",
    "audio": "audio_input",
    "image": "image_input",
    "image_output": "image_output",
    "web_search": "web_search",
}


class BadListing(Exception):
    """The list cannot be read; the message says why, never what it held."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedModel:
    """A model as listed: lengths in tokens, 0 where none is said; `usd` as `core.prices` has it.

    `is_priceless`: the list has a price that can be no price, so no other source is to be asked.
    """

    id: str
    name: str
    context_length: int = 0
    max_output_tokens: int = 0
    usd: Mapping[str, str] = field(default_factory=dict)
    is_priceless: bool = False
    facts: Mapping[str, object] = field(default_factory=dict)


def read_listing(body: bytes) -> list[ListedModel]:
    """The models of an answer to `GET /models`, each id once. Raises BadListing."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadListing("it is no JSON") from error
    entries = value.get("data") if isinstance(value, dict) else value
    if not isinstance(entries, list):
        raise BadListing("it lists nothing")
    if len(entries) > MODELS_MAX:
        raise BadListing(f"it lists more than {MODELS_MAX} models")
    models = (_model(entry) for entry in entries if isinstance(entry, dict))
    return list({each.id: each for each in models if each is not None}.values())


def _model(entry: Mapping[str, Any]) -> ListedModel | None:
    name = entry.get("id")
    if not isinstance(name, str) or not 0 < len(name) <= ID_CHARS_MAX:
        return None
    if not name.isascii() or not name.isprintable() or " " in name:
        return None
    top = entry.get("top_provider")
    top = top if isinstance(top, dict) else {}
    context = _first_length(entry, _CONTEXT) or _first_length(top, _CONTEXT)
    output = _first_length(top, _OUTPUT) or _first_length(entry, _OUTPUT)
    usd, is_priceless = _openrouter_prices(entry.get("pricing"))
    return ListedModel(
        id=name,
        name=_text(entry.get("name")) or _text(entry.get("display_name")) or name,
        context_length=context,
        max_output_tokens=min(output, context) if context else output,
        usd=usd,
        is_priceless=is_priceless,
        facts=_facts(entry, top),
    )


def _first_length(entry: Mapping[str, Any], names: Sequence[str]) -> int:
    for name in names:
        value = entry.get(name)
        if type(value) is int and 0 < value <= CONTEXT_TOKENS_MAX:
            return value
    return 0


def _openrouter_prices(said: object) -> tuple[dict[str, str], bool]:
    """Prices of a list that has some; a price that is none (`-1`: it depends) spoils them all."""
    if not isinstance(said, dict) or not ("prompt" in said or "completion" in said):
        return {}, False
    known = {ours: said[theirs] for theirs, ours in _OPENROUTER.items() if theirs in said}
    if any(decimal_from(value) is None for value in known.values()):
        return {}, True
    prices = dict(usd_prices(known))
    image, text = prices.get("image_input"), prices.get("input")
    if image is not None and (text is None or image > text * IMAGE_PER_TOKEN_MAX):
        del prices["image_input"]
    return usd_texts(prices), not prices


def _facts(entry: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, object]:
    """What only describes the model."""
    shape = entry.get("architecture")
    shape = shape if isinstance(shape, dict) else {}
    created = entry.get("created")
    found: dict[str, object] = {
        "description": _text(entry.get("description")),
        "owned_by": _text(entry.get("owned_by")),
        "canonical_slug": _text(entry.get("canonical_slug")),
        "created": created if type(created) is int and 0 <= created < 2**40 else None,
        "input_modalities": _words(shape.get("input_modalities")),
        "output_modalities": _words(shape.get("output_modalities")),
        "tokenizer": _text(shape.get("tokenizer")),
        "instruct_type": _text(shape.get("instruct_type")),
        "supported_parameters": _words(entry.get("supported_parameters")),
        "is_moderated": True if top.get("is_moderated") is True else None,
    }
    return {name: value for name, value in found.items() if value is not None}


def _text(value: object) -> str | None:
    """A text for people, shortened, without what a page or a terminal would act on."""
    if not isinstance(value, str):
        return None
    clean = "".join(char if char.isprintable() else " " for char in value[:TEXT_CHARS_MAX])
    return clean.strip() or None


def _words(value: object) -> list[str] | None:
    if not isinstance(value, list):
        return None
    words = [each for each in value[:WORDS_MAX] if isinstance(each, str)]
    return [each for each in words if 0 < len(each) <= WORD_CHARS_MAX and each.isprintable()]
