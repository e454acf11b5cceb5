"""Many requests on one key at once: exactly as many as it can pay are served."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from tests.fakes.upstream_script import Gate, Script
from tests.harness.funding import balance_msat, usage_rows
from tests.harness.shop import FLAT_MODEL, PATH, Shop, open_shop, order

REQUESTS = 200
PAYABLE = 20


@pytest.fixture
async def shop(database_url: str) -> AsyncIterator[Shop]:
    async with open_shop(database_url) as shop:
        yield shop


@pytest.mark.parametrize("stream", [False, True])
async def test_two_hundred_at_once_with_money_for_twenty(shop: Shop, stream: bool) -> None:
    key = await shop.key(PAYABLE * 1_000)
    body = order(model=FLAT_MODEL.id, stream=stream)

    async def ask() -> httpx.Response:
        return await shop.http.post(PATH, headers=key.headers, json=body)

    answers = await asyncio.gather(*(ask() for _ in range(REQUESTS)))
    statuses = [answer.status_code for answer in answers]
    assert statuses.count(200) == PAYABLE
    assert statuses.count(402) == REQUESTS - PAYABLE
    assert len(shop.upstream.calls) == PAYABLE
    await shop.quiet()
    assert await balance_msat(shop.ctx, key) == 0
    assert sum(-row.amount_msat for row in await usage_rows(shop.ctx, key)) == PAYABLE * 1_000


async def test_a_refusal_that_own_holds_cover_says_try_again(shop: Shop) -> None:
    key, gate = await shop.key(1_000), Gate()
    shop.upstream.default = Script(headers_gate=gate)
    body = order(model=FLAT_MODEL.id)
    first = asyncio.create_task(shop.http.post(PATH, headers=key.headers, json=body))
    await shop.upstream.called()
    second = await shop.http.post(PATH, headers=key.headers, json=body)
    assert second.status_code == 402
    assert second.headers["x-should-retry"] == "true"
    assert second.headers["retry-after"] == "1"
    assert second.json()["error"]["details"]["held_msat"] == 1_000
    gate.open_for_ever()
    assert (await first).status_code == 200
