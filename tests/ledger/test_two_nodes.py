"""Two processes' worth of ledger on one PostgreSQL: what one took, the other cannot."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import text

from routstr.core.hold import HoldState
from routstr.ecash.token import BODY_BYTES_MAX, decode_token
from routstr.errors import (
    InsufficientBalance,
    MintShort,
    Overloaded,
    Paused,
    TokenAlreadySpent,
)
from routstr.ledger.catalog import TakeJob
from routstr.ledger.deposits import Begun
from routstr.ledger.executor import ExecutorLimits
from routstr.ledger.holds import Expire
from routstr.ledger.issued import HOUR_LOCK, Withdrawing
from routstr.ledger.leases import Claim
from routstr.ledger.sagas import MarkSent
from routstr.ledger.withdrawals import BeginWithdrawal
from tests.ledger.node import Node, credit_command, new_key, reserve, running_node

Pair = tuple[Node, Node]


@pytest.fixture
async def pair(postgres_url: str) -> AsyncIterator[Pair]:
    limits = ExecutorLimits(batch_max=16, held_msat_max=50_000)
    async with (
        running_node(postgres_url, owner="one", limits=limits) as one,
        running_node(postgres_url, owner="two", limits=limits) as two,
    ):
        assert one.mint_id == two.mint_id
        yield one, two


async def test_funds_for_k_of_200_reserves_hold_exactly_k(pair: Pair) -> None:
    key = await pair[0].open_key("k")
    await pair[0].fund(key, [32, 4, 1], salt="s")
    results = await asyncio.gather(
        *(pair[n % 2].ledger.submit(pair[n % 2].reserve(f"h{n}", key, 1000)) for n in range(200)),
        return_exceptions=True,
    )
    refused = [each for each in results if isinstance(each, BaseException)]
    assert {type(each) for each in refused} == {InsufficientBalance}
    assert len(results) - len(refused) == 37
    assert await pair[0].held(key) == 37_000
    assert [each.clock.waits for each in pair] == [[], []]  # the lock, not a lost race, orders them
    await pair[0].assert_sound()


async def test_one_token_at_once_is_one_credit(pair: Pair) -> None:
    proofs = pair[0].signer.proofs([8, 2, 1], salt="s")
    keys = [await pair[0].open_key(f"k{n}") for n in range(10)]
    begun = await asyncio.gather(
        *(
            pair[n % 2].ledger.submit(
                pair[n % 2].begin(
                    f"dep{n}",
                    proofs,
                    target=keys[n % 10] if n < 30 else None,
                    new=new_key(f"n{n}") if n >= 30 else None,
                )
            )
            for n in range(40)
        ),
        return_exceptions=True,
    )
    driven = [each for each in begun if isinstance(each, Begun) and each.operation is not None]
    errors = {type(each) for each in begun if isinstance(each, BaseException)}
    assert len(driven) == 1
    assert errors <= {TokenAlreadySpent}
    operation = driven[0].operation
    assert operation is not None
    for node in pair:  # before either is done: what is done was sent, and is not sent again
        await node.ledger.submit(MarkSent(operation_id=operation.id))
    key_id = driven[0].deposit.api_key_id
    credited = await asyncio.gather(
        *(node.ledger.submit(credit_command(node.signer, operation, key_id)) for node in pair)
    )
    assert credited[0] == credited[1]
    assert await pair[0].value("SELECT count(*) FROM \"transaction\" WHERE type = 'deposit'") == 1
    await pair[0].assert_sound()


async def test_withdrawals_at_once_never_share_a_coin(pair: Pair) -> None:
    keys = [await pair[0].open_key(f"k{n}") for n in range(8)]
    for n, key in enumerate(keys):
        await pair[0].fund(key, [8, 4, 2, 1], salt=f"s{n}")
    results = await asyncio.gather(
        *(
            pair[n % 2].ledger.submit(pair[n % 2].withdraw(f"w{n}", keys[n % 8], 3))
            for n in range(32)
        ),
        return_exceptions=True,
    )
    given = [each for each in results if isinstance(each, Withdrawing)]
    refusals = {type(each) for each in results if isinstance(each, BaseException)}
    assert refusals <= {MintShort}
    secrets: list[str] = []
    for each in given:
        if each.withdrawal.token is not None:
            token = decode_token(each.withdrawal.token, bytes_max=BODY_BYTES_MAX)
            assert token.amount == 3
            secrets += [proof.secret for proof in token.proofs]
        if each.operation is not None:
            secrets += [str(proof["secret"]) for proof in each.operation.inputs]
    assert len(given) >= 8
    assert len(secrets) == len(set(secrets))
    await pair[0].assert_sound()


async def test_no_two_nodes_use_the_same_room_of_an_hour(pair: Pair) -> None:
    """While one is about to commit what fills the hour, the other waits, and then is refused."""
    one, two = pair
    key = await one.open_key("k")
    await one.fund(key, [1] * 8, salt="s")

    def one_sat(name: str) -> BeginWithdrawal:
        return replace(two.withdraw(name, key, 1), hourly_msat_max=2_000)

    await two.ledger.submit(one_sat("w1"))
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    async with one.database.writer.begin() as connection:
        await connection.execute(HOUR_LOCK)
        await connection.execute(text("UPDATE withdrawal SET amount = 2000 WHERE id = 'w1'"))
        asking = asyncio.create_task(two.ledger.submit(one_sat("w2")))
        async with asyncio.timeout(10):
            while not await one.value(waiting):
                assert not asking.done(), "it did not wait"
    with pytest.raises(Paused):
        await asking
    assert await one.value("SELECT count(*) FROM withdrawal") == 1


async def test_a_lease_and_a_job_have_one_taker(pair: Pair) -> None:
    for n in range(6):
        proofs = pair[0].signer.proofs([8], salt=f"s{n}")
        await pair[0].ledger.submit(
            pair[0].begin(f"dep{n}", proofs, new=new_key(f"k{n}"), lease_s=-1)
        )
    claimed = await asyncio.gather(
        *(each.ledger.submit(Claim(owner=each.owner, lease_s=30)) for each in pair)
    )
    ids = [operation.id for operations in claimed for operation in operations]
    assert len(ids) == len(set(ids)) == 6
    taken = await asyncio.gather(
        *(each.ledger.submit(TakeJob(name="tidy", owner=each.owner, lease_s=30)) for each in pair)
    )
    assert sorted(taken) == [False, True]


async def test_the_exposure_limit_counts_the_other_nodes_holds(pair: Pair) -> None:
    one, two = pair
    key = await one.open_key("k")
    await one.fund(key, [128], salt="s")
    await two.ledger.submit(two.reserve("h9", key, 0))
    await one.ledger.submit(reserve("h1", key, 40_000, owner="one", lease_s=-1))
    assert two.ledger._held_read_at is not None
    two.ledger._held_read_at -= timedelta(seconds=1)  # as a second later
    with pytest.raises(Overloaded):
        await two.ledger.submit(two.reserve("h2", key, 20_000))
    ended = await two.ledger.submit(Expire(hold_id="h1", api_key_id="key_k"))
    assert ended.state is HoldState.EXPIRED
    assert two.ledger.held_msat == 0
    await two.ledger.submit(two.reserve("h3", key, 20_000))
    await one.assert_sound()
