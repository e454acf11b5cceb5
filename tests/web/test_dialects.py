"""The endpoints that give no conversation, over real HTTP: charged to the msat by what they say."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.upstream_script import MODEL, Script
from tests.harness.funding import assert_books_are_clean, balance_msat, told, usage_rows
from tests.harness.shop import Shop, open_shop
from tests.harness.till import ON_SQLITE

FUNDS_MSAT = 1_000_000
COMPLETION = (Path(__file__).parents[1] / "recordings" / "completions" / "openai.sse").read_bytes()

pytestmark = ON_SQLITE


@pytest.fixture
async def shop(database_url: str) -> AsyncIterator[Shop]:
    async with open_shop(database_url) as shop:
        yield shop


@pytest.mark.parametrize(
    ("path", "body", "answer", "cost_msat", "outcome"),
    [
        (
            "completions",
            {"prompt": "Once", "max_tokens": 20},
            b'{"choices":[{"text":" upon","index":0,"finish_reason":"stop"}],'
            b'"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}',
            100 + 2 + 10,
            "completed",
        ),
        (
            "embeddings",
            {"input": ["one", "two"]},
            b'{"object":"list","data":[{"index":0,"embedding":[0.5]}],'
            b'"usage":{"prompt_tokens":6,"total_tokens":6}}',
            100 + 12,
            "completed",
        ),
        ("embeddings", {"input": "one"}, b'{"object":"list","data":[]}', 0, "empty"),
        ("moderations", {"input": "12345678"}, b'{"results":[{"flagged":false}]}', 100 + 4,
         "completed_no_usage"),
        (
            "rerank",
            {"query": "q", "documents": ["a", "b"]},
            b'{"results":[{"index":1,"relevance_score":0.9}],"usage":{"total_tokens":5}}',
            100 + 10,
            "completed",
        ),
    ],
)  # fmt: skip
async def test_an_answer_is_charged_by_what_it_says(
    shop: Shop, path: str, body: dict[str, Any], answer: bytes, cost_msat: int, outcome: str
) -> None:
    key = await shop.key(FUNDS_MSAT)
    shop.upstream.script(Script(body=answer))
    got = await shop.http.post(f"/v1/{path}", headers=key.headers, json={"model": MODEL, **body})
    assert got.status_code == 200
    assert got.headers["x-routstr-cost-msats"] == str(cost_msat)
    if b'"usage"' in answer:
        assert got.json()["usage"]["cost"]["total_msats"] == cost_msat
    else:
        assert got.content == answer
    assert shop.upstream.calls[0].path == f"/v1/{path}"
    [row] = await usage_rows(shop.ctx, key)
    assert told(row)["outcome"] == outcome
    assert await balance_msat(shop.ctx, key) == FUNDS_MSAT - cost_msat
    await assert_books_are_clean(shop.ctx)


async def test_a_stream_of_completions_is_charged_by_its_usage(shop: Shop) -> None:
    key = await shop.key(FUNDS_MSAT)
    events = [event + b"\n\n" for event in COMPLETION.split(b"\n\n") if event]
    shop.upstream.script(Script(events=events))
    body = {"model": MODEL, "prompt": "Once", "max_tokens": 20, "n": 2, "stream": True}
    got = await shop.http.post("/v1/completions", headers=key.headers, json=body)
    assert got.text.endswith("data: [DONE]\n\n")
    assert '"total_msats":143' in got.text
    assert await balance_msat(shop.ctx, key) == FUNDS_MSAT - (100 + 4 * 2 + 7 * 5)
    await assert_books_are_clean(shop.ctx)
