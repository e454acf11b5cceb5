"""Tokens that were given out: claimed, taken back unclaimed, and what the mint denies us."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from sqlalchemy import text

from routstr.ecash.token import BODY_BYTES_MAX, Token, decode_token, encode_token_v4
from routstr.flows.audit import audit
from routstr.flows.keys import Created
from routstr.flows.operate import finish_job, take_job
from routstr.flows.reconcile import RECONCILE_JOB, Bounds, reconcile
from routstr.flows.refunds import read_withdrawal
from routstr.flows.withdraw import Wish, WithdrawalView, withdraw
from routstr.ledger.book import KeyRef
from tests.fakes.mint import FakeMint, Trouble
from tests.harness.till import ON_SQLITE, Till, open_till, worth, ys_of

SWAP = "/v1/swap"
RESTORE = "/v1/restore"
CHECK = "/v1/checkstate"
LOST = Trouble(path="/v1/", processed=False, cut=True)
MONTH_S = 31 * 86_400


async def given(till: Till, amount: int = 21, *, of: int = 32) -> tuple[Created, WithdrawalView]:
    """A key, and a token that was taken out of it."""
    key = await till.create(till.mint.issue(of))
    wish = Wish(amount_sat=amount, idempotency_key="a", fingerprint="f")
    return key, await withdraw(till.ctx, KeyRef(id=key.key_id), wish)


async def now(till: Till, key: Created, view: WithdrawalView) -> WithdrawalView:
    return await read_withdrawal(till.ctx, KeyRef(id=key.key_id), view.id)


async def test_a_token_that_was_spent_is_claimed_and_erased(till: Till) -> None:
    key, view = await given(till)
    assert await reconcile(till.ctx) == (True, await _told(till, claimed=0))
    till.mint.set_spent(ys_of(str(view.token)))
    assert await reconcile(till.ctx) == (True, await _told(till, claimed=1))
    after = await now(till, key, view)
    assert (after.status, after.token) == ("claimed", None)
    assert await till.value("SELECT count(*) FROM withdrawal WHERE token IS NOT NULL") == 0
    wish = Wish(amount_sat=21, idempotency_key="a", fingerprint="f")
    again = await withdraw(till.ctx, KeyRef(id=key.key_id), wish)
    assert (again.id, again.status, again.token, again.is_replay) == (
        view.id,
        "claimed",
        None,
        True,
    )
    calls = len(till.mint.calls)
    await reconcile(till.ctx)
    assert len(till.mint.calls) == calls + 1  # what is still ours, and the token no more


async def _told(till: Till, *, claimed: int = 0, reclaimed: int = 0) -> dict[str, object]:
    return {
        "claimed": claimed,
        "reclaimed": reclaimed,
        "spent_elsewhere": [],
        "silent": {},
        "after": {till.mint.url: ["", ""]},
    }


async def test_a_token_nobody_wanted_goes_back_to_its_key(till: Till) -> None:
    key, view = await given(till)
    await till.later(MONTH_S)
    assert await reconcile(till.ctx) == (True, await _told(till, reclaimed=1))
    after = await now(till, key, view)
    assert (after.status, after.token, await till.balance(key)) == ("reclaimed", None, 32_000)
    assert set(till.mint.state_of(ys_of(str(view.token))).values()) == {"SPENT"}
    assert await till.held() == till.mint.unspent_total() == 32
    wish = Wish(amount_sat=21, idempotency_key="a", fingerprint="f")
    fresh = await withdraw(till.ctx, KeyRef(id=key.key_id), wish)  # the key is free again
    assert (fresh.id != view.id, worth(fresh.token)) == (True, 21)
    report = await audit(till.ctx, full=True, deep=True)
    assert report.ok


async def test_a_token_claimed_in_part_gives_back_the_rest(till: Till) -> None:
    key, view = await given(till)
    await _somebody_spends(till, view, 1)
    await till.later(MONTH_S)
    await reconcile(till.ctx)
    after = await now(till, key, view)
    proofs = decode_token(str(view.token), bytes_max=BODY_BYTES_MAX).proofs
    assert after.status == "reclaimed"
    assert await till.balance(key) == 32_000 - proofs[0].amount * 1000


async def _somebody_spends(till: Till, view: WithdrawalView, count: int | None = None) -> None:
    """Another node receives the token, or its first proofs."""
    token = decode_token(str(view.token), bytes_max=BODY_BYTES_MAX)
    part = Token(mint_url=token.mint_url, unit=token.unit, proofs=token.proofs[:count])
    till.mint.set_spent(ys_of(encode_token_v4(part)))


async def test_the_mints_fee_is_taken_from_what_comes_back(database_url: str) -> None:
    async with FakeMint(fee_ppk=100) as mint, open_till(database_url, mint) as till:
        key, view = await given(till, 21, of=33)
        await till.later(MONTH_S)
        await reconcile(till.ctx)
        assert (await now(till, key, view)).status == "reclaimed"
        assert await till.balance(key) == 31_000


@ON_SQLITE
async def test_what_costs_more_than_it_brings_stays_the_holders(database_url: str) -> None:
    async with FakeMint(fee_ppk=1_000) as mint, open_till(database_url, mint) as till:
        key, view = await given(till, 1, of=40)
        await till.later(MONTH_S)
        assert await reconcile(till.ctx) == (True, await _told(till))
        assert (await now(till, key, view)).token == view.token


# ── in the middle of it ───────────────────────────────────────────────────────────────────────


@ON_SQLITE
@pytest.mark.parametrize(
    "trouble",
    [
        Trouble(path=SWAP, cut=True),
        Trouble(path=SWAP, half=True),
        Trouble(path=SWAP, status=400, code=11000),
        Trouble(path=SWAP, processed=False, cut=True),
    ],
    ids=["cut", "half", "a lie", "lost"],
)
async def test_whatever_the_answer_said_it_comes_back_once(till: Till, trouble: Trouble) -> None:
    key, view = await given(till)
    await till.later(MONTH_S)
    till.mint.trouble(trouble)
    await reconcile(till.ctx)
    await reconcile(till.ctx)
    assert (await now(till, key, view)).status == "reclaimed"
    assert await till.balance(key) == 32_000


async def test_what_was_left_open_is_driven_on(till: Till) -> None:
    key, view = await given(till)
    await till.later(MONTH_S)
    till.mint.trouble(
        Trouble(path=SWAP, cut=True), Trouble(path=RESTORE, processed=False, cut=True)
    )
    await reconcile(till.ctx)
    assert (await now(till, key, view)).token == view.token  # the holder's, for all we know
    await till.assert_sound()
    await reconcile(till.ctx)  # does not begin another
    assert await till.value("SELECT count(*) FROM mint_operation WHERE kind = 'receive'") == 2
    assert await till.resume() == 1
    assert (await now(till, key, view)).status == "reclaimed"
    assert await till.balance(key) == 32_000


async def test_who_claims_it_at_that_moment_has_it(till: Till) -> None:
    key, view = await given(till)
    await till.later(MONTH_S)
    till.marks.at["reclaim.begun"] = _spender(till, view)
    await reconcile(till.ctx)
    assert (await now(till, key, view)).status == "claimed"
    assert await till.balance(key) == 11_000
    assert (await till.operations())[-1] == ("failed", "spent")


def _spender(till: Till, view: WithdrawalView) -> Callable[[], None]:
    return lambda: till.mint.set_spent(ys_of(str(view.token)))


async def test_claimed_while_the_answer_is_unknown_ends_after_the_watch(till: Till) -> None:
    key, view = await given(till)
    await till.later(MONTH_S)
    till.marks.at["reclaim.begun"] = lambda: till.mint.trouble(LOST, LOST)
    await reconcile(till.ctx)
    till.mint.set_spent(ys_of(str(view.token)))
    await till.resume()
    assert (await till.operations())[-1] == ("watch", "spent")
    assert (await now(till, key, view)).token == view.token
    await till.later(till.ctx.limits.mint_watch_s)
    await till.resume()
    assert (await now(till, key, view)).status == "claimed"
    assert await till.balance(key) == 11_000


@ON_SQLITE
async def test_keys_rotated_meanwhile_cost_another_hour(till: Till) -> None:
    key, view = await given(till)
    await till.later(MONTH_S)
    till.marks.at["reclaim.begun"] = lambda: till.mint.rotate() and None
    await reconcile(till.ctx)
    assert (await till.operations())[-1] == ("failed", "12002")
    assert (await now(till, key, view)).token == view.token
    del till.marks.at["reclaim.begun"]
    await reconcile(till.ctx)
    assert (await now(till, key, view)).status == "reclaimed"


async def test_killed_between_any_two_steps(sqlite_url: str, mint: FakeMint) -> None:
    """The process ends there and another one goes on from the rows."""
    steps = (
        "reconcile.spent",
        "reconcile.claimed",
        "reclaim.begun",
        "swap.prepared",
        "swap.sent",
        "swap.answered",
        "reclaim.signed",
        "reclaim.ended",
    )
    for step in steps:
        async with open_till(sqlite_url, mint, is_sound_at_end=False) as till:
            key = await till.create(mint.issue(32))
            view = await till.withdraw(key, 21)
            is_claimed = step.startswith("reconcile")
            if is_claimed:
                mint.set_spent(ys_of(str(view.token)))
            await till.later(MONTH_S)
            till.marks.at[step] = _die
            with pytest.raises(_Death):
                await reconcile(till.ctx)
        async with open_till(sqlite_url, mint) as till:
            await till.later(2 * MONTH_S)
            await till.resume()
            await reconcile(till.ctx)
            after = await now(till, key, view)
            assert after.status == ("claimed" if is_claimed else "reclaimed"), step
            assert await till.balance(key) == (11_000 if is_claimed else 32_000), step


class _Death(BaseException):
    """What no handler of the node catches."""


def _die() -> None:
    raise _Death


async def test_two_nodes_take_it_back_once(postgres_url: str, mint: FakeMint) -> None:
    async with (
        open_till(postgres_url, mint, owner="one") as one,
        open_till(postgres_url, mint, owner="two") as two,
    ):
        key, view = await given(one)
        await one.later(MONTH_S)
        await asyncio.gather(*(reconcile(each.ctx) for each in (one, two) for _ in range(3)))
        assert (await now(one, key, view)).status == "reclaimed"
        assert await one.balance(key) == 32_000
        refunds = "SELECT count(*) FROM \"transaction\" WHERE type = 'refund'"
        assert await one.value(refunds) == 1


# ── what the mint denies us ───────────────────────────────────────────────────────────────────


@pytest.fixture
async def robbed(sqlite_url: str, mint: FakeMint) -> AsyncIterator[Till]:
    async with open_till(sqlite_url, mint, is_sound_at_end=False) as till:
        yield till


async def test_coins_of_ours_that_are_spent_are_named_and_kept(robbed: Till) -> None:
    await robbed.create(robbed.mint.issue(21))
    y = str(await robbed.value("SELECT min(y) FROM proof WHERE state = 'unspent'"))
    robbed.mint.set_spent([y])
    ok, result = await reconcile(robbed.ctx)
    assert (ok, result["spent_elsewhere"]) == (False, [y])
    assert await robbed.held() == 21


async def test_a_silent_mint_hides_none_of_the_others(sqlite_url: str, mint: FakeMint) -> None:
    async with (
        FakeMint(units=("msat", "sat")) as other,
        open_till(sqlite_url, mint, more_mints=[other.url], is_sound_at_end=False) as till,
    ):
        key, view = await given(till)
        await till.create(other.issue(5))
        other.trouble(*[Trouble(path=CHECK, processed=False, cut=True)] * 2)
        till.mint.set_spent(ys_of(str(view.token)))
        ok, result = await reconcile(till.ctx)
        assert ok
        assert result["silent"] == {other.url: "MintUnknown"}
        assert (await now(till, key, view)).status == "claimed"


async def test_a_run_goes_on_where_the_last_one_ended(
    robbed: Till,
) -> None:
    key = await robbed.create(robbed.mint.issue(63))
    views = [await robbed.withdraw(key, amount) for amount in (3, 3, 3, 3)]
    for view in views:
        robbed.mint.set_spent(ys_of(str(view.token)))
    claimed = 0
    for _ in range(3):
        assert await take_job(robbed.ctx, RECONCILE_JOB, lease_s=1)
        ok, result = await reconcile(robbed.ctx, Bounds(batch=5, pages_max=1))
        claimed += int(str(result["claimed"]))
        await finish_job(robbed.ctx, RECONCILE_JOB, ok=ok, result=result, next_in_s=-1)
    assert claimed == 4


async def test_a_key_that_was_revoked_gets_it_all_the_same(robbed: Till) -> None:
    key, view = await given(robbed)
    async with robbed.ctx.database.writer.begin() as connection:
        await connection.execute(text("UPDATE apikey SET revoked_at = created_at"))
    await robbed.later(MONTH_S)
    await reconcile(robbed.ctx)
    assert await robbed.balance(key) == 32_000
    assert await robbed.value("SELECT status FROM withdrawal WHERE id = :id", id=view.id) == (
        "reclaimed"
    )
