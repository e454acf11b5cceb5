"""A model as clients see it: exact USD from USD prices, sats from the rates that are charged."""

import json
from decimal import Decimal
from typing import Any

import orjson

from routstr.core.listing import Described, model_json
from routstr.core.prices import priced, rates_msat, usd_prices, with_fee
from routstr.core.pricing import Model
from routstr.core.quote import max_cost_msat

BTC_USD = Decimal("97531.25")
USD = usd_prices({"input": "0.00000015", "output": "0.0000006", "cache_read": "0.000000075"})
FACTS = {
    "input_modalities": ["text", "image"], "output_modalities": ["text"], "tokenizer": "GPT",
    "supported_parameters": ["tools"], "is_moderated": True, "canonical_slug": "m-2025",
    "owned_by": "maker",
}  # fmt: skip


def sold(fee_ppm: int) -> Model:
    price = priced("m", rates_msat(USD, fee_ppm=fee_ppm, btc_usd=BTC_USD))
    return Model(id="m", name="M", context_length=1000, max_output_tokens=100, price=price)


def shown(model: Model, btc_usd: Decimal | None, described: Described | None = None) -> Any:
    text = orjson.dumps(model_json(model, btc_usd, described))
    return json.loads(text, parse_float=Decimal, parse_int=Decimal)


def test_usd_are_exact_and_hold_the_margin() -> None:
    usd = {name: with_fee(value, 100_000) for name, value in USD.items()}
    model = sold(100_000)
    body = shown(model, BTC_USD, Described(usd=usd))
    pricing, sats = body["pricing"], body["sats_pricing"]
    assert pricing["prompt"] == Decimal("0.000000165")
    assert pricing["completion"] == pricing["internal_reasoning"] == Decimal("0.00000066")
    assert (pricing["input_cache_read"], pricing["input_cache_write"]) == (
        Decimal("0.0000000825"),
        pricing["prompt"],
    )
    assert pricing["max_cost"] == 900 * pricing["prompt"] + 100 * pricing["completion"]
    assert sats["max_cost"] * 1000 == max_cost_msat(model)
    # What is charged is the same, rounded up.
    worth = sats["prompt"] * BTC_USD / 10**8
    assert pricing["prompt"] <= worth < pricing["prompt"] * Decimal("1.0001")


def test_what_was_set_in_msat_needs_a_rate_to_be_shown_in_usd() -> None:
    body = shown(sold(0), None)
    assert set(body["pricing"].values()) == {None}
    assert body["sats_pricing"]["prompt"] > 0
    assert shown(sold(0), BTC_USD)["pricing"]["prompt"] > 0


def test_what_is_known_of_a_model_is_told() -> None:
    known = Described(
        upstream="mine", forwarded_model_id="maker/m", aliases=["a", "b"], facts=FACTS
    )
    body = shown(sold(0), BTC_USD, known)
    assert body["architecture"] == {
        "modality": "text+image->text", "input_modalities": ["text", "image"],
        "output_modalities": ["text"], "tokenizer": "GPT", "instruct_type": None,
    }  # fmt: skip
    assert (body["upstream_provider_id"], body["forwarded_model_id"]) == ("mine", "maker/m")
    assert (body["alias_ids"], body["canonical_slug"]) == (["a", "b"], "m-2025")
    assert (body["supported_parameters"], body["owned_by"]) == (["tools"], "maker")
    assert body["top_provider"]["is_moderated"] is True
