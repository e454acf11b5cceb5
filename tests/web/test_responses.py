"""What only the clients of OpenAI's responses ask of the paid road, over real HTTP."""

from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from tests.fakes.upstream_dialects import event, response_body, response_events, response_stream
from tests.fakes.upstream_script import Script
from tests.harness.shop import Shop, open_shop
from tests.harness.till import ON_SQLITE
from tests.web.voices import (
    EXACT,
    FUNDS_MSAT,
    RESPONSES,
    TWO_PIECES,
    assert_charged,
    events_in,
)

pytestmark = ON_SQLITE


@pytest.fixture
async def shop(database_url: str) -> AsyncIterator[Shop]:
    async with open_shop(database_url) as shop:
        yield shop


async def test_nothing_is_stored_at_the_upstream(shop: Shop) -> None:
    key = await shop.key(FUNDS_MSAT)
    shop.upstream.default = response_body()
    body = RESPONSES.order(store=True)
    await shop.http.post(RESPONSES.path, headers=key.headers, json=body)
    assert shop.upstream.calls[0].json == {**body, "store": False}
    refused = await shop.http.post(
        RESPONSES.path, headers=key.headers, json={**body, "previous_response_id": "resp_1"}
    )
    assert refused.json()["error"]["param"] == "previous_response_id"
    assert len(shop.upstream.calls) == 1


async def test_a_response_that_failed_by_itself_tells_what_it_cost(shop: Shop) -> None:
    key = await shop.key(FUNDS_MSAT)
    error = {"code": "server_error", "message": "at api.example.org"}
    failed = event("response.failed", response={"status": "failed", "error": error})
    shop.upstream.default = Script(events=[*response_events()[:3], failed])
    answer = await shop.http.post(
        RESPONSES.path, headers=key.headers, json=RESPONSES.order(stream=True)
    )
    assert "example.org" not in answer.text
    last = events_in(answer.text)[-1]
    assert (last["type"], last["sequence_number"]) == ("response.failed", 3)
    assert last["response"]["id"] == "resp_fake"
    assert last["response"]["usage"]["cost"]["total_msats"] == TWO_PIECES
    await assert_charged(shop, key, "cut_after_output", "estimated", TWO_PIECES)


async def test_the_openai_sdk_reads_a_response_and_its_cost(shop: Shop) -> None:
    key = await shop.key(FUNDS_MSAT)
    asked: Any = RESPONSES.order()
    url = f"http://127.0.0.1:{shop.port}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key=key.text, max_retries=0) as client:
        shop.upstream.default = response_body()
        answer = await client.responses.create(**asked)
        assert answer.output_text == "one two three"
        assert answer.usage is not None
        assert answer.usage.model_extra is not None
        assert answer.usage.model_extra["cost"]["total_msats"] == EXACT
        shop.upstream.default = response_stream()
        stream = await client.responses.create(**asked, stream=True)
        events = [each async for each in stream]
    assert events[-1].type == "response.completed"
    assert events[-1].response.usage.model_extra["cost"]["total_msats"] == EXACT
