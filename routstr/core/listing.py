"""A model as `/v1/models` shows it: names for people and machines, prices in USD and in sats.

Prices are exact decimals, written as JSON numbers without exponent. Source: the HTTP contract,
section 3.
"""

from decimal import Context, Decimal
from typing import Final

import orjson

from routstr.core.pricing import Model
from routstr.core.quote import max_cost_msat

SAT_PER_MSAT: Final = Decimal("0.001")
BTC_PER_MSAT: Final = Decimal("1e-11")
TOKENS_PER_MTOK_INVERSE: Final = Decimal("1e-6")
USD_STEP: Final = Decimal("1e-18")
EXACT: Final = Context(prec=80)


def model_json(model: Model, btc_usd: Decimal) -> dict[str, object]:
    """The Model object of the contract, for `orjson.dumps`."""
    return {
        "id": model.id,
        "object": "model",
        "created": model.created,
        "owned_by": "routstr",
        "name": model.name,
        "description": model.description,
        "context_length": model.context_length,
        "architecture": {
            "modality": "text->text",
            "input_modalities": ["text"],
            "output_modalities": ["text"],
            "tokenizer": "unknown",
            "instruct_type": None,
        },
        "pricing": _prices(model, EXACT.multiply(btc_usd, BTC_PER_MSAT)),
        "sats_pricing": _prices(model, SAT_PER_MSAT),
        "per_request_limits": None,
        "top_provider": {
            "context_length": model.context_length,
            "max_completion_tokens": model.max_output_tokens,
            "is_moderated": False,
        },
        "supported_parameters": ["max_tokens", "max_completion_tokens", "stream", "tools", "n"],
        "enabled": True,
        "upstream_provider_id": "upstream",
        "canonical_slug": model.id,
        "alias_ids": [],
        "forwarded_model_id": model.id,
        "price_version": model.price.version,
    }


def _prices(model: Model, per_msat: Decimal) -> dict[str, orjson.Fragment]:
    price = model.price
    output_msat = model.max_output_tokens * price.answer_msat_per_mtok()
    prompt_tokens = model.context_length - model.max_output_tokens
    prompt_msat = prompt_tokens * price.prompt_msat_per_mtok()
    per_token = EXACT.multiply(per_msat, TOKENS_PER_MTOK_INVERSE)
    return {
        "prompt": _number(price.input_msat_per_mtok, per_token),
        "completion": _number(price.output_msat_per_mtok, per_token),
        "input_cache_read": _number(price.read_msat_per_mtok, per_token),
        "input_cache_write": _number(price.creation_msat_per_mtok, per_token),
        "internal_reasoning": _number(price.thought_msat_per_mtok, per_token),
        "request": _number(price.request_msat, per_msat),
        "image": _number(price.image_msat or 0, per_msat),
        "web_search": _number(price.web_search_msat or 0, per_msat),
        "max_prompt_cost": _number(prompt_msat, per_token),
        "max_completion_cost": _number(output_msat, per_token),
        "max_cost": _number(max_cost_msat(model), per_msat),
    }


def _number(amount: int, per_unit: Decimal) -> orjson.Fragment:
    value = EXACT.multiply(Decimal(amount), per_unit)
    if -value.as_tuple().exponent > -USD_STEP.as_tuple().exponent:  # type: ignore[operator]  # finite
        value = EXACT.quantize(value, USD_STEP)
    text = format(EXACT.normalize(value), "f") if value else "0"
    return orjson.Fragment(text.encode())
