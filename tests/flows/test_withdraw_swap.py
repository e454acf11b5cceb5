"""Algorithm D where the purse lacks the exact coins: a debit, a swap, and what may befall it."""

import asyncio

import pytest

from routstr.ecash.token import BODY_BYTES_MAX, decode_token
from routstr.errors import (
    MintShort,
    RefundPending,
    RoutstrError,
)
from routstr.flows.keys import Created
from routstr.flows.refunds import read_withdrawal
from routstr.flows.withdraw import Wish, WithdrawalView, withdraw
from routstr.ledger.book import KeyRef
from tests.fakes.mint import FakeMint, Trouble
from tests.fakes.upstream_script import Gate
from tests.harness.till import ON_SQLITE, Till, open_till, worth, ys_of

SWAP = "/v1/swap"
RESTORE = "/v1/restore"
LOST = Trouble(path="/v1/", processed=False, cut=True)


def owner(key: Created) -> KeyRef:
    return KeyRef(id=key.key_id)


async def is_good(till: Till, view: WithdrawalView) -> bool:
    """A token that the mint takes: somebody else can spend it."""
    assert view.token is not None
    return set(till.mint.state_of(ys_of(view.token)).values()) == {"UNSPENT"}


async def posts(till: Till, path: str = SWAP) -> int:
    return len([call for call in till.mint.calls if call.path == path])


# ── by swap ───────────────────────────────────────────────────────────────────────────────────


async def swap_needed(till: Till) -> tuple[Created, int]:
    """A key and an amount that the purse cannot make."""
    key = await till.create(till.mint.issue(7))  # 1, 2, 4
    await till.withdraw(key, 1)
    return key, 3  # 2 and 4 make no 3


async def test_the_mint_makes_change(till: Till) -> None:
    key, amount = await swap_needed(till)
    view = await till.withdraw(key, amount)
    assert (view.status, worth(view.token), view.fee_msat) == ("completed", amount, 0)
    assert await is_good(till, view)
    assert await till.balance(key) == 3_000
    assert await till.held() == 3
    assert await posts(till) == 2


@ON_SQLITE
@pytest.mark.parametrize(
    "trouble",
    [
        Trouble(path=SWAP, cut=True),
        Trouble(path=SWAP, half=True),
        Trouble(path=SWAP, status=500),
        Trouble(path=SWAP, status=400, code=11000),
        Trouble(path=SWAP, processed=False, cut=True),
    ],
    ids=["cut", "half", "500", "a lie", "lost"],
)
async def test_change_is_found_again_whatever_the_answer_said(till: Till, trouble: Trouble) -> None:
    key, amount = await swap_needed(till)
    till.mint.trouble(trouble)
    view = await till.withdraw(key, amount)
    assert worth(view.token) == amount
    assert await is_good(till, view)


async def test_an_unknown_answer_leaves_the_debit_and_every_repeat_attaches(till: Till) -> None:
    key, amount = await swap_needed(till)
    till.mint.trouble(
        Trouble(path=SWAP, cut=True), Trouble(path=RESTORE, processed=False, cut=True)
    )
    wish = Wish(amount_sat=amount, idempotency_key="a", fingerprint="f")
    with pytest.raises(RefundPending) as caught:
        await withdraw(till.ctx, owner(key), wish)
    refund_id = caught.value.details["refund_id"]
    assert isinstance(refund_id, str)
    assert await till.balance(key) == 3_000
    pending = await read_withdrawal(till.ctx, owner(key), refund_id)
    assert (pending.status, pending.token) == ("pending", None)
    view = await withdraw(till.ctx, owner(key), wish)
    assert (view.id, worth(view.token), view.is_replay) == (refund_id, amount, True)
    assert (await read_withdrawal(till.ctx, owner(key), refund_id)).token == view.token
    assert await till.balance(key) == 3_000


@ON_SQLITE
async def test_emptying_by_swap_attaches_too(till: Till) -> None:
    """The purse is short of the key's balance, and a repeat without any key finds the first."""
    rich = await till.create(till.mint.issue(64))
    key = await till.create(till.mint.issue(7))
    await till.withdraw(rich, 38)
    await till.withdraw(rich, 14)  # which leaves a 16 and three times 1
    till.mint.trouble(
        Trouble(path=SWAP, cut=True), Trouble(path=RESTORE, processed=False, cut=True)
    )
    with pytest.raises(RefundPending):
        await till.withdraw(key)
    assert await till.balance(key) == 0
    view = await till.withdraw(key)
    assert worth(view.token) == 7
    with pytest.raises(RoutstrError):
        await till.withdraw(key, 1)


@ON_SQLITE
async def test_the_job_ends_what_was_left_open(till: Till) -> None:
    key, amount = await swap_needed(till)
    till.mint.trouble(
        Trouble(path=SWAP, cut=True), Trouble(path=RESTORE, processed=False, cut=True)
    )
    with pytest.raises(RefundPending) as caught:
        await till.withdraw(key, amount)
    assert await till.resume() == 1
    refund_id = str(caught.value.details["refund_id"])
    view = await read_withdrawal(till.ctx, owner(key), refund_id)
    assert (view.status, worth(view.token)) == ("completed", amount)


async def test_a_refused_swap_gives_everything_back(till: Till) -> None:
    key, amount = await swap_needed(till)
    refused = Trouble(path=SWAP, processed=False, status=400, code=11006)
    till.mint.trouble(refused, refused)
    with pytest.raises(MintShort):
        await till.withdraw(key, amount)
    assert await till.balance(key) == 6_000
    assert await till.held() == 6
    assert worth((await till.withdraw(key, amount)).token) == amount


@ON_SQLITE
async def test_keys_rotated_meanwhile_cost_one_more_try(till: Till) -> None:
    key, amount = await swap_needed(till)
    new_id = till.mint.rotate()
    view = await till.withdraw(key, amount)
    assert view.token is not None
    proofs = decode_token(view.token, bytes_max=BODY_BYTES_MAX).proofs
    assert {proof.keyset_id for proof in proofs} == {new_id}
    assert await till.balance(key) == 3_000


async def test_keys_rotated_while_nobody_knew_give_it_back_a_minute_later(till: Till) -> None:
    key, amount = await swap_needed(till)
    till.mint.trouble(LOST, LOST)
    with pytest.raises(RefundPending):
        await till.withdraw(key, amount)
    till.mint.rotate()
    assert await till.resume() == 1
    assert (await till.operations())[-1] == ("watch", "stale")
    assert await till.balance(key) == 3_000
    assert await till.resume() == 1
    assert await till.balance(key) == 6_000
    assert worth((await till.withdraw(key, amount)).token) == amount


@ON_SQLITE
async def test_pending_coins_of_ours_wait(till: Till) -> None:
    key, amount = await swap_needed(till)
    ys = await _unspent_ys(till)
    till.mint.set_pending(ys)
    with pytest.raises(RefundPending):
        await till.withdraw(key, amount)
    assert (await till.operations())[-1] == ("waiting", "pending")
    till.mint.set_free(ys)
    assert await till.resume() == 1
    assert (await till.operations())[-1][0] == "done"


async def _unspent_ys(till: Till) -> list[str]:
    from sqlalchemy import text

    async with till.ctx.database.reading() as connection:
        rows = await connection.execute(text("SELECT y FROM proof WHERE state = 'unspent'"))
        return list(rows.scalars())


@ON_SQLITE
async def test_a_client_that_leaves_finds_its_token(database_url: str, mint: FakeMint) -> None:
    async with open_till(database_url, mint, operation_wait_s=0.1) as till:
        key, amount = await swap_needed(till)
        gate = Gate()
        mint.trouble(Trouble(path=SWAP, answer_gate=gate))
        wish = Wish(amount_sat=amount, idempotency_key="a", fingerprint="f")
        request = asyncio.create_task(withdraw(till.ctx, owner(key), wish))
        await mint.called(2, SWAP)
        request.cancel()
        await asyncio.wait([request])
        with pytest.raises(RefundPending):
            await withdraw(till.ctx, owner(key), wish)
        gate.open()
        await till.ctx.tasks.finish(5)
        assert worth((await withdraw(till.ctx, owner(key), wish)).token) == amount


@ON_SQLITE
async def test_who_comes_second_waits_for_the_first(till: Till) -> None:
    key, amount = await swap_needed(till)
    gate = Gate()
    till.mint.trouble(Trouble(path=SWAP, answer_gate=gate))
    wish = Wish(amount_sat=amount, idempotency_key="a", fingerprint="f")
    first = asyncio.create_task(withdraw(till.ctx, owner(key), wish))
    await till.mint.called(2, SWAP)
    second = asyncio.create_task(withdraw(till.ctx, owner(key), wish))
    gate.open()
    assert (await first).token == (await second).token
    assert [(await each).is_replay for each in (first, second)] == [False, True]
