"""Money on keys that have expired: claimable, then the operator's; never both, never neither."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace

import pytest

from routstr.errors import InvalidParameter, KeyExpired, NoBalance
from routstr.flows.context import Context
from routstr.flows.house.expired import EXPIRE_KEYS_JOB, expire_keys, foresee_expired_keys
from routstr.flows.house.unclaimed import (
    TOKENS_MAX,
    WITHDRAWALS_JOB,
    foresee_withdrawals,
    withdrawals,
)
from routstr.flows.keys import Created
from routstr.flows.live import Switches
from routstr.flows.operate import take_job
from routstr.flows.refunds import read_withdrawal
from routstr.flows.withdraw import Wish, empty, withdraw
from routstr.ledger.book import KeyRef
from routstr.ledger.expiry import SweepExpired
from routstr.ledger.job_runs import EndRun, Run
from routstr.ledger.reads_wallet import house_money
from tests.fakes.mint import FakeMint, Trouble
from tests.harness.till import ON_SQLITE, Till, open_till, worth, ys_of
from tests.ledger.node import make_children, reserve, settle

LIFE_S = 100
CLAIM_S = 30 * 86_400
MINE = "SELECT id FROM withdrawal WHERE fingerprint = 'expired-key' ORDER BY created_at DESC"


def by_text(till: Till, key: Created) -> KeyRef:
    """Its owner, who has the key's text and nothing else."""
    return KeyRef(hash=till.ctx.wallet.vault.key_hash(key.api_key))


async def mortal(till: Till, amount: int = 21, *, spend_msat: int = 0) -> Created:
    """A key that expires soon."""
    date = int(till.clock.now().timestamp()) + LIFE_S
    key = await till.create(till.mint.issue(amount), validity_date=date)
    if spend_msat:
        await till.ctx.ledger.submit(reserve(f"h-{key.key_id}", KeyRef(id=key.key_id), spend_msat))
        ended = settle(f"h-{key.key_id}", KeyRef(id=key.key_id), spend_msat)
        await till.ctx.ledger.submit(ended)
    return key


async def ran(till: Till) -> dict[str, object]:
    """What a pass did, without what it did not."""
    ok, result = await expire_keys(till.ctx)
    assert ok
    await till.assert_sound()
    return {name: value for name, value in result.items() if value}


async def profit(till: Till) -> int:
    async with till.ctx.database.reading() as connection:
        return (await house_money(connection)).surplus_msat


async def test_it_is_claimable_and_what_is_no_token_is_swept(till: Till) -> None:
    key, living = await mortal(till, spend_msat=300), await till.create(till.mint.issue(8))
    assert await ran(till) == {}
    await till.later(LIFE_S + 1)
    before = await till.dump()
    told = {"issue": 1, "issue_msat": 20_700, "reclaim": 0, "reclaim_msat": 0}
    assert await foresee_expired_keys(till.ctx) == {**told, "sweep": 0, "sweep_msat": 0}
    assert await till.dump() == before
    assert await ran(till) == {"issued": 1, "issued_msat": 20_000}
    assert await ran(till) == {}
    view = await read_withdrawal(till.ctx, by_text(till, key), str(await till.value(MINE)))
    assert (view.status, worth(view.token)) == ("completed", 20)
    again = await withdraw(till.ctx, by_text(till, key), Wish())
    assert (again.id, again.token) == (view.id, view.token)
    with pytest.raises(KeyExpired):
        await till.topup(key, till.mint.issue(1))
    with pytest.raises(KeyExpired):
        await till.ctx.ledger.submit(reserve("more", KeyRef(id=key.key_id), 1))
    till.mint.set_spent(ys_of(str(view.token)))
    await till.later(CLAIM_S)
    told = {"issue": 0, "issue_msat": 0, "reclaim": 1, "reclaim_msat": 20_000}
    assert await foresee_expired_keys(till.ctx) == {**told, "sweep": 1, "sweep_msat": 700}
    earned = await profit(till)
    assert await ran(till) == {"claimed": 1, "swept": 1, "swept_msat": 700}
    assert await ran(till) == {}
    assert (await till.balance(key), await profit(till) - earned) == (0, 700)
    assert await till.balance(living) == 8_000


async def test_what_nobody_claims_is_the_operators(till: Till) -> None:
    key = await mortal(till)
    await till.later(LIFE_S + 1)
    await ran(till)
    view = await read_withdrawal(till.ctx, by_text(till, key), str(await till.value(MINE)))
    await till.later(CLAIM_S - LIFE_S)
    assert await ran(till) == {}
    await till.later(LIFE_S)
    earned = await profit(till)
    assert await ran(till) == {"reclaimed": 1, "swept": 1, "swept_msat": 21_000}
    assert await profit(till) - earned == 21_000
    assert set(till.mint.state_of(ys_of(str(view.token))).values()) == {"SPENT"}
    rows = "SELECT count(*) FROM \"transaction\" WHERE type = 'expiry'"
    assert (await ran(till), await till.value(rows), await till.balance(key)) == ({}, 1, 0)
    with pytest.raises(NoBalance):
        await withdraw(till.ctx, by_text(till, key), Wish())


@ON_SQLITE
async def test_a_token_taken_back_early_waits_on_its_key(database_url: str, mint: FakeMint) -> None:
    """By the refund time, which is shorter here: its owner has as long as was promised."""
    async with open_till(database_url, mint, refund_ttl_s=10) as till:
        key = await mortal(till)
        await till.later(LIFE_S + 1)
        await ran(till)
        await till.later(11)
        told = {"pending": 0, "pending_msat": 0, "reclaim": 1, "reclaim_msat": 21_000}
        assert await foresee_withdrawals(till.ctx) == told
        assert (await withdrawals(till.ctx))[1]["reclaimed"] == 1
        assert (await ran(till), await till.balance(key)) == ({}, 21_000)
        assert worth((await withdraw(till.ctx, by_text(till, key), Wish(amount_sat=1))).token) == 1
        await till.later(CLAIM_S)
        assert (await ran(till))["swept_msat"] == 20_000
        await withdrawals(till.ctx)  # the token of 1 sat comes back, and was never offered
        assert (await ran(till))["issued_msat"] == 1_000


@ON_SQLITE
async def test_what_is_held_or_not_its_own_is_left_alone(till: Till) -> None:
    key = await mortal(till)
    parent = KeyRef(id=key.key_id)
    await till.ctx.ledger.submit(make_children(parent, "child", balance_limit_msat=5_000))
    await till.ctx.ledger.submit(reserve("held", KeyRef(id="key_child"), 1_000))
    await till.later(LIFE_S + 1)
    assert await ran(till) == {}
    sweep = SweepExpired(api_key_id=key.key_id, version=1, claimable_s=0)
    assert await till.ctx.ledger.submit(sweep) == 0
    await till.ctx.ledger.submit(settle("held", parent, 400, spender_id="key_child"))
    with pytest.raises(KeyExpired):
        await till.ctx.ledger.submit(reserve("more", KeyRef(id="key_child"), 1))
    assert await ran(till) == {"issued": 1, "issued_msat": 20_000}
    for wrong in (
        SweepExpired(api_key_id="key_nobody", version=0, claimable_s=0),
        SweepExpired(api_key_id="key_child", version=0, claimable_s=0),
        SweepExpired(api_key_id=key.key_id, version=1, claimable_s=0),
        SweepExpired(api_key_id=key.key_id, version=3, claimable_s=CLAIM_S),
        SweepExpired(api_key_id=key.key_id, version=3, claimable_s=0, is_revoked=True),  # revived
    ):
        assert await till.ctx.ledger.submit(wrong) == 0
    last = SweepExpired(api_key_id=key.key_id, version=3, claimable_s=0)
    assert [await till.ctx.ledger.submit(last) for _ in range(2)] == [600, 600]
    alive = await till.create(till.mint.issue(4))
    with pytest.raises(InvalidParameter):
        await empty(till.ctx, alive.key_id, Wish(if_expired=True))
    assert await till.balance(alive) == 4_000


async def short_of_change(till: Till) -> Created:
    """A key whose 7 sat the purse has only in a coin of 16 and three of 1."""
    rich, key = await till.create(till.mint.issue(64)), await mortal(till, 7)
    await till.withdraw(rich, 38)
    await till.withdraw(rich, 14)
    return key


@ON_SQLITE
async def test_a_silent_mint_delays_it_and_loses_nothing(till: Till) -> None:
    key = await short_of_change(till)
    await till.later(LIFE_S + 1)
    lost = Trouble(path="/v1/", processed=False, cut=True)
    till.mint.trouble(Trouble(path="/v1/swap", cut=True), lost)
    assert await ran(till) == {"issued": 1, "issued_msat": 7_000}
    assert await foresee_withdrawals(till.ctx) == {
        **dict.fromkeys(("reclaim", "reclaim_msat"), 0),
        "pending": 1,
        "pending_msat": 7_000,
    }
    assert (await ran(till), await till.balance(key)) == ({}, 0)
    await till.resume()
    assert worth((await withdraw(till.ctx, by_text(till, key), Wish())).token) == 7
    till.mint.trouble(lost)
    await till.later(CLAIM_S + LIFE_S)
    assert await ran(till) == {}  # the mint does not say whether it was claimed
    assert (await ran(till))["swept_msat"] == 7_000


async def test_tokens_not_worth_taking_back_bar_no_other(sqlite_url: str) -> None:
    """Each costs its mint a question, and itself more than it brings; there may be very many."""
    async with (
        FakeMint(fee_ppk=1_000) as mint,
        open_till(sqlite_url, mint, refund_ttl_s=10, float_coins=80) as till,
    ):
        key = await till.create(mint.issue(1_000))
        for first, amount_sat in (*(("0", 1) for _ in range(TOKENS_MAX)), ("f", 2)):
            await withdraw(
                named(till.ctx, first), KeyRef(id=key.key_id), Wish(amount_sat=amount_sat)
            )
        await till.later(11)
        assert await take_job(till.ctx, WITHDRAWALS_JOB, lease_s=30)
        _, result = await withdrawals(till.ctx)
        assert (result["left"], result["reclaimed"]) == (TOKENS_MAX, 0)
        await till.ctx.ledger.submit(ended(WITHDRAWALS_JOB, result))
        _, result = await withdrawals(till.ctx)
        assert (result["left"], result["reclaimed"], result["after_token"]) == (0, 1, "")


def named(ctx: Context, first: str) -> Context:
    """A context whose ids begin so."""

    def new_id(kind: str) -> str:
        head, tail = ctx.new_id(kind).split("_", 1)
        return f"{head}_{first}{tail[1:]}"

    return replace(ctx, new_id=new_id)


@ON_SQLITE
async def test_one_that_is_more_than_may_leave_bars_no_other(
    database_url: str, mint: FakeMint
) -> None:
    async with open_till(database_url, mint) as till:
        live = till.ctx.live
        keys = sorted([await mortal(till, n) for n in (8, 8)], key=lambda key: key.key_id)
        await till.topup(keys[0], mint.issue(8))
        live.replace(replace(live.now, switches=Switches(withdrawn_sats_per_hour_max=10)))
        await till.later(LIFE_S + 1)
        assert await ran(till) == {"after": keys[0].key_id}
        assert await take_job(till.ctx, EXPIRE_KEYS_JOB, lease_s=30)
        await till.ctx.ledger.submit(ended(EXPIRE_KEYS_JOB, {"after": keys[0].key_id}))
        assert await ran(till) == {"issued": 1, "issued_msat": 8_000}
        assert [await till.balance(key) for key in keys] == [16_000, 0]


def ended(job: str, result: Mapping[str, object]) -> EndRun:
    """What the runner writes down after such a pass."""
    run = Run(id="run_1", name=job, owner="one", lease_s=0)
    return EndRun(run_of=run, ok=True, result=result, kept_since=None)


GIVEN = ("withdraw.checked", "withdraw.completed")
SWAPPED = ("withdraw.begun", "swap.sent", "swap.answered", "withdraw.signed", "withdraw.issued")
TAKEN = ("reclaim.begun", "reclaim.signed", "reclaim.ended", "expiry.found", "expiry.swept")


@pytest.mark.parametrize("step", [*GIVEN, *SWAPPED, *TAKEN])
async def test_killed_between_any_two_steps(sqlite_url: str, mint: FakeMint, step: str) -> None:
    """The process ends there, another one goes on from the rows, and each sat is somewhere once."""
    async with open_till(sqlite_url, mint, is_sound_at_end=False) as till:
        key = await (short_of_change(till) if step in SWAPPED else mortal(till, 7))
        await till.later(LIFE_S + 1)
        if step in TAKEN:
            await expire_keys(till.ctx)
            await till.later(CLAIM_S)
        till.marks.at[step] = _die
        with pytest.raises(_Death):
            await expire_keys(till.ctx)
        await till.die()
    async with open_till(sqlite_url, mint) as till:
        for _ in range(3):
            await till.later(CLAIM_S + LIFE_S)
            await till.resume()
            await expire_keys(till.ctx)
        assert await till.balance(key) == 0
        swept = "SELECT -sum(amount) FROM \"transaction\" WHERE type = 'expiry'"
        assert await till.value(swept) == 7_000


class _Death(BaseException):
    """What no handler of the node catches."""


def _die() -> None:
    raise _Death


@pytest.fixture
async def two(postgres_url: str, mint: FakeMint) -> AsyncIterator[tuple[Till, Till]]:
    async with (
        open_till(postgres_url, mint, owner="one") as one,
        open_till(postgres_url, mint, owner="two") as other,
    ):
        yield one, other


async def test_two_nodes_at_once_do_it_once(two: tuple[Till, Till]) -> None:
    one, _ = two
    keys = [await mortal(one, 4) for _ in range(3)]
    await one.later(LIFE_S + 1)
    for again in range(2):
        await asyncio.gather(*(expire_keys(each.ctx) for each in two for _ in range(2)))
        assert await one.value("SELECT count(*) FROM withdrawal") == 3
        if not again:
            await one.later(CLAIM_S)
    assert [await one.balance(key) for key in keys] == [0, 0, 0]
    assert await profit(one) >= 12_000
