"""What only Anthropic's clients ask of the paid road, over real HTTP."""

from collections.abc import AsyncIterator

import pytest

from tests.fakes.upstream_dialects import event, message_body, message_events
from tests.fakes.upstream_script import MODEL, Script
from tests.harness.funding import usage_rows
from tests.harness.shop import Shop, open_shop
from tests.harness.till import ON_SQLITE
from tests.web.voices import FUNDS_MSAT, MESSAGES, TWO_PIECES, assert_charged, events_in

pytestmark = ON_SQLITE


@pytest.fixture
async def shop(database_url: str) -> AsyncIterator[Shop]:
    async with open_shop(database_url) as shop:
        yield shop


async def test_a_message_is_refused_in_its_own_envelope(shop: Shop) -> None:
    key = await shop.key(FUNDS_MSAT)
    tools = [{"type": "web_search_20250305", "name": "web_search"}]
    body = MESSAGES.order(tools=tools)
    answer = await shop.http.post(MESSAGES.path, headers=key.headers, json=body)
    assert (answer.status_code, answer.json()["type"]) == (400, "error")
    assert answer.json()["error"]["code"] == "unsupported_parameter"
    assert shop.upstream.calls == []


async def test_the_upstreams_own_error_event_is_told_in_ours(shop: Shop) -> None:
    key = await shop.key(FUNDS_MSAT)
    error = {"type": "overloaded_error", "message": "Overloaded at api.example.org"}
    shop.upstream.default = Script(events=[*message_events()[:3], event("error", error=error)])
    answer = await shop.http.post(
        MESSAGES.path, headers=key.headers, json=MESSAGES.order(stream=True)
    )
    assert "example.org" not in answer.text
    assert events_in(answer.text)[-1]["error"]["code"] == "upstream_request_failed"
    await assert_charged(shop, key, "cut_after_output", "estimated", TWO_PIECES)


async def test_only_harmless_betas_pass(shop: Shop) -> None:
    key = await shop.key(FUNDS_MSAT)
    shop.upstream.default = message_body()
    for given, passed in (
        ("interleaved-thinking-2025-05-14,files-api-2025-04-14", "interleaved-thinking-2025-05-14"),
        ("files-api-2025-04-14", None),
    ):
        headers = {**key.headers, "anthropic-beta": given}
        await shop.http.post(MESSAGES.path, headers=headers, json=MESSAGES.order())
        assert shop.upstream.calls[-1].headers.get("anthropic-beta") == passed
    headers = {**key.headers, "anthropic-beta": "context-1m-2025-08-07"}
    refused = await shop.http.post(MESSAGES.path, headers=headers, json=MESSAGES.order())
    assert refused.json()["error"]["param"] == "anthropic-beta"
    assert len(shop.upstream.calls) == 2


async def test_counting_tokens_is_free_and_needs_a_key(shop: Shop) -> None:
    path = f"{MESSAGES.path}/count_tokens"
    key = await shop.key(0)
    shop.upstream.default = Script(body=b'{"input_tokens": 14}')
    body = {"model": MODEL, "messages": MESSAGES.asked["messages"]}
    answer = await shop.http.post(path, headers=key.headers, json=body)
    assert answer.status_code == 200
    assert answer.content == b'{"input_tokens": 14}'
    assert answer.headers["x-routstr-max-cost-msats"] == "0"
    assert answer.headers["x-routstr-cost-msats"] == "0"
    assert shop.upstream.calls[0].path == path
    [row] = await usage_rows(shop.ctx, key)
    assert row.amount_msat == 0
    unknown = {"authorization": f"Bearer sk-{'0' * 64}"}
    assert (await shop.http.post(path, headers=unknown, json=body)).status_code == 401
    assert (await shop.http.post(path, json=body)).json()["error"]["code"] == "missing_api_key"
    assert len(shop.upstream.calls) == 1
