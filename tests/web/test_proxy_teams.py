"""The paid road for child keys and for keys with limits, over real HTTP."""

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from routstr.core.quota import minute_of
from routstr.ledger.accounts import NewKey, OpenKey
from routstr.ledger.book import Book, KeyRef
from routstr.ledger.commands import Command
from tests.harness.funding import FundedKey, balance_msat, child_of, fund, usage_rows
from tests.harness.shop import PATH, Shop, open_shop, order
from tests.harness.till import ON_SQLITE

EXACT = 100 + 10 * 2 + 5 * 5  # the fake's usage: 10 tokens in, 5 out


@pytest.fixture
async def shop(database_url: str) -> AsyncIterator[Shop]:
    async with open_shop(database_url, key_tokens_per_minute=100) as shop:
        yield shop


@dataclass(slots=True, kw_only=True)
class Family:
    shop: Shop
    parent: FundedKey
    child: FundedKey

    async def ask(self, key: FundedKey, **more: Any) -> httpx.Response:
        return await self.shop.http.post(PATH, headers=key.headers, json=order(**more))


async def family(shop: Shop, **terms: Any) -> Family:
    parent = await shop.key()
    child = await child_of(shop.ctx, parent, **terms)
    return Family(shop=shop, parent=parent, child=child)


@dataclass(frozen=True, slots=True, kw_only=True)
class InMinute(Command[None]):
    """As if another node's clock were ahead."""

    key_ids: tuple[str, ...]
    minute: int

    @property
    def keys(self) -> tuple[KeyRef, ...]:
        return tuple(KeyRef(id=key_id) for key_id in self.key_ids)

    def apply(self, book: Book) -> None:
        for key in self.keys:
            book.put_account(book.account(key)._replace(rate_minute=self.minute))


def refused(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


async def test_a_childs_request_is_its_parents_charge(shop: Shop) -> None:
    team = await family(shop, balance_limit_msat=1000)
    answer = await team.ask(team.child, max_tokens=16)
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["remaining_balance_msats"] == 1000 - EXACT
    assert await balance_msat(shop.ctx, team.parent) == 1_000_000 - EXACT
    [row] = await usage_rows(shop.ctx, team.parent)
    assert row.request_data is not None
    assert (row.amount_msat, row.request_data["spender"]) == (-EXACT, team.child.id)
    assert not await usage_rows(shop.ctx, team.child)


@ON_SQLITE
async def test_a_child_at_its_cap_is_lowered_then_refused(shop: Shop) -> None:
    team = await family(shop, balance_limit_msat=450)
    lowered = await team.ask(team.child)
    assert lowered.status_code == 200, lowered.text
    assert int(lowered.headers["x-routstr-output-limit"]) < 100
    over = await team.ask(team.child)
    assert refused(over) == (402, "balance_limit_exceeded")
    assert over.json()["error"]["type"] == "balance_limit_exceeded"
    assert over.json()["error"]["details"]["available_msat"] == 450 - EXACT
    assert over.headers["x-should-retry"] == "false"
    assert (await team.ask(team.parent)).status_code == 200


@ON_SQLITE
async def test_a_limit_that_a_key_was_created_with_is_kept(shop: Shop) -> None:
    text = f"sk-{secrets.token_hex(32)}"
    key = NewKey(
        id=shop.ctx.new_id("key"),
        hash=shop.ctx.wallet.vault.key_hash(text),
        balance_limit_msat=200,
        limit_reset="monthly",
    )
    await shop.ctx.ledger.submit(OpenKey(key=key))
    await fund(shop.ctx, key.id, 100_000)
    headers = {"authorization": f"Bearer {text}"}
    answer = await shop.http.post(PATH, headers=headers, json=order())
    assert refused(answer) == (402, "balance_limit_exceeded")


@ON_SQLITE
async def test_a_limited_key_is_told_and_then_made_to_wait(shop: Shop) -> None:
    team = await family(shop, requests_per_minute=3)
    # The minute must not end in between: the counts are of one that is still to come.
    ahead = minute_of(shop.ctx.clock.now()) + 1
    await shop.ctx.ledger.submit(InMinute(key_ids=(team.parent.id, team.child.id), minute=ahead))
    first = await team.ask(team.child)
    assert first.headers["x-ratelimit-limit-requests"] == "3"
    assert first.headers["x-ratelimit-remaining-requests"] == "2"
    assert first.headers["x-ratelimit-remaining-tokens"] == "100"
    second = await team.ask(team.child)
    assert second.headers["x-ratelimit-remaining-tokens"] == "85"
    streamed = await team.ask(team.child, stream=True)
    assert streamed.headers["x-ratelimit-remaining-requests"] == "0"
    over = await team.ask(team.child)
    assert refused(over) == (429, "rate_limit_exceeded")
    assert over.headers["x-ratelimit-remaining-requests"] == "0"
    assert 1 <= int(over.headers["retry-after"]) <= 120
    assert over.headers["x-should-retry"] == "true"
    assert (await team.ask(team.parent)).status_code == 200
