"""What the bundled list of prices says: exact, the dearest where it depends, and never by guess."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from routstr.core.prices import CLASSES
from routstr.gateways.price_list import _bundled, known_price

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


def test_a_price_is_per_token() -> None:
    known = known_price("gpt-4o-mini", provider="openai", base_url="", now=NOW)
    assert known is not None
    assert known.context_length == 128_000
    assert known.usd["input"] == "0.00000015"
    assert known.usd["output"] == "0.0000006"
    assert known.usd["cache_read"] == "0.000000075"


def test_the_place_may_be_known_by_its_url() -> None:
    by_url = known_price(
        "mistral-large-latest", provider=None, base_url="https://api.mistral.ai/v1", now=NOW
    )
    assert by_url is not None
    local = known_price(
        "mistral-large-latest", provider=None, base_url="http://127.0.0.1:11434/v1", now=NOW
    )
    assert local is None


@pytest.mark.parametrize(
    "model",
    ["nobody-knows", "gpt-4o-audio-preview", "gpt-image-1", "gpt-4o-mini-search-preview",
     "o3-deep-research", "gpt-4o-realtime-preview", ""],
)  # fmt: skip
def test_what_is_not_wholly_known_has_no_price(model: str) -> None:
    assert known_price(model, provider="openai", base_url="", now=NOW) is None


def test_no_price_of_the_list_is_below_what_it_says() -> None:
    seen = 0
    for provider in _bundled().providers:
        if provider.id not in ("openai", "anthropic", "groq", "google"):
            continue
        for model in provider.models:
            known = known_price(model.id, provider=provider.id, base_url="", now=NOW)
            listed = getattr(model.get_prices(NOW), "input_mtok", None)
            if known is None or not isinstance(listed, Decimal) or not listed:
                continue
            assert set(known.usd) <= set(CLASSES)
            assert Decimal(known.usd["input"]) * 10**6 >= listed
            seen += 1
    assert seen > 100


def test_a_tier_counts_where_the_context_reaches_it() -> None:
    """Of Sonnet 4.5, prompts beyond 200 000 tokens cost twice as much."""
    prices = []
    for context_length in (0, 200_000, 1_000_000):
        known = known_price(
            "claude-sonnet-4-5", provider="anthropic", base_url="", now=NOW,
            context_length=context_length,
        )  # fmt: skip
        assert known is not None
        prices.append(Decimal(known.usd["input"]))
    assert prices[0] == prices[1] < prices[2]
