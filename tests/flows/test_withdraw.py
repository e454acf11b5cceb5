"""Algorithm D, branch by branch: the debit and the token stand or fall together."""

import asyncio

import pytest

from routstr.ecash.token import BODY_BYTES_MAX, decode_token
from routstr.errors import (
    BalanceTooSmall,
    IdempotencyMismatch,
    InsufficientBalance,
    MintShort,
    MintUnreachable,
    NoBalance,
    RefundNotFound,
    RefundPending,
    RequestsInFlight,
)
from routstr.flows.keys import Created
from routstr.flows.refunds import read_withdrawal
from routstr.flows.withdraw import Wish, WithdrawalView, withdraw
from routstr.ledger.accounts import NewKey, OpenKey
from routstr.ledger.book import KeyRef
from tests.fakes.mint import FakeMint, Trouble
from tests.fakes.upstream_script import Gate
from tests.harness.till import ON_SQLITE, Till, open_till, worth, ys_of
from tests.ledger.node import reserve, settle

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


# ── exact coins ───────────────────────────────────────────────────────────────────────────────


async def test_everything_comes_out_without_the_mint(till: Till) -> None:
    key = await till.create(till.mint.issue(21))
    calls = len(till.mint.calls)
    view = await till.withdraw(key)
    assert (view.status, view.amount_msat, view.fee_msat) == ("completed", 21_000, 0)
    assert worth(view.token) == 21
    assert await is_good(till, view)
    assert (view.available_msat, await till.balance(key), await till.held()) == (0, 0, 0)
    assert len(till.mint.calls) == calls


@ON_SQLITE
async def test_a_token_carries_proof_that_the_mint_signed_it(till: Till) -> None:
    key = await till.create(till.mint.issue(21))
    token = (await till.withdraw(key)).token
    assert token is not None
    proofs = decode_token(token, bytes_max=BODY_BYTES_MAX).proofs
    assert all(proof.dleq is not None and proof.dleq.r is not None for proof in proofs)
    fresh = await till.create(token)  # and this node judges the proofs of others, too
    assert await till.balance(fresh) == 21_000


@ON_SQLITE
@pytest.mark.parametrize("how", ["down", "hanging", "forgotten"])
async def test_exact_coins_are_paid_while_the_mint_is_away(till: Till, how: str) -> None:
    key = await till.create(till.mint.issue(21))
    await till.later(till.ctx.limits.keyset_refresh_s + 1)
    gate = Gate()
    trouble = {"down": LOST, "hanging": Trouble(path="/v1/", gate=gate)}.get(how)
    if trouble is not None:
        till.mint.trouble(*[trouble] * 5)
    else:
        till.ctx.shelf._seen.clear()  # another process than the one that took the money
    async with asyncio.timeout(5):
        assert worth((await till.withdraw(key, 1)).token) == 1
        assert worth((await till.withdraw(key)).token) == 20
    gate.open_for_ever()


async def test_part_of_it_in_many_pieces(till: Till) -> None:
    key = await till.create(till.mint.issue(100))
    total = 0
    for amount in (1, 2, 3, 5, 8, 13, 21, 34):
        view = await till.withdraw(key, amount)
        assert worth(view.token) == amount
        assert await is_good(till, view)
        total += amount
    assert await till.balance(key) == (100 - total) * 1000
    assert await till.held() == 100 - total


async def test_less_than_a_unit_stays_on_the_key(till: Till) -> None:
    key = await till.create(till.mint.issue(2))
    await _spend(till, key, 500)
    view = await till.withdraw(key)
    assert (worth(view.token), view.available_msat) == (1, 500)
    again = await till.withdraw(key)  # the last token, as often as it is asked for
    assert again.token == view.token
    await _claim(till, view)
    with pytest.raises(NoBalance):
        await till.withdraw(key)
    assert await till.balance(key) == 500


async def _spend(till: Till, key: Created, amount_msat: int) -> None:
    hold = f"req_{amount_msat}"
    await till.ctx.ledger.submit(reserve(hold, owner(key), amount_msat))
    await till.ctx.ledger.submit(settle(hold, owner(key), amount_msat))


async def _claim(till: Till, view: WithdrawalView) -> None:
    """Somebody receives the token at the mint."""
    assert view.token is not None
    till.mint.set_spent(ys_of(view.token))


@ON_SQLITE
async def test_what_was_never_a_unit_is_too_small(till: Till) -> None:
    key = await till.create(till.mint.issue(1))
    await _spend(till, key, 999)
    with pytest.raises(BalanceTooSmall):
        await till.withdraw(key)


@ON_SQLITE
@pytest.mark.parametrize("amount", [22, 2_100_000_000_000_000])
async def test_more_than_there_is(till: Till, amount: int) -> None:
    key = await till.create(till.mint.issue(21))
    with pytest.raises(InsufficientBalance):
        await till.withdraw(key, amount)
    assert await till.balance(key) == 21_000


async def test_what_is_held_is_not_given_out(till: Till) -> None:
    key = await till.create(till.mint.issue(21))
    await till.ctx.ledger.submit(reserve("req_a", owner(key), 10_000))
    with pytest.raises(RequestsInFlight):
        await till.withdraw(key)
    with pytest.raises(InsufficientBalance):
        await till.withdraw(key, 12)
    assert worth((await till.withdraw(key, 11)).token) == 11
    await till.ctx.ledger.submit(settle("req_a", owner(key), 10_000))
    assert await till.balance(key) == 0


# ── repeats ───────────────────────────────────────────────────────────────────────────────────


async def test_a_repeat_with_its_key_yields_the_same_token(till: Till) -> None:
    key = await till.create(till.mint.issue(21))
    wish = Wish(amount_sat=5, idempotency_key="a", fingerprint="f")
    views = await asyncio.gather(*(withdraw(till.ctx, owner(key), wish) for _ in range(10)))
    assert len({view.token for view in views}) == 1
    assert sorted(view.is_replay for view in views) == [False] + [True] * 9
    assert await till.balance(key) == 16_000
    with pytest.raises(IdempotencyMismatch):
        await withdraw(
            till.ctx, owner(key), Wish(amount_sat=6, idempotency_key="a", fingerprint="g")
        )


async def test_a_crowd_empties_a_key_once(till: Till) -> None:
    key = await till.create(till.mint.issue(21))
    views = await asyncio.gather(*(till.withdraw(key) for _ in range(20)))
    assert len({view.token for view in views}) == 1
    assert await till.balance(key) == 0


async def test_the_last_token_again_only_if_nothing_came_in_since(till: Till) -> None:
    key = await till.create(till.mint.issue(21))
    first = await till.withdraw(key)
    assert (await till.withdraw(key)).token == first.token
    await till.topup(key, till.mint.issue(2))
    second = await till.withdraw(key)
    assert worth(second.token) == 2
    await _claim(till, second)
    with pytest.raises(NoBalance):
        await till.withdraw(key)
    assert (await read_withdrawal(till.ctx, owner(key), first.id)).token == first.token


@ON_SQLITE
async def test_what_came_in_since_and_was_used_up_brings_no_old_token_back(till: Till) -> None:
    key = await till.create(till.mint.issue(21))
    await till.withdraw(key)
    await till.topup(key, till.mint.issue(1))
    await _spend(till, key, 999)
    with pytest.raises(NoBalance):
        await till.withdraw(key)


@ON_SQLITE
async def test_whether_it_is_unspent_the_mint_must_say(till: Till) -> None:
    key = await till.create(till.mint.issue(21))
    view = await till.withdraw(key)
    till.mint.trouble(Trouble(path="/v1/checkstate", processed=False, cut=True))
    with pytest.raises(MintUnreachable):
        await till.withdraw(key)
    assert (await read_withdrawal(till.ctx, owner(key), view.id)).token == view.token


@ON_SQLITE
async def test_a_key_that_never_had_money(till: Till) -> None:
    await till.ctx.ledger.submit(OpenKey(key=NewKey(id="key_a", hash="00" * 32)))
    with pytest.raises(NoBalance):
        await withdraw(till.ctx, KeyRef(id="key_a"), Wish())


@ON_SQLITE
async def test_anothers_refund_is_not_found(till: Till) -> None:
    mine, other = await till.create(till.mint.issue(1)), await till.create(till.mint.issue(2))
    view = await till.withdraw(mine)
    with pytest.raises(RefundNotFound):
        await read_withdrawal(till.ctx, owner(other), view.id)
    with pytest.raises(RefundNotFound):
        await read_withdrawal(till.ctx, owner(mine), "rfd_nobodys")


async def test_two_nodes_give_each_coin_out_once(postgres_url: str, mint: FakeMint) -> None:
    async with (
        open_till(postgres_url, mint, owner="one") as one,
        open_till(postgres_url, mint, owner="two") as two,
    ):
        key = await one.create(mint.issue(40))
        results = await asyncio.gather(
            *((one, two)[n % 2].withdraw(key, 3) for n in range(20)), return_exceptions=True
        )
        views = [each for each in results if isinstance(each, WithdrawalView)]
        refused = [each for each in results if not isinstance(each, WithdrawalView)]
        assert {type(each) for each in refused} <= {InsufficientBalance, MintShort, RefundPending}
        ys = [y for view in views if view.token for y in ys_of(view.token)]
        assert len(ys) == len(set(ys))
        assert await one.balance(key) == 40_000 - 3_000 * await one.value(
            "SELECT count(*) FROM withdrawal WHERE status IN ('pending', 'completed')"
        )
