"""Small change at hand: swaps of the node's own coins, which nobody else ever pays for."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import text

from routstr.ecash.bdhke import y_of
from routstr.ecash.token import BODY_BYTES_MAX, decode_token
from routstr.errors import MintShort, MintUnreachable, RefundPending
from routstr.flows.house.settings import change_settings
from routstr.flows.keys import Created
from routstr.flows.refill import refill
from routstr.flows.resume import resume
from routstr.flows.withdraw import WithdrawalView
from routstr.ledger.book import KeyRef
from tests.fakes.mint import FakeMint, Trouble
from tests.fakes.mint_ledger import JsonObject
from tests.fakes.upstream_script import Gate
from tests.harness.till import ON_SQLITE, Till, open_till, ys_of
from tests.ledger.node import reserve, settle

SWAP = "/v1/swap"
RESTORE = "/v1/restore"
LOST = Trouble(path="/v1/", processed=False, cut=True)
DAY_S = 86_400


async def swapped(till: Till) -> int:
    """How many own swaps one run of the job did."""
    ok, result = await refill(till.ctx)
    assert ok
    return int(str(result["swapped"]))


async def coins(till: Till, keyset_id: str = "%") -> Counter[int]:
    """The node's coins by amount."""
    sql = text(
        "SELECT amount, count(*) AS n FROM proof WHERE state = 'unspent'"
        " AND keyset_id LIKE :id GROUP BY amount"
    )
    async with till.ctx.database.reading() as connection:
        rows = await connection.execute(sql, {"id": keyset_id})
        return Counter({row.amount: row.n for row in rows})


async def without_ones(till: Till, amount: int = 1_000) -> Created:
    """A key at a node whose coins of 1 were all given out."""
    key = await till.create(till.mint.issue(amount))
    while (await coins(till))[1]:
        await till.withdraw(key, 1)
    return key


async def earn(till: Till, amount: int) -> None:
    """A customer spends all of a deposit: the coins are the node's."""
    key = await till.create(till.mint.issue(amount))
    balance = await till.balance(key)
    caller = KeyRef(id=key.key_id)
    await till.ctx.ledger.submit(reserve(f"req_{key.key_id}", caller, balance))
    await till.ctx.ledger.submit(settle(f"req_{key.key_id}", caller, balance))


def swaps(till: Till) -> int:
    return len([call for call in till.mint.calls if call.path == SWAP])


# ── the change float ──────────────────────────────────────────────────────────────────────────


async def test_large_coins_become_small_change(till: Till) -> None:
    key = await without_ones(till)
    held = await till.held()
    assert await swapped(till) == 1
    assert (await till.held(), till.mint.unspent_total()) == (held, 1_000)
    assert (await coins(till))[1] >= 16
    posted = swaps(till)
    for _ in range(16):
        await till.withdraw(key, 1)
    assert swaps(till) == posted  # no mint was asked
    assert await swapped(till) in {0, 1}
    assert await swapped(till) == 0


async def test_a_deposit_fills_the_float_first(till: Till) -> None:
    await without_ones(till)
    before = await coins(till)
    await till.create(till.mint.issue(300))
    gained = (await coins(till)) - before
    assert gained[1] > 1
    assert sum(coin * count for coin, count in gained.items()) == 300


async def test_a_fee_is_paid_from_the_surplus_or_not_at_all(database_url: str) -> None:
    async with FakeMint(fee_ppk=100) as mint, open_till(database_url, mint) as till:
        key = await without_ones(till)
        posted = swaps(till)
        assert await swapped(till) == 0
        assert swaps(till) == posted
        await earn(till, 600)
        balance = await till.balance(key)
        while (await coins(till))[1]:
            await till.withdraw(key, 1)
            balance -= 1_000
        assert await swapped(till) == 1
        assert await till.balance(key) == balance


@ON_SQLITE
async def test_a_fee_may_count_on_locked_ecash(database_url: str) -> None:
    """It stands against the balance credited for it; without it a crowd would get no change."""
    async with FakeMint(fee_ppk=100) as mint, open_till(database_url, mint) as till:
        await earn(till, 600)
        key = await without_ones(till)
        await till.create(mint.issue(900, lock_to=till.ctx.acceptance.current))
        assert await till.value("SELECT sum(amount) FROM proof WHERE state = 'locked'") == 900
        assert await swapped(till) == 1
        assert (await coins(till))[1] > 0
        assert await till.balance(key) > 0


async def test_withdrawals_at_the_same_time_never_get_the_same_coin(till: Till) -> None:
    key = await without_ones(till, 4_000)
    gate = Gate()
    till.mint.trouble(Trouble(path=SWAP, gate=gate))
    refilling = asyncio.create_task(refill(till.ctx))
    await till.mint.called(swaps(till) + 1, SWAP)
    results = await asyncio.gather(
        *(till.withdraw(key, 100 + n) for n in range(12)), return_exceptions=True
    )
    gate.open()
    await refilling
    refilling = asyncio.create_task(refill(till.ctx))
    results += await asyncio.gather(
        *(till.withdraw(key, 31 + n) for n in range(12)), return_exceptions=True
    )
    await refilling
    views = [each for each in results if isinstance(each, WithdrawalView)]
    others = {type(each) for each in results} - {WithdrawalView, tuple}
    assert others <= {MintShort, RefundPending}
    assert len(views) >= 20
    ys = [y for view in views for y in ys_of(str(view.token))]
    assert len(ys) == len(set(ys))
    assert set(till.mint.state_of(ys).values()) == {"UNSPENT"}


async def test_an_unknown_outcome_is_driven_on_and_no_other_begun(till: Till) -> None:
    await without_ones(till)
    held = await till.held()
    till.mint.trouble(
        Trouble(path=SWAP, cut=True), Trouble(path=RESTORE, processed=False, cut=True)
    )
    assert await swapped(till) == 0
    posted = swaps(till)
    assert await swapped(till) == 0
    assert swaps(till) == posted
    await till.assert_sound()
    assert await till.resume() == 1
    assert (await till.operations())[-1] == ("done", None)
    assert await till.held() == held
    assert (await coins(till))[1] >= 16


@ON_SQLITE
async def test_a_refusal_gives_the_coins_back_and_is_waited_out(till: Till) -> None:
    await without_ones(till)
    before = await coins(till)
    till.mint.trouble(Trouble(path=SWAP, processed=False, status=400, code=11006))
    assert await swapped(till) == 0
    assert await coins(till) == before
    posted = swaps(till)
    assert await swapped(till) == 0
    assert swaps(till) == posted
    await till.later(61)
    assert await swapped(till) == 1


async def test_killed_between_any_two_steps(sqlite_url: str, mint: FakeMint) -> None:
    """The process ends there and another one goes on from the rows."""
    for step in (
        "refill.begun",
        "swap.prepared",
        "swap.sent",
        "swap.answered",
        "own_swap.signed",
        "own_swap.ended",
    ):
        async with open_till(sqlite_url, mint, is_sound_at_end=False) as till:
            await without_ones(till, 100)
            held = await till.held()
            till.marks.at[step] = _die
            with pytest.raises(_Death):
                await refill(till.ctx)
        async with open_till(sqlite_url, mint) as till:
            await till.assert_sound()
            await till.later(100)
            assert await till.resume() == (step != "own_swap.ended"), step
            assert (await till.operations())[-1] == ("done", None), step
            assert await till.held() == held, step


class _Death(BaseException):
    """What no handler of the node catches."""


def _die() -> None:
    raise _Death


async def test_coins_of_ours_that_somebody_spent_are_lost_after_the_watch(
    sqlite_url: str, mint: FakeMint
) -> None:
    async with open_till(sqlite_url, mint, is_sound_at_end=False) as till:
        await earn(till, 1_000)
        await without_ones(till, 100)
        held = await till.held()
        with robber(till) as robbed:
            assert await swapped(till) == 0
        assert (await till.operations())[-1] == ("watch", "spent")
        await till.resume()
        assert await till.held() == held
        await till.later(till.ctx.limits.mint_watch_s)
        await till.resume()
        assert (await till.operations())[-1] == ("failed", "watched")
        assert await till.value("SELECT count(*) FROM proof WHERE state = 'lost'") == len(robbed)
        await till.assert_sound()  # the earnings cover it


async def test_a_withdrawal_whose_coins_somebody_spent_goes_back_to_its_key(till: Till) -> None:
    """The operator bears it: the customer's money is on the key again, a day later."""
    await earn(till, 1_000)
    key = await without_ones(till, 100)
    before = await till.balance(key)
    with robber(till), pytest.raises(RefundPending):
        await till.withdraw(key, 1)
    assert await till.balance(key) == before - 1_000
    await till.later(till.ctx.limits.mint_watch_s)
    await till.resume()
    assert (await till.operations())[-1] == ("failed", "watched")
    assert await till.balance(key) == before
    assert await till.value("SELECT count(*) FROM proof WHERE state = 'lost'") > 0
    await till.withdraw(key, 2)


@contextmanager
def robber(till: Till) -> Iterator[list[str]]:
    """Somebody spends the inputs of the next swap before it arrives; yields them."""
    robbed: list[str] = []
    real = till.mint.ledger.swap

    def first_rob(request: JsonObject) -> JsonObject:
        inputs: list[JsonObject] = request["inputs"]  # type: ignore[assignment]  # as we sent it
        robbed.extend(y_of(str(each["secret"])) for each in inputs)
        till.mint.set_spent(robbed)
        return real(request)

    till.mint.ledger.swap = first_rob  # type: ignore[method-assign]  # for this one call
    yield robbed
    till.mint.ledger.swap = real  # type: ignore[method-assign]  # and back


# ── keysets that retire ───────────────────────────────────────────────────────────────────────


async def test_coins_of_a_keyset_that_was_replaced_move_on(till: Till) -> None:
    key = await till.create(till.mint.issue(1_000))
    old_id = next(iter(till.mint.ledger.keysets))
    new_id = till.mint.rotate()
    await till.later(till.ctx.limits.keyset_refresh_s + 1)
    assert await swapped(till) == 1
    assert not await coins(till, old_id)
    assert (await coins(till, new_id)).total() > 10
    posted = swaps(till)
    await till.withdraw(key, 100)
    assert swaps(till) == posted


@ON_SQLITE
async def test_coins_at_a_mint_that_was_taken_off_move_on_too(till: Till) -> None:
    """Of a keyset that ends they would be worth nothing; but no float is kept there."""
    await till.create(till.mint.issue(1_000))
    old_id = next(iter(till.mint.ledger.keysets))
    async with FakeMint(version="00") as other:
        await change_settings(till.ctx, {"cashu_mints": [other.url]}, changed_by="ann")
        assert await swapped(till) == 0
        till.mint.rotate()
        await till.later(till.ctx.limits.keyset_refresh_s + 1)
        assert await swapped(till) == 1
        assert not await coins(till, old_id)
        assert await swapped(till) == 0


@pytest.mark.parametrize(
    ("days", "earned", "moves"),
    [(40, True, False), (20, True, True), (20, False, False), (5, False, True), (-1, True, False)],
)
async def test_a_keyset_near_its_end_is_left_in_time(
    sqlite_url: str, days: int, earned: bool, moves: bool
) -> None:
    """With earnings that pay the fee; in the last week also without, as all would be lost."""
    async with (
        FakeMint(fee_ppk=100) as mint,
        open_till(sqlite_url, mint, is_sound_at_end=moves and earned) as till,
    ):
        end = int(till.clock.now().timestamp()) + days * DAY_S
        old_id = mint.ledger.rotate("sat", fee_ppk=100, final_expiry=end)
        await (earn if earned else till_create)(till, 200)
        new_id = mint.ledger.rotate("sat", fee_ppk=100)
        mint.ledger.keysets[old_id].active = True  # both are for a while
        await till.later(till.ctx.limits.keyset_refresh_s + 1)
        before = await coins(till, old_id)
        await refill(till.ctx)
        assert (await coins(till, old_id) != before) == moves
        assert bool(await coins(till, new_id)) == moves


async def till_create(till: Till, amount: int) -> None:
    await till.create(till.mint.issue(amount))


async def test_nobody_is_given_coins_that_are_worth_nothing_soon(till: Till) -> None:
    end = int(till.clock.now().timestamp()) + 10 * DAY_S
    old_id = till.mint.ledger.rotate("sat", fee_ppk=0, final_expiry=end)
    key = await till.create(till.mint.issue(64))
    new_id = till.mint.rotate()
    till.mint.ledger.keysets[old_id].active = True
    await till.later(till.ctx.limits.keyset_refresh_s + 1)
    await till.create(till.mint.issue(1))  # which asks the mint for its keysets
    view = await till.withdraw(key, 20)
    proofs = decode_token(str(view.token), bytes_max=BODY_BYTES_MAX).proofs
    assert {proof.keyset_id for proof in proofs} == {new_id}


# ── several mints ─────────────────────────────────────────────────────────────────────────────


async def test_a_mint_that_hangs_delays_no_other(sqlite_url: str, mint: FakeMint) -> None:
    async with (
        FakeMint(units=("msat", "sat")) as other,
        open_till(sqlite_url, mint, more_mints=[other.url], is_sound_at_end=False) as till,
    ):
        for each in (mint, other):
            await till.create(each.issue(1))
            for _ in range(2):
                each.trouble(LOST, LOST)
                with pytest.raises(MintUnreachable):
                    await till.create(each.issue(3))
            each._troubles.clear()
        gate = Gate()
        other.trouble(*[Trouble(path="/v1/", gate=gate)] * 2)
        await till.later(60)
        assert await resume(till.ctx, patience_s=0.5) == 2
        assert (await till.operations()).count(("done", None)) == 4
        assert await resume(till.ctx, patience_s=0.5) == 0  # nor is it asked a second time
        gate.open_for_ever()
        await till.ctx.tasks.finish(5)
        assert (await till.operations()).count(("done", None)) == 6
