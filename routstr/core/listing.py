"""A model as `/v1/models` shows it: names for people and machines, prices in USD and in sats.

Prices are exact decimals, written as JSON numbers without exponent. Source: the HTTP contract,
section 3.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Context, Decimal
from typing import Final

import orjson

from routstr.core.prices import UsdPrices
from routstr.core.pricing import Model
from routstr.core.quote import max_cost_msat

SAT_PER_MSAT: Final = Decimal("0.001")
BTC_PER_MSAT: Final = Decimal("1e-11")
TOKENS_PER_MTOK_INVERSE: Final = Decimal("1e-6")
USD_STEP: Final = Decimal("1e-18")
EXACT: Final = Context(prec=80)
PARAMETERS: Final = ("max_tokens", "max_completion_tokens", "stream", "tools", "n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """What is known of a model beside its price and its limits.

    `usd` is its price in USD by the names of `core.prices`, empty for one that was set in msat;
    `facts` is what its upstream says of it.
    """

    upstream: str = "upstream"
    forwarded_model_id: str | None = None
    aliases: Sequence[str] = ()
    usd: UsdPrices = field(default_factory=dict)
    facts: Mapping[str, object] = field(default_factory=dict)


def model_json(
    model: Model, btc_usd: Decimal | None, described: Described | None = None
) -> dict[str, object]:
    """The Model object of the contract, for `orjson.dumps`.

    Without a rate, what was priced in msat has no price in USD: its numbers are null.
    """
    known = described or Described()
    facts = known.facts
    inputs, outputs = _words(facts, "input_modalities"), _words(facts, "output_modalities")
    inputs, outputs = inputs or ["text"], outputs or ["text"]
    in_sats = _from_msat(model, SAT_PER_MSAT)
    in_usd = dict.fromkeys(in_sats)
    if known.usd:
        in_usd = _from_usd(model, known.usd)
    elif btc_usd is not None:
        in_usd = _from_msat(model, EXACT.multiply(btc_usd, BTC_PER_MSAT))
    return {
        "id": model.id,
        "object": "model",
        "created": model.created,
        "owned_by": facts.get("owned_by") or "routstr",
        "name": model.name,
        "description": model.description,
        "context_length": model.context_length,
        "architecture": {
            "modality": f"{'+'.join(inputs)}->{'+'.join(outputs)}",
            "input_modalities": inputs,
            "output_modalities": outputs,
            "tokenizer": facts.get("tokenizer") or "unknown",
            "instruct_type": facts.get("instruct_type"),
        },
        "pricing": {name: _number(value) for name, value in in_usd.items()},
        "sats_pricing": {name: _number(value) for name, value in in_sats.items()},
        "per_request_limits": None,
        "top_provider": {
            "context_length": model.context_length,
            "max_completion_tokens": model.max_output_tokens,
            "is_moderated": facts.get("is_moderated") is True,
        },
        "supported_parameters": _words(facts, "supported_parameters") or list(PARAMETERS),
        "enabled": True,
        "upstream_provider_id": known.upstream,
        "canonical_slug": facts.get("canonical_slug") or model.id,
        "alias_ids": list(known.aliases),
        "forwarded_model_id": known.forwarded_model_id or model.id,
        "price_version": model.price.version,
    }


def _words(facts: Mapping[str, object], name: str) -> list[str]:
    said = facts.get(name)
    return [str(each) for each in said] if isinstance(said, list) else []


Shown = dict[str, Decimal | None]


def _from_msat(model: Model, per_msat: Decimal) -> Shown:
    """The integer rates in another unit of money, of which a msat is `per_msat`."""
    price = model.price
    output_msat = model.max_output_tokens * price.answer_msat_per_mtok()
    prompt_tokens = model.context_length - model.max_output_tokens
    prompt_msat = prompt_tokens * price.prompt_msat_per_mtok()
    per_token = EXACT.multiply(per_msat, TOKENS_PER_MTOK_INVERSE)
    amounts = {
        "prompt": (price.input_msat_per_mtok, per_token),
        "completion": (price.output_msat_per_mtok, per_token),
        "input_cache_read": (price.read_msat_per_mtok, per_token),
        "input_cache_write": (price.creation_msat_per_mtok, per_token),
        "internal_reasoning": (price.thought_msat_per_mtok, per_token),
        "request": (price.request_msat, per_msat),
        "image": (price.image_msat or 0, per_msat),
        "web_search": (price.web_search_msat or 0, per_msat),
        "max_prompt_cost": (prompt_msat, per_token),
        "max_completion_cost": (output_msat, per_token),
        "max_cost": (max_cost_msat(model), per_msat),
    }
    return {name: EXACT.multiply(Decimal(n), per) for name, (n, per) in amounts.items()}


def _from_usd(model: Model, usd: UsdPrices) -> Shown:
    """The same in USD, from the USD prices themselves."""
    zero = Decimal(0)
    prompt = usd.get("input") or usd.get("output") or zero
    completion = usd.get("output") or prompt
    cached = [usd.get(name) or prompt for name in ("cache_read", "cache_write")]
    thought = usd.get("reasoning") or completion
    media_in = [usd.get(name) or zero for name in ("audio_input", "image_input")]
    media_out = [usd.get(name) or zero for name in ("audio_output", "image_output")]
    prompt_tokens = Decimal(model.context_length - model.max_output_tokens)
    max_prompt = EXACT.multiply(prompt_tokens, max(prompt, *cached, *media_in))
    max_answer = EXACT.multiply(
        Decimal(model.max_output_tokens), max(completion, thought, *media_out)
    )
    request = usd.get("request") or zero
    return {
        "prompt": prompt,
        "completion": completion,
        "input_cache_read": cached[0],
        "input_cache_write": cached[1],
        "internal_reasoning": thought,
        "request": request,
        "image": usd.get("image") or zero,
        "web_search": usd.get("web_search") or zero,
        "max_prompt_cost": max_prompt,
        "max_completion_cost": max_answer,
        "max_cost": EXACT.add(EXACT.add(max_prompt, max_answer), request),
    }


def _number(value: Decimal | None) -> orjson.Fragment | None:
    if value is None:
        return None
    if -value.as_tuple().exponent > -USD_STEP.as_tuple().exponent:  # type: ignore[operator]  # finite
        value = EXACT.quantize(value, USD_STEP)
    text = format(EXACT.normalize(value), "f") if value else "0"
    return orjson.Fragment(text.encode())
