"""A shop that sells something of everything, for the official SDKs."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.core.test_units import BY_CHARACTER, BY_IMAGE, BY_SECOND
from tests.harness.funding import (
    FundedKey,
    assert_books_are_clean,
    balance_msat,
    told,
    usage_rows,
)
from tests.harness.shop import CHAT_MODEL, Shop, open_shop

FUNDS_MSAT = 1_000_000
MODELS = {
    CHAT_MODEL.id: CHAT_MODEL,
    "draws": BY_IMAGE,
    "speaks": BY_CHARACTER,
    "hears": BY_SECOND,
}

Billed = Callable[[int], Awaitable[None]]


@pytest.fixture
async def shop(database_url: str) -> AsyncIterator[Shop]:
    async with open_shop(database_url) as shop:
        shop.sell(MODELS)
        yield shop


@pytest.fixture
async def key(shop: Shop) -> FundedKey:
    return await shop.key(FUNDS_MSAT)


@pytest.fixture
def billed(shop: Shop, key: FundedKey) -> Billed:
    """Whether the one request that was made cost exactly that."""

    async def check(cost_msat: int) -> None:
        await shop.quiet()
        [row] = await usage_rows(shop.ctx, key)
        assert (-row.amount_msat, told(row)["evidence"]) == (cost_msat, "exact")
        assert await balance_msat(shop.ctx, key) == FUNDS_MSAT - cost_msat
        await assert_books_are_clean(shop.ctx)

    return check
