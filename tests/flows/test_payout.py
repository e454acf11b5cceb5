"""The operator brings ecash, takes profit, and never gets what belongs to users."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from routstr.errors import (
    IdempotencyMismatch,
    MintShort,
    MintUnreachable,
    Paused,
    ProfitTooSmall,
    RefundPending,
    TokenAlreadySpent,
    TokenRedemptionFailed,
    UntrustedMint,
)
from routstr.flows.bring import bring
from routstr.flows.operate import AUDIT_JOB, finish_job, take_job
from routstr.flows.payout import Once, profit_msat, send_all_profit, send_profit
from routstr.ledger.accounts import OWNER_KEY_ID
from tests.fakes.mint import FakeMint, Trouble
from tests.harness.till import ON_SQLITE, Till, open_till, worth, ys_of

SWAP = "/v1/swap"


@pytest.fixture
async def house(database_url: str) -> AsyncIterator[Till]:
    """A till at a mint with fees, that keeps nothing back, with a customer of 50 sat."""
    async with (
        FakeMint(fee_ppk=100, units=("sat", "msat")) as mint,
        open_till(database_url, mint, payout_keep_sats=0) as till,
    ):
        await till.create(mint.issue(51))
        yield till


async def test_what_the_operator_brought_is_what_can_be_taken(house: Till) -> None:
    brought = await bring(house.ctx, house.mint.issue(41))
    assert (brought.amount, brought.fee_amount) == (40, 1)
    assert await profit_msat(house.ctx) == 40_000
    with pytest.raises(ProfitTooSmall):
        await send_profit(house.ctx, 41, unit="sat")
    view = await send_profit(house.ctx, 30, unit="sat")
    assert worth(view.token) == 30
    assert await profit_msat(house.ctx) == 10_000 - view.fee_msat
    await house.assert_sound()


async def test_all_of_it_is_all_that_the_coins_make(house: Till) -> None:
    await bring(house.ctx, house.mint.issue(41))
    await bring(house.ctx, house.mint.issue(5_501, "msat"))
    views = await send_all_profit(house.ctx)
    given_msat = sum(view.amount_msat + view.fee_msat for view in views)
    assert given_msat + await profit_msat(house.ctx) == 45_500
    assert await profit_msat(house.ctx) < 3_000
    assert {worth(view.token) for view in views if view.unit == "sat"} <= set(range(38, 46))
    await house.assert_sound()


async def test_a_fee_for_change_comes_out_of_the_profit_too(house: Till) -> None:
    await bring(house.ctx, house.mint.issue(41))
    fees_msat = 0
    for _ in range(4):  # until the small coins are gone, and one must be swapped
        fees_msat += (await send_profit(house.ctx, 7, unit="sat")).fee_msat
    assert fees_msat > 0, "no payout needed a swap; ask for another amount"
    assert await profit_msat(house.ctx) == 40_000 - 28_000 - fees_msat


async def test_a_repeat_is_the_same_token_and_takes_nothing_more(house: Till) -> None:
    await bring(house.ctx, house.mint.issue(41))
    once = Once(idempotency_key="k", fingerprint="f")
    views = await asyncio.gather(
        *(send_profit(house.ctx, 30, unit="sat", once=once) for _ in range(4))
    )
    assert len({view.token for view in views}) == 1
    again = await send_profit(house.ctx, 30, unit="sat", once=once)
    assert (again.is_replay, again.token) == (True, views[0].token)
    with pytest.raises(IdempotencyMismatch):
        await send_profit(house.ctx, 5, unit="sat", once=replace(once, fingerprint="g"))
    assert await profit_msat(house.ctx) == 10_000 - views[0].fee_msat


async def test_a_repeat_finds_what_died_before_its_answer(house: Till) -> None:
    await bring(house.ctx, house.mint.issue(41))
    house.mint.cut_next_answer(SWAP)
    house.mint.trouble(Trouble(path="/v1/restore", processed=False, cut=True))
    for n in range(5):  # until one needs a swap
        once = Once(idempotency_key=f"k{n}", fingerprint="f")
        try:
            await send_profit(house.ctx, 7, unit="sat", once=once)
        except RefundPending:
            break
    left_msat = await profit_msat(house.ctx)
    await house.resume()
    view = await send_profit(house.ctx, 7, unit="sat", once=once)
    assert (view.is_replay, worth(view.token)) == (True, 7)
    assert await profit_msat(house.ctx) == left_msat


@ON_SQLITE
async def test_what_is_kept_back_stays(database_url: str, mint: FakeMint) -> None:
    async with open_till(database_url, mint, payout_keep_sats=30) as till:
        await bring(till.ctx, mint.issue(40))
        assert await profit_msat(till.ctx) == 10_000
        with pytest.raises(ProfitTooSmall):
            await send_profit(till.ctx, 11, unit="sat")
        assert [worth(view.token) for view in await send_all_profit(till.ctx)] == [10]
        with pytest.raises(ProfitTooSmall):
            await send_all_profit(till.ctx)


async def test_money_taken_and_not_paid_is_used_first(house: Till) -> None:
    await bring(house.ctx, house.mint.issue(41))
    house.marks.at["payout.taken"] = fail
    with pytest.raises(ZeroDivisionError):
        await send_profit(house.ctx, 40, unit="sat")
    del house.marks.at["payout.taken"]
    assert await house.balance(OWNER_KEY_ID) == 40_000
    assert await profit_msat(house.ctx) == 40_000
    await house.assert_sound()
    view = await send_profit(house.ctx, 7, unit="sat")
    assert await house.balance(OWNER_KEY_ID) == 33_000 - view.fee_msat


@ON_SQLITE
async def test_a_mint_that_cannot_pay_is_passed_by(house: Till) -> None:
    ctx = house.ctx
    with pytest.raises(UntrustedMint):
        await send_profit(ctx, 1, unit="sat", mint_url="https://elsewhere.example")
    with pytest.raises(MintShort):
        await send_profit(ctx, 1, unit="msat")
    with pytest.raises(ProfitTooSmall):
        await send_all_profit(ctx)


@ON_SQLITE
async def test_nothing_leaves_while_the_books_are_broken(house: Till) -> None:
    await bring(house.ctx, house.mint.issue(41))
    assert await take_job(house.ctx, AUDIT_JOB, lease_s=30)
    await finish_job(
        house.ctx, AUDIT_JOB, ok=False, result={"breaches": {"I-1": 1}}, next_in_s=3600
    )
    with pytest.raises(Paused):
        await send_profit(house.ctx, 1, unit="sat")
    with pytest.raises(Paused):
        await send_all_profit(house.ctx)
    assert await profit_msat(house.ctx) == 40_000


async def test_ecash_is_brought_once(house: Till) -> None:
    token = house.mint.issue(41)
    await bring(house.ctx, token)
    with pytest.raises(TokenAlreadySpent):
        await bring(house.ctx, token)
    assert [state for state, _ in await house.operations()] == ["done", "done"]
    customers = house.mint.issue(5)
    await house.create(customers)
    with pytest.raises(TokenAlreadySpent):
        await bring(house.ctx, customers)


async def test_an_answer_lost_while_bringing_is_found_again(house: Till) -> None:
    token = house.mint.issue(41)
    house.mint.cut_next_answer(SWAP)
    brought = await bring(house.ctx, token)
    assert brought.amount == 40
    assert set(house.mint.state_of(ys_of(token)).values()) == {"SPENT"}
    pending = house.mint.issue(8)
    house.mint.set_pending(ys_of(pending))
    with pytest.raises(MintUnreachable):
        await bring(house.ctx, pending)


@ON_SQLITE
async def test_ecash_that_somebody_else_took_meanwhile_is_refused(house: Till) -> None:
    token = house.mint.issue(41)
    house.marks.at["bring.begun"] = lambda: house.mint.set_spent(ys_of(token))
    with pytest.raises(TokenRedemptionFailed):
        await bring(house.ctx, token)
    assert await house.operations() == [("done", None), ("failed", "spent")]


def fail() -> None:
    raise ZeroDivisionError
