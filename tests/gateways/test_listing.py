"""Lists of models in every upstream's shape, and what is believed of a hostile one."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routstr.core.prices import CLASSES, decimal_from
from routstr.gateways.listing import BadListing, ListedModel, read_listing
from routstr.gateways.listing_http import ModelLists, NoListing
from routstr.gateways.upstream_config import UpstreamConfig
from routstr.log import Secret
from tests.fakes.lister import FakeLister

OPENROUTER = {
    "id": "maker/model", "canonical_slug": "maker/model-2025", "name": "Maker: Model",
    "created": 1_700_000_000, "description": "Does\x1b[31m things", "context_length": 128_000,
    "architecture": {
        "input_modalities": ["text", "image"], "output_modalities": ["text"],
        "tokenizer": "GPT", "instruct_type": None,
    },
    "pricing": {
        "prompt": "0.00000015", "completion": "0.0000006", "request": "0", "image": "0.000217",
        "web_search": "0.01", "internal_reasoning": "0", "input_cache_read": "0.000000075",
    },
    "top_provider": {
        "context_length": 128_000, "max_completion_tokens": 16_384, "is_moderated": True,
    },
    "supported_parameters": ["max_tokens", "tools"],
}  # fmt: skip


def read(value: Any) -> list[ListedModel]:
    return read_listing(json.dumps(value).encode())


def test_openrouter() -> None:
    [model] = read({"data": [OPENROUTER]})
    assert (model.id, model.name) == ("maker/model", "Maker: Model")
    assert (model.context_length, model.max_output_tokens) == (128_000, 16_384)
    assert model.usd == {  # the price of an image is none of a token
        "input": "0.00000015",
        "output": "0.0000006",
        "cache_read": "0.000000075",
        "web_search": "0.01",
    }
    assert model.facts["input_modalities"] == ["text", "image"]
    assert (model.facts["description"], model.facts["is_moderated"]) == ("Does [31m things", True)


@pytest.mark.parametrize(
    ("entry", "lengths"),
    [
        ({"id": "gpt", "object": "model", "owned_by": "openai"}, (0, 0)),
        ({"id": "llama", "context_window": 8192, "max_completion_tokens": 4096}, (8192, 4096)),
        ({"id": "vllm", "max_model_len": 32_768}, (32_768, 0)),
        ({"id": "claude", "type": "model", "max_input_tokens": 200_000, "max_tokens": 64_000},
         (200_000, 64_000)),
        ({"id": "odd", "context_length": 10, "max_tokens": 99}, (10, 10)),
        ({"id": "lies", "context_length": -1, "max_model_len": 10**9, "max_tokens": True}, (0, 0)),
    ],
)  # fmt: skip
def test_lengths_by_their_many_names(entry: dict[str, object], lengths: tuple[int, int]) -> None:
    [model] = read({"object": "list", "data": [entry]})
    assert (model.context_length, model.max_output_tokens) == lengths
    assert (model.usd, model.is_priceless) == ({}, False)


@pytest.mark.parametrize(
    "pricing",
    [
        {"prompt": "-1", "completion": "-1"},
        {"prompt": "0.1", "completion": "many"},
        {"prompt": "0.1", "completion": None},
        {"prompt": "0", "completion": "0"},
    ],
)
def test_a_price_that_is_none_spoils_them_all(pricing: object) -> None:
    [model] = read([{"id": "m", "pricing": pricing}])
    assert (model.usd, model.is_priceless) == ({}, True)


def test_what_is_malformed_is_left_out() -> None:
    bad: list[Any] = [
        None,
        3,
        [],
        {},
        {"id": ""},
        {"id": 5},
        {"id": "a b"},
        {"id": "\n"},
        {"id": "x" * 201},
    ]
    models = read({"data": [*bad, {"id": "é"}, {"id": "m", "name": 1}, {"id": "m", "name": "2"}]})
    assert [(each.id, each.name) for each in models] == [("m", "2")]


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"null", b"{}", b'{"data": {}}', b'"x"', b"[" * 3000]
)
def test_what_is_no_list(body: bytes) -> None:
    with pytest.raises(BadListing):
        read_listing(body)
    with pytest.raises(BadListing, match="more than"):
        read([{"id": "m"}] * 5_001)


VALUES: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, -1, 0, 7, 2**70, 1.5, 1e300, "", "x", "1e-7", "-1", "x" * 5_000, "\u202e\n", [],
     ["a", 1, "b" * 100], {}, {"prompt": "1e-7"}, {"context_length": 5}, [[]]]
)  # fmt: skip
NAMES = st.sampled_from([*OPENROUTER, "max_tokens", "context_window", "owned_by"])


@given(st.dictionaries(NAMES, VALUES), VALUES, VALUES)
def test_whatever_is_listed_is_within_bounds(
    entry: dict[str, Any], price: object, name: object
) -> None:
    priced = {**entry, "id": "m", "pricing": {"prompt": price, "image": name}}
    for model in read({"data": [entry, priced]}):
        assert 0 <= model.max_output_tokens <= 10**8
        assert set(model.usd) <= set(CLASSES)
        assert all(decimal_from(text) for text in model.usd.values())
        assert len(json.dumps(model.facts)) < 20_000


@pytest.fixture
async def lister() -> AsyncIterator[FakeLister]:
    async with FakeLister() as server:
        yield server


def config(base_url: str, kind: str = "openai", **more: Any) -> UpstreamConfig:
    given = {"allow_loopback_http": True, "api_key": Secret("the-key"), **more}
    return UpstreamConfig(id="u", slug="u", provider_type=kind, base_url=base_url, **given)


async def test_each_kind_is_shown_the_key_in_its_own_way(lister: FakeLister) -> None:
    lists = ModelLists()
    lister.answer = {"data": [{"id": "m"}]}
    assert [each.id for each in await lists.fetch(config(lister.base_url))] == ["m"]
    await lists.fetch(config(lister.base_url, "anthropic"))
    await lists.fetch(config(lister.base_url, "ollama", api_key=Secret("")))
    assert await lists.fetch(config(lister.base_url, allow_loopback_http=False, is_local=True))
    openai, anthropic, ollama, _ = lister.seen
    assert openai.path_qs == "/v1/models"
    assert openai.headers["authorization"] == "Bearer the-key"
    assert (anthropic.headers["x-api-key"], anthropic.query["limit"]) == ("the-key", "1000")
    assert anthropic.headers["anthropic-version"] == "2023-06-01"
    assert "authorization" not in anthropic.headers
    assert "authorization" not in ollama.headers


async def test_what_an_upstream_may_not_do(lister: FakeLister) -> None:
    lists = ModelLists(total_s=0.5)
    places: list[tuple[str, dict[str, Any]]] = [
        (lister.base_url, {"allow_loopback_http": False}),
        (lister.base_url.replace("127.0.0.1", "localhost"), {"allow_loopback_http": False}),
        ("https://10.0.0.1/v1", {}),
        ("https://169.254.169.254/v1", {}),
        ("http://169.254.169.254/v1", {"is_local": True}),
        ("http://8.8.8.8/v1", {"is_local": True}),
    ]
    for base_url, more in places:
        with pytest.raises(NoListing):
            await lists.fetch(config(base_url, **more))
    assert lister.seen == []
    lister.status, lister.headers = 302, {"location": "/v1/models"}
    with pytest.raises(NoListing, match="status 302"):
        await lists.fetch(config(lister.base_url))
    lister.status, lister.headers, lister.body = 200, {}, b" " * (16 * 1024 * 1024 + 1)
    with pytest.raises(NoListing, match="too large"):
        await asyncio.wait_for(ModelLists().fetch(config(lister.base_url)), 10)
    lister.body, lister.headers = b"[]", {"content-encoding": "gzip"}
    with pytest.raises(NoListing, match="encoding"):
        await lists.fetch(config(lister.base_url))
