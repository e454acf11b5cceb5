"""What is on sale, who serves it, in which order, and when it is not."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from routstr.core.pricing import Model, Price
from routstr.errors import InvalidModel, ServiceUnavailable
from routstr.flows.catalog import Candidate, Catalog, Picture, built_in, listed
from routstr.flows.shown import models_page
from routstr.gateways.upstream_config import UpstreamConfig

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def model(name: str, *, input_: int = 10, output: int = 20) -> Model:
    price = Price(version="v", input_msat_per_mtok=input_, output_msat_per_mtok=output)
    return Model(id=name, name=name, context_length=100, max_output_tokens=10, price=price)


def candidate(slug: str, rate: int, *, weight: int = 0) -> Candidate:
    own = model("m", input_=rate * 10**6, output=rate * 10**6)
    return replace(built_in(own), upstream_slug=slug, weight=weight, context_length=50 + rate)


def test_the_cheapest_is_first_and_makes_the_price() -> None:
    each = [candidate("b", 2), candidate("light", 1), candidate("heavy", 1, weight=5)]
    listing = listed(model("m"), each)
    assert [each.upstream_slug for each in listing.candidates] == ["heavy", "light", "b"]
    assert listing.model.price == listing.candidates[0].price
    assert listing.model.context_length == 51


def test_what_is_sold_by_a_unit_is_compared_by_it() -> None:
    def painter(slug: str, image_msat: int) -> Candidate:
        own = candidate(slug, 0)
        return replace(own, price=replace(own.price, image_msat=image_msat))

    listing = listed(model("m"), [painter("dear", 20), painter("cheap", 10)])
    assert [each.upstream_slug for each in listing.candidates] == ["cheap", "dear"]


def test_aliases_lead_to_a_model_but_never_away_from_one() -> None:
    one = listed(model("one"), [candidate("a", 1)], aliases=["uno", "two"])
    two = listed(model("two"), [candidate("a", 1)], aliases=["uno"])
    catalog = Catalog()
    catalog.replace(Picture(listings={"one": one, "two": two}, not_sold={"three": "No price."}))
    assert [catalog.find(name).id for name in ("one", "uno", "two")] == ["one", "one", "two"]
    with pytest.raises(InvalidModel, match=r"No price\."):
        catalog.find("three")
    with pytest.raises(InvalidModel):
        catalog.find("four")


def test_a_price_with_an_old_rate_sells_nothing() -> None:
    time = NOON
    catalog = Catalog(now=lambda: time)
    sold = listed(model("m"), [replace(candidate("a", 1), good_until=NOON)])
    catalog.replace(Picture(listings={"m": sold}))
    assert catalog.find("m").id == "m"
    time = NOON + timedelta(seconds=1)
    with pytest.raises(ServiceUnavailable):
        catalog.find("m")
    assert len(catalog.all()) == 1


def test_models_of_the_settings_are_the_one_upstreams() -> None:
    [only] = Catalog([model("m")]).listing("m").candidates
    assert (only.upstream_id, only.forwarded_model_id) == ("upstream", "m")


@pytest.mark.parametrize(
    ("kind", "url", "reads_files"),
    [
        ("openai-compatible", "https://api.example.com/v1", True),
        ("openai-compatible", "https://notopenrouter.ai/v1", True),
        ("openai-compatible", "https://openrouter.ai/api/v1", False),
        ("openai-compatible", "https://eu.openrouter.ai/api/v1", False),
        ("openrouter", "https://proxy.example.com/v1", False),
    ],
)
def test_who_bills_documents_apart_gets_none(kind: str, url: str, *, reads_files: bool) -> None:
    upstream = UpstreamConfig(id="upstream", slug="up", base_url=url, provider_type=kind)
    [only] = Catalog([model("m")], upstream=upstream).listing("m").candidates
    assert only.reads_files is reads_files


def test_each_path_has_its_own_cheapest_and_the_dearest_is_published() -> None:
    chat = replace(candidate("chat", 3), paths=frozenset({"/chat/completions"}))
    both = replace(candidate("both", 2), paths=frozenset({"/messages", "/chat/completions"}))
    messages = replace(candidate("messages", 1), paths=frozenset({"/messages"}))
    catalog = Catalog()
    catalog.replace(Picture(listings={"m": listed(model("m"), [chat, both, messages])}))
    on = {path: catalog.listing("m", path) for path in ("/messages", "/chat/completions")}
    slugs = {path: [each.upstream_slug for each in at.candidates] for path, at in on.items()}
    assert slugs == {"/messages": ["messages", "both"], "/chat/completions": ["both", "chat"]}
    assert all(at.model.price == at.candidates[0].price for at in on.values())
    assert catalog.find("m").price == both.price
    with pytest.raises(InvalidModel, match="endpoint"):
        catalog.listing("m", "/embeddings")


def test_the_list_is_written_once_for_each_picture() -> None:
    catalog = Catalog([model("m")])
    first = models_page(catalog)
    assert models_page(catalog) is first
    catalog.replace(Picture(listings={"n": listed(model("n"), [candidate("a", 1)])}))
    assert b'"id":"n"' in models_page(catalog)
    assert b'"id":"m"' not in models_page(catalog)
