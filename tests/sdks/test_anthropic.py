"""Anthropic's own Python SDK buys messages, whole and streamed; a warning is an error."""

from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pytest

from tests.fakes.upstream_dialects import message_body, message_stream
from tests.fakes.upstream_script import MODEL, Script
from tests.harness.funding import FundedKey
from tests.harness.shop import Shop
from tests.harness.till import ON_SQLITE
from tests.sdks.conftest import Billed

pytestmark = ON_SQLITE

COST_MSAT = 100 + 10 * 2 + 5 * 5  # 10 tokens in, 5 out
ASKED: Any = {
    "model": MODEL,
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "Count to three."}],
}


@pytest.fixture
async def client(shop: Shop, key: FundedKey) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(
        base_url=f"http://127.0.0.1:{shop.port}", api_key=key.text, max_retries=0
    ) as client:
        yield client


async def test_a_message(client: anthropic.AsyncAnthropic, shop: Shop, billed: Billed) -> None:
    shop.upstream.script(message_body())
    answer = await client.messages.create(**ASKED)
    assert [block.type for block in answer.content] == ["text"]
    assert answer.usage.output_tokens == 5
    assert answer.usage.model_extra is not None
    assert answer.usage.model_extra["cost"]["total_msats"] == COST_MSAT
    await billed(COST_MSAT)


async def test_a_stream(client: anthropic.AsyncAnthropic, shop: Shop, billed: Billed) -> None:
    shop.upstream.script(message_stream())
    async with client.messages.stream(**ASKED) as stream:
        said = "".join([text async for text in stream.text_stream])
        final = await stream.get_final_message()
    assert said == "one two three"
    assert (final.stop_reason, final.usage.input_tokens) == ("end_turn", 10)
    await billed(COST_MSAT)


async def test_a_refusal(client: anthropic.AsyncAnthropic) -> None:
    with pytest.raises(anthropic.BadRequestError) as refused:
        await client.messages.create(**{**ASKED, "model": "no-such-model"})
    assert refused.value.body == refused.value.response.json()
    assert refused.value.response.json()["type"] == "error"


async def test_tokens_are_counted_for_nothing(client: anthropic.AsyncAnthropic, shop: Shop) -> None:
    shop.upstream.script(Script(body=b'{"input_tokens":14}'))
    counted = await client.messages.count_tokens(model=MODEL, messages=ASKED["messages"])
    assert counted.input_tokens == 14
