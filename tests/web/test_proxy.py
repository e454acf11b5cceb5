"""The paid road over real HTTP: an OpenAI client in front, an upstream behind, the books after."""

from collections.abc import AsyncIterator

import pytest

from tests.harness.funding import balance_msat, told, usage_rows
from tests.harness.shop import PATH, Shop, open_shop, order


@pytest.fixture
async def shop(database_url: str) -> AsyncIterator[Shop]:
    async with open_shop(database_url) as shop:
        yield shop


async def test_a_paid_request_costs_its_usage_and_says_so(shop: Shop) -> None:
    key = await shop.key(1_000_000)
    answer = await shop.http.post(PATH, headers=key.headers, json=order())
    assert answer.status_code == 200, answer.text
    print(answer.headers, answer.text)
    [row] = await usage_rows(shop.ctx, key)
    print(told(row))
    assert await balance_msat(shop.ctx, key) == 1_000_000 - 145


async def test_stream(shop: Shop) -> None:
    key = await shop.key(1_000_000)
    answer = await shop.http.post(PATH, headers=key.headers, json=order(stream=True))
    assert answer.status_code == 200, answer.text
    print(answer.headers, answer.text)
    [row] = await usage_rows(shop.ctx, key)
    print(told(row))
    assert await balance_msat(shop.ctx, key) == 1_000_000 - 145
