"""A database that fails: what passes is waited out, a lost COMMIT answer never doubles anything."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from sqlalchemy import text

from routstr.errors import ServiceUnavailable
from routstr.ledger.accounts import Transfer
from routstr.ledger.commands import RowCommand, Transaction
from routstr.ledger.sagas import MarkSent
from tests.harness.postgres import Postgres
from tests.ledger.lossy import LossyLine, lossy_line
from tests.ledger.node import Node, credit_command, new_key, running_node, settle


@pytest.fixture
async def line(postgres_url: str) -> AsyncIterator[LossyLine]:
    async with lossy_line(postgres_url) as line:
        yield line


@pytest.fixture
async def far_node(line: LossyLine) -> AsyncIterator[Node]:
    async with running_node(line.url) as node:
        yield node


async def test_a_lost_commit_answer_doubles_no_hold_and_no_charge(
    far_node: Node, line: LossyLine
) -> None:
    key = await far_node.open_key("k")
    await far_node.fund(key, [64], salt="s")
    line.commits_to_lose = 1
    await asyncio.gather(
        *(far_node.ledger.submit(far_node.reserve(f"h{n}", key, 100)) for n in range(20))
    )
    assert await far_node.held(key) == 2000
    assert far_node.ledger.held_msat == 2000
    line.commits_to_lose = 1
    settled = await asyncio.gather(
        *(far_node.ledger.submit(settle(f"h{n}", key, 30)) for n in range(20))
    )
    assert line.commits_lost == 2
    assert {each.charged_msat for each in settled} == {30}
    assert await far_node.balance(key) == 64_000 - 600
    assert far_node.ledger.held_msat == 0
    await far_node.assert_sound()


async def test_a_lost_commit_answer_doubles_no_deposit(far_node: Node, line: LossyLine) -> None:
    proofs = far_node.signer.proofs([8, 2], salt="s")
    line.commits_to_lose = 1
    begun = await far_node.ledger.submit(far_node.begin("dep", proofs, new=new_key("k")))
    assert begun.operation is not None
    line.commits_to_lose = 1
    await far_node.ledger.submit(MarkSent(operation_id=begun.operation.id))
    line.commits_to_lose = 1
    credited = await far_node.ledger.submit(credit_command(far_node.signer, begun.operation, None))
    assert line.commits_lost == 3
    assert (credited.credit_msat, credited.available_msat) == (10_000, 10_000)
    await far_node.assert_sound()


@pytest.mark.parametrize("amount", [1, 3], ids=["exact", "by swap"])
async def test_a_lost_commit_answer_doubles_no_withdrawal(
    far_node: Node, line: LossyLine, amount: int
) -> None:
    key = await far_node.open_key("k")
    await far_node.fund(key, [8], salt="s")  # stored as 1, 1, 2, 4
    await far_node.ledger.submit(far_node.withdraw("first", key, 2))  # leaves 1, 1, 4
    line.commits_to_lose = 1
    begun = await far_node.ledger.submit(far_node.withdraw("w", key, amount))
    assert line.commits_lost == 1
    assert begun.withdrawal.amount_msat == amount * 1000
    assert not begun.is_replay
    assert (begun.operation is None) == (amount == 1)
    assert await far_node.value("SELECT count(*) FROM withdrawal") == 2
    await far_node.assert_sound()


async def test_a_lost_commit_answer_doubles_no_transfer(far_node: Node, line: LossyLine) -> None:
    payer, payee = await far_node.open_key("a"), await far_node.open_key("b")
    await far_node.fund(payer, [8], salt="s")
    line.commits_to_lose = 1
    await far_node.ledger.submit(
        Transfer(transfer_id="t", payer=payer, payee=payee, amount_msat=3000)
    )
    assert line.commits_lost == 1
    assert await far_node.balance(payee) == 3000
    await far_node.assert_sound()


async def test_a_terminated_backend_is_replaced(
    node_on_postgres: Node, postgres_server: Postgres
) -> None:
    node = node_on_postgres
    key = await node.open_key("k")
    await node.fund(key, [8], salt="s")
    postgres_server.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'routstr'"
    )
    await node.ledger.submit(node.reserve("h", key, 100))
    assert node.clock.waits
    await node.assert_sound()


@pytest.fixture
async def node_on_postgres(postgres_url: str) -> AsyncIterator[Node]:
    async with running_node(postgres_url) as node:
        yield node


@dataclass(frozen=True, slots=True, kw_only=True)
class Slow(RowCommand[None]):
    """Takes longer than a statement may."""

    tries: list[int]

    async def run(self, transaction: Transaction) -> None:
        self.tries.append(1)
        await transaction.connection.execute(
            text("DO $$ BEGIN RAISE 'too long' USING ERRCODE = 'query_canceled'; END $$")
        )


async def test_a_database_that_is_too_slow_is_not_asked_for_each_command(
    node_on_postgres: Node,
) -> None:
    tries: list[int] = []
    results = await asyncio.gather(
        *(node_on_postgres.ledger.submit(Slow(tries=tries)) for _ in range(5)),
        return_exceptions=True,
    )
    assert {type(each) for each in results} == {ServiceUnavailable}
    assert len(tries) == 1


async def test_a_database_away_for_good_is_an_honest_503(far_node: Node, line: LossyLine) -> None:
    key = await far_node.open_key("k")
    await far_node.fund(key, [8], salt="s")
    line.is_down = True
    line.cut()
    results = await asyncio.gather(
        *(far_node.ledger.submit(far_node.reserve(f"h{n}", key, 100)) for n in range(3)),
        return_exceptions=True,
    )
    assert [type(each) for each in results] == [ServiceUnavailable] * 3
    line.is_down = False
    await far_node.ledger.submit(far_node.reserve("h9", key, 100))
    assert await far_node.held(key) == 100
    await far_node.assert_sound()


@pytest.fixture
async def lite_node(sqlite_url: str) -> AsyncIterator[Node]:
    """Its writer gives up on a locked file after 20 ms instead of 5 s."""
    async with running_node(sqlite_url) as node:
        assert node.database.thread_writer is not None
        with node.database.thread_writer.begin() as connection:
            connection.exec_driver_sql("PRAGMA busy_timeout=20")
        yield node


async def test_a_locked_file_is_waited_for(lite_node: Node, sqlite_url: str) -> None:
    key = await lite_node.open_key("k")
    await lite_node.fund(key, [8], salt="s")
    async with running_node(sqlite_url, owner="two") as other:
        blocker = await other.database.writer.connect()
        await blocker.begin()
        released = asyncio.Event()
        lite_node.clock.on_wait = released.set
        waiting = asyncio.create_task(lite_node.ledger.submit(lite_node.reserve("h", key, 100)))
        await released.wait()
        await blocker.close()
        await waiting
    assert await lite_node.held(key) == 100
    await lite_node.assert_sound()


async def test_a_file_locked_for_good_is_an_honest_503(lite_node: Node, sqlite_url: str) -> None:
    key = await lite_node.open_key("k")
    await lite_node.fund(key, [8], salt="s")
    async with running_node(sqlite_url, owner="two") as other:
        async with other.database.writer.begin():
            with pytest.raises(ServiceUnavailable):
                await lite_node.ledger.submit(lite_node.reserve("h", key, 100))
        assert lite_node.clock.waits == [0.05, 0.1, 0.2, 0.4, 0.8]
    assert await lite_node.held(key) == 0
    await lite_node.ledger.submit(lite_node.reserve("h", key, 100))
    await lite_node.assert_sound()
