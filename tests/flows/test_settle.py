"""Settling and renewing while the database is away, comes back, or has ended the hold itself."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

import httpx
import pytest
from sqlalchemy import text

from routstr.flows.expire import expire
from routstr.flows.renew import TOGETHER_MAX, renew
from routstr.ledger.columns import as_time
from tests.fakes.upstream_script import Gate, Script
from tests.harness.funding import FundedKey, balance_msat, told, usage_rows
from tests.harness.shop import PATH, Shop, open_shop, order

FUNDS_MSAT = 1_000_000


@pytest.fixture
async def shop(database_url: str) -> AsyncIterator[Shop]:
    async with open_shop(database_url, hold_owner_silent_s=0.01, hold_renew_s=5) as shop:
        yield shop


async def execute(shop: Shop, sql: str) -> None:
    async with shop.ctx.database.writer.begin() as connection:
        await connection.execute(text(sql))


async def take_away(shop: Shop) -> None:
    """From now on nothing can be settled or renewed."""
    await execute(shop, "ALTER TABLE reservation RENAME TO gone")


async def bring_back(shop: Shop) -> None:
    await execute(shop, "ALTER TABLE gone RENAME TO reservation")


async def deadline(shop: Shop) -> datetime:
    async with shop.ctx.database.reading() as connection:
        found = await connection.execute(text("SELECT deadline FROM reservation"))
        return as_time(found.scalar_one())


@asynccontextmanager
async def asking(
    shop: Shop, key: FundedKey, *, stream: bool
) -> AsyncIterator[tuple["asyncio.Task[httpx.Response]", Gate]]:
    """A request whose upstream has been asked and answers once its gate is opened."""
    gate = Gate()
    shop.upstream.default = Script(gate=gate)
    body = order(stream=stream)
    asked = asyncio.create_task(shop.http.post(PATH, headers=key.headers, json=body))
    await shop.upstream.called()
    yield asked, gate
    gate.open_for_ever()
    await asyncio.wait({asked})


@pytest.mark.parametrize("stream", [False, True])
async def test_settling_waits_for_a_database_that_comes_back(shop: Shop, stream: bool) -> None:
    key = await shop.key(FUNDS_MSAT)
    async with asking(shop, key, stream=stream) as (asked, gate):
        await shop.marks.reached("forward.answered")
        await take_away(shop)
        gate.open_for_ever()
        async with asyncio.timeout(10):
            while shop.marks.passed.count("settle.before") < 3:
                await shop.ctx.clock.sleep(0.01)
        assert not asked.done()
        await bring_back(shop)
        answer = await asked
    assert answer.status_code == 200
    assert '"total_msats":145,' in answer.text
    await shop.quiet()
    [row] = await usage_rows(shop.ctx, key)
    assert row.amount_msat == -145


@pytest.mark.parametrize("stream", [False, True])
async def test_what_cannot_be_charged_in_time_is_not_delivered(
    database_url: str, stream: bool
) -> None:
    async with open_shop(database_url, hold_lease_s=0.3) as shop:
        key = await shop.key(FUNDS_MSAT)
        async with asking(shop, key, stream=stream) as (asked, gate):
            await shop.marks.reached("forward.answered")
            await take_away(shop)
            gate.open_for_ever()
            answer = await asked
        await bring_back(shop)
        assert '"code":"internal_error"' in answer.text
        if stream:
            assert "DONE" not in answer.text
            assert "routstr" not in answer.text
        else:
            assert answer.status_code == 500
            assert answer.headers["x-should-retry"] == "false"
        assert await expire(shop.ctx) == 1
        [row] = await usage_rows(shop.ctx, key)
        assert (row.amount_msat, told(row)["outcome"]) == (0, "node_crashed")
        assert await balance_msat(shop.ctx, key) == FUNDS_MSAT


async def test_renewing_moves_the_deadline(shop: Shop) -> None:
    key = await shop.key(FUNDS_MSAT)
    async with asking(shop, key, stream=True) as (asked, gate):
        before = await deadline(shop)
        await renew(shop.ctx)
        assert await deadline(shop) > before
        gate.open_for_ever()
        assert (await asked).text.endswith("data: [DONE]\n\n")


async def test_thousands_of_holds_are_renewed_some_at_a_time(shop: Shop) -> None:
    key = await shop.key(FUNDS_MSAT)
    gone = [Exchange(str(number), key.id) for number in range(2 * TOGETHER_MAX + 1)]
    for each in gone:
        shop.ctx.holds.add(each.hold_id, each)
    before = shop.ctx.ledger.commands
    await renew(shop.ctx)
    assert shop.ctx.ledger.commands - before == 3
    assert all(each.is_stopped for each in gone)  # none of them is in the books
    for each in gone:
        shop.ctx.holds.remove(each.hold_id)


async def test_a_request_that_ends_while_holds_are_renewed_has_lost_nothing(shop: Shop) -> None:
    key = await shop.key(FUNDS_MSAT)
    ended, gone = Exchange("ended", key.id), Exchange("gone", key.id)
    for each in (ended, gone):
        shop.ctx.holds.add(each.hold_id, each)
    shop.marks.at["renew.after"] = lambda: shop.ctx.holds.remove("ended")
    await renew(shop.ctx)
    assert (ended.is_stopped, gone.is_stopped) == (False, True)
    shop.ctx.holds.remove("gone")


@dataclass
class Exchange:
    """As much of a request as renewing sees."""

    hold_id: str
    api_key_id: str
    is_stopped: bool = False

    def stop(self) -> None:
        self.is_stopped = True

    def renewed(self, lease_until_s: float) -> None:
        raise AssertionError(lease_until_s)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_hold_that_is_lost_stops_its_request_and_charges_nothing(
    shop: Shop, stream: bool
) -> None:
    key = await shop.key(FUNDS_MSAT)
    async with asking(shop, key, stream=stream) as (asked, _):
        await expire(shop.ctx, orphaned=True)
        await renew(shop.ctx)
        answer = await asked
    assert '"code":"not_ready"' in answer.text
    assert answer.status_code == (200 if stream else 503)
    await (await shop.upstream.called()).closed_by_client()
    [row] = await usage_rows(shop.ctx, key)
    assert (row.amount_msat, told(row)["outcome"]) == (0, "node_crashed")


@pytest.mark.parametrize("has_renewed", [True, False])
async def test_an_owner_that_cannot_renew_for_long_ends_its_requests(
    shop: Shop, has_renewed: bool
) -> None:
    key = await shop.key(FUNDS_MSAT)
    async with asking(shop, key, stream=True) as (asked, gate):
        await shop.marks.reached("forward.answered")
        gate.open(2)
        if has_renewed:
            await renew(shop.ctx)
        await take_away(shop)
        if not has_renewed:
            await renew(shop.ctx)
        await shop.ctx.clock.sleep(0.02)  # the owner's silence itself
        await renew(shop.ctx)
        await bring_back(shop)
        answer = await asked
    assert '"code":"not_ready"' in answer.text
    [row] = await usage_rows(shop.ctx, key)
    assert told(row)["outcome"] == "node_stopped"
    headers = {**key.headers, "idempotency-key": "after it"}
    healed = await shop.http.post(PATH, headers=headers, json=order())
    assert healed.status_code == 200, "the node has not stopped"


async def test_one_failed_renewal_is_not_yet_the_end(database_url: str) -> None:
    async with open_shop(database_url) as shop:
        key = await shop.key(FUNDS_MSAT)
        async with asking(shop, key, stream=True) as (asked, gate):
            await take_away(shop)
            await renew(shop.ctx)
            await bring_back(shop)
            gate.open_for_ever()
            answer = await asked
        assert answer.text.endswith("data: [DONE]\n\n")
        await renew(shop.ctx)  # with nothing to renew
        assert shop.ctx.holds.renewed_at_s is not None
