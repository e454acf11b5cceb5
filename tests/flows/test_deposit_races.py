"""One token, many hands: however many bring it, wherever, and whatever dies, one credit."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from routstr.errors import (
    InvalidApiKey,
    MintUnreachable,
    Pending,
    RoutstrError,
    TokenAlreadySpent,
)
from routstr.flows.deposit import redeem_bearer
from routstr.flows.keys import Created
from routstr.flows.resume import resume
from tests.fakes.mint import FakeMint, Trouble
from tests.fakes.upstream_script import Gate
from tests.harness.till import ON_SQLITE, Till, open_till, ys_of

CROWD = 100
SWAP = "/v1/swap"
RESTORE = "/v1/restore"


@pytest.fixture
async def pair(postgres_url: str, mint: FakeMint) -> AsyncIterator[tuple[Till, Till]]:
    async with (
        open_till(postgres_url, mint, owner="one") as one,
        open_till(postgres_url, mint, owner="two") as two,
    ):
        yield one, two


async def test_a_crowd_with_one_token_is_credited_once(till: Till) -> None:
    token = till.mint.issue(21)
    results = await asyncio.gather(
        *(till.create(token) for _ in range(CROWD)), return_exceptions=True
    )
    made = [each for each in results if isinstance(each, Created)]
    refused = [each for each in results if not isinstance(each, Created)]
    assert len(made) == 1
    assert {type(each) for each in refused} == {TokenAlreadySpent}
    assert await till.value("SELECT sum(balance) FROM apikey") == 21_000
    assert len([call for call in till.mint.calls if call.path == SWAP]) == 1
    assert len(till.mint.calls) == 4  # info, keysets, keys, swap: a crowd asks once


async def test_a_crowd_at_two_nodes_is_credited_once(pair: tuple[Till, Till]) -> None:
    token = pair[0].mint.issue(21)
    key = await pair[0].create(pair[0].mint.issue(1))

    async def bring(n: int) -> object:
        till = pair[n % 2]
        match n % 3:
            case 0:
                return await till.create(token)
            case 1:
                return await till.topup(key, token)
            case _:
                return await redeem_bearer(till.ctx, token)

    results = await asyncio.gather(*(bring(n) for n in range(CROWD)), return_exceptions=True)
    refusals = [each for each in results if isinstance(each, BaseException)]
    assert {type(each) for each in refusals} <= {TokenAlreadySpent}
    assert await pair[0].value("SELECT sum(balance) FROM apikey") == 22_000
    assert await pair[0].value("SELECT count(*) FROM deposit WHERE state = 'credited'") == 2
    assert await pair[0].held() == pair[0].mint.unspent_total() == 22


async def test_a_crowd_of_tokens_tops_up_exactly(till: Till) -> None:
    key = await till.create(till.mint.issue(1))
    tokens = [till.mint.issue(n) for n in range(1, 21)]
    await asyncio.gather(*(till.topup(key, token) for token in [*tokens, *tokens]))
    assert await till.balance(key) == (1 + sum(range(1, 21))) * 1000


@ON_SQLITE
async def test_who_comes_second_waits_for_the_first(till: Till) -> None:
    gate = Gate()
    till.mint.trouble(Trouble(path=SWAP, answer_gate=gate))
    token = till.mint.issue(21)
    first = asyncio.create_task(till.create(token, repeat="a"))
    await till.mint.called(1, SWAP)
    second = asyncio.create_task(till.create(token, repeat="a"))
    gate.open()
    assert (await first).api_key == (await second).api_key
    assert (await second).is_replay
    assert len([call for call in till.mint.calls if call.path == SWAP]) == 1


@ON_SQLITE
async def test_patience_ends_while_the_mint_stalls(database_url: str, mint: FakeMint) -> None:
    async with open_till(database_url, mint, operation_wait_s=0.1) as till:
        gate = Gate()
        mint.trouble(Trouble(path=SWAP, answer_gate=gate))
        token = mint.issue(21)
        first = asyncio.create_task(till.create(token))
        await mint.called(1, SWAP)
        with pytest.raises(Pending) as caught:
            await till.create(token)
        assert caught.value.details["deposit_id"]
        gate.open()
        assert await till.balance(await first) == 21_000


@ON_SQLITE
async def test_a_client_that_leaves_changes_nothing(till: Till) -> None:
    gate = Gate()
    till.mint.trouble(Trouble(path=SWAP, answer_gate=gate))
    token = till.mint.issue(21)
    request = asyncio.create_task(till.create(token, repeat="a"))
    await till.mint.called(1, SWAP)
    request.cancel()
    gate.open()
    await asyncio.wait([request])
    created = await till.create(token, repeat="a")
    assert await till.balance(created) == 21_000


async def test_an_operation_has_one_driver(pair: tuple[Till, Till]) -> None:
    one, two = pair
    gate = Gate()
    one.mint.trouble(Trouble(path=SWAP, answer_gate=gate))
    first = asyncio.create_task(one.create(one.mint.issue(21)))
    await one.mint.called(1, SWAP)
    assert await resume(two.ctx) == 0  # leased
    assert await resume(one.ctx) == 0  # not even by its own process
    gate.open()
    assert await one.balance(await first) == 21_000


@pytest.mark.parametrize(
    "step", ["deposit.begun", "swap.prepared", "swap.sent", "swap.answered", "deposit.signed"]
)
async def test_a_dead_nodes_work_is_taken_over(
    postgres_url: str, mint: FakeMint, step: str
) -> None:
    """It dies between any two steps; the other node ends the deposit, once."""
    async with open_till(postgres_url, mint, owner="two") as two:
        await two.create(mint.issue(1))
        token = mint.issue(21)
        async with open_till(postgres_url, mint, owner="one", is_sound_at_end=False) as one:
            one.marks.at[step] = _die
            request = asyncio.create_task(one.create(token))
            await asyncio.wait([request])
            await one.die()
        assert await resume(two.ctx) == 0  # the lease of the dead still counts
        await two.later(two.ctx.limits.mint_lease_s + 1)
        assert await resume(two.ctx) == 1
        assert await two.value("SELECT sum(balance) FROM apikey") == 22_000
        assert await two.held() == mint.unspent_total() == 22


def _die() -> None:
    raise asyncio.CancelledError


async def test_a_driver_that_lost_its_lease_frees_nothing(pair: tuple[Till, Till]) -> None:
    """Its refusal is old news: whoever took over may have posted the same bytes with success."""
    one, two = pair
    await two.create(one.mint.issue(1))
    token, gate = one.mint.issue(21), Gate()
    refusing = Trouble(path=SWAP, processed=False, status=400, code=10001, answer_gate=gate)
    one.mint.trouble(refusing)
    slow = asyncio.create_task(one.create(token))
    await one.mint.called(2, SWAP)
    await two.later(two.ctx.limits.mint_lease_s + 1)
    hidden = Trouble(path=RESTORE, body=b'{"outputs":[],"signatures":[]}')
    # Two looks before it was posted again, and one looks after: both believe nothing happened.
    one.mint.trouble(Trouble(path=SWAP, cut=True), hidden, hidden)
    unspent = b'{"states":[%s]}' % b",".join(
        b'{"Y":"%s","state":"UNSPENT"}' % y.encode() for y in ys_of(token)
    )
    one.mint.trouble(Trouble(path="/v1/checkstate", body=unspent))
    one.mint.trouble(Trouble(path="/v1/checkstate", body=unspent))
    assert await resume(two.ctx) == 1
    gate.open()
    with pytest.raises(RoutstrError):
        await slow
    assert await two.value("SELECT count(*) FROM deposit_input") == 1 + len(ys_of(token))
    assert await two.resume() == 1
    assert await two.value("SELECT sum(balance) FROM apikey") == 22_000


# ── whose token it is ─────────────────────────────────────────────────────────────────────────


async def test_a_token_that_topped_up_a_key_opens_no_door_to_it(till: Till) -> None:
    """Its maker knows it still, and the mint knows it too."""
    key = await till.create(till.mint.issue(100))
    token = till.mint.issue(1)
    await till.topup(key, token)
    with pytest.raises(TokenAlreadySpent):
        await redeem_bearer(till.ctx, token)
    with pytest.raises(TokenAlreadySpent):
        await till.create(token)


async def test_nor_while_its_topup_is_under_way(till: Till) -> None:
    key = await till.create(till.mint.issue(100))
    token, gate = till.mint.issue(1), Gate()
    till.mint.trouble(Trouble(path=SWAP, answer_gate=gate))
    topping = asyncio.create_task(till.topup(key, token))
    await till.mint.called(2, SWAP)
    with pytest.raises(TokenAlreadySpent):
        await redeem_bearer(till.ctx, token)
    with pytest.raises(TokenAlreadySpent):
        await till.create(token)
    gate.open()
    assert await topping == 101_000


@ON_SQLITE
async def test_a_token_that_opened_a_key_tops_up_no_other(till: Till) -> None:
    token = till.mint.issue(21)
    first = await till.create(token)
    second = await till.create(till.mint.issue(1))
    with pytest.raises(TokenAlreadySpent):
        await till.topup(second, token)
    assert await till.topup(first, token) == 21_000  # to its own key it went already
    assert await till.balance(first) == 21_000


async def test_a_bearer_token_is_one_account(till: Till) -> None:
    token = till.mint.issue(21)
    refs = await asyncio.gather(*(redeem_bearer(till.ctx, token) for _ in range(20)))
    assert len(set(refs)) == 1
    assert refs[0].id is not None
    assert await till.balance(refs[0].id) == 21_000


@ON_SQLITE
async def test_a_token_never_seen_opens_nothing_where_it_may_not(till: Till) -> None:
    token = till.mint.issue(21)
    with pytest.raises(InvalidApiKey):
        await redeem_bearer(till.ctx, token, opens=False)
    assert set(till.mint.state_of(ys_of(token)).values()) == {"UNSPENT"}
    opened = await redeem_bearer(till.ctx, token)
    assert await redeem_bearer(till.ctx, token, opens=False) == opened


@ON_SQLITE
async def test_a_pending_token_is_finished_wherever_it_is_shown(till: Till) -> None:
    token = till.mint.issue(21)
    till.mint.trouble(*[Trouble(path="/v1/", processed=False, cut=True)] * 3)
    with pytest.raises(MintUnreachable):
        await redeem_bearer(till.ctx, token)
    till.mint._troubles.clear()
    opened = await redeem_bearer(till.ctx, token)
    assert opened.id is not None
    assert await till.balance(opened.id) == 21_000
