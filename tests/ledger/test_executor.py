"""Group commit: what arrives together is written together, and nobody's mistake is another's."""

import asyncio
from dataclasses import dataclass

import pytest
from sqlalchemy import text

from routstr.errors import InsufficientBalance, Overloaded, RoutstrError, ServiceUnavailable
from routstr.ledger.book import Book, KeyRef
from routstr.ledger.commands import Command, LostRace, RowCommand, Transaction
from routstr.ledger.executor import ExecutorLimits
from tests.ledger.node import Node, running_node, settle


async def test_what_arrives_together_is_one_commit(node: Node) -> None:
    keys = [await node.open_key(f"k{n}") for n in range(4)]
    for n, key in enumerate(keys):
        await node.fund(key, [64], salt=f"s{n}")
    before = node.ledger.batches
    holds = [node.reserve(f"h{n}", keys[n % 4], 500) for n in range(100)]
    await asyncio.gather(*(node.ledger.submit(hold) for hold in holds))
    assert node.ledger.batches - before <= 2
    assert await node.held(keys[0]) == 25 * 500
    await node.assert_sound()


async def test_a_batch_has_its_limit(database_url: str) -> None:
    async with running_node(database_url, limits=ExecutorLimits(batch_max=10)) as node:
        key = await node.open_key("k")
        await node.fund(key, [64], salt="s")
        before = node.ledger.batches
        await asyncio.gather(
            *(node.ledger.submit(node.reserve(f"h{n}", key, 1)) for n in range(100))
        )
        assert node.ledger.batches - before == 10


async def test_a_refused_command_does_not_sink_its_batch(node: Node) -> None:
    key = await node.open_key("k")
    await node.fund(key, [1], salt="s")
    before = node.ledger.batches
    results = await asyncio.gather(
        node.ledger.submit(node.reserve("h1", key, 400)),
        node.ledger.submit(node.reserve("h2", key, 700)),
        node.ledger.submit(node.withdraw("w1", key, 5)),
        node.ledger.submit(node.reserve("h3", key, 600)),
        return_exceptions=True,
    )
    assert node.ledger.batches == before + 1
    assert [type(each) is InsufficientBalance for each in results] == [False, True, True, False]
    assert await node.held(key) == 1000
    await node.assert_sound()


async def test_a_full_queue_sheds_new_requests_and_nothing_else(database_url: str) -> None:
    async with running_node(database_url, limits=ExecutorLimits(queue_max=3)) as node:
        key = await node.open_key("k")
        await node.fund(key, [64], salt="s")
        await node.ledger.submit(node.reserve("h", key, 100))
        results = await asyncio.gather(
            *(node.ledger.submit(node.reserve(f"h{n}", key, 100)) for n in range(5)),
            node.ledger.submit(settle("h", key, 60)),
            return_exceptions=True,
        )
        assert [type(each) is Overloaded for each in results] == [False] * 3 + [True] * 2 + [False]
        assert await node.balance(key) == 64_000 - 60


async def test_a_caller_that_goes_away_changes_nothing(node: Node) -> None:
    key = await node.open_key("k")
    await node.fund(key, [1], salt="s")
    waiting = asyncio.create_task(node.ledger.submit(node.reserve("h1", key, 400)))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    settled = await node.ledger.submit(settle("h1", key, 300))
    assert settled.charged_msat == 300
    await node.assert_sound()


async def test_stopping_finishes_what_was_submitted_and_takes_nothing_new(
    database_url: str,
) -> None:
    async with running_node(database_url) as node:
        key = await node.open_key("k")
        await node.fund(key, [64], salt="s")
        waiting = [
            asyncio.create_task(node.ledger.submit(node.reserve(f"h{n}", key, 10)))
            for n in range(20)
        ]
        await asyncio.sleep(0)
        node.ledger.stop()
        node.ledger.stop()
        assert len(await asyncio.gather(*waiting)) == 20
        with pytest.raises(ServiceUnavailable):
            await node.ledger.submit(node.reserve("late", key, 10))


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken(Command[None]):
    """A command with a bug, found half-way."""

    key: KeyRef

    @property
    def keys(self) -> tuple[KeyRef, ...]:
        return (self.key,)

    def apply(self, book: Book) -> None:
        book.post(book.account(self.key), 5, "deposit", "nonsense")
        raise ZeroDivisionError


async def test_a_bug_in_one_command_is_its_own_alone(node: Node) -> None:
    key = await node.open_key("k")
    await node.fund(key, [1], salt="s")
    results = await asyncio.gather(
        node.ledger.submit(node.reserve("h1", key, 400)),
        node.ledger.submit(Broken(key=key)),
        node.ledger.submit(node.reserve("h2", key, 400)),
        return_exceptions=True,
    )
    assert type(results[1]) is RoutstrError
    assert await node.held(key) == 800
    await node.assert_sound()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stubborn(RowCommand[int]):
    """Loses its race as often as the list has entries; writes first, so that an undo shows."""

    key: KeyRef
    losses: list[Exception]

    @property
    def keys(self) -> tuple[KeyRef, ...]:
        return (self.key,)

    async def run(self, transaction: Transaction) -> int:
        account = transaction.book.account(self.key)
        transaction.book.post(account, 7, "deposit", "stubborn")
        await transaction.connection.execute(text("UPDATE keyset SET next_counter = 99"))
        if self.losses:
            raise self.losses.pop()
        return transaction.book.account(self.key).balance_msat


@dataclass(frozen=True, slots=True, kw_only=True)
class Impossible(RowCommand[None]):
    """Asks the database for what it cannot do, today or tomorrow."""

    key: KeyRef

    @property
    def keys(self) -> tuple[KeyRef, ...]:
        return (self.key,)

    async def run(self, transaction: Transaction) -> None:
        await transaction.connection.execute(text("UPDATE keyset SET next_counter = nothing"))


async def test_a_lost_race_runs_again_with_its_whole_batch(node: Node) -> None:
    key = await node.open_key("k")
    results = await asyncio.gather(
        node.ledger.submit(Stubborn(key=key, losses=[LostRace()])),
        node.ledger.submit(node.reserve("h1", key, 0)),
    )
    assert results[0] == 7
    assert node.clock.waits == [0.05]
    assert await node.balance(key) == 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Overtaken(Command[int]):
    """A pure command whose account has moved on, as often as the list has entries."""

    key: KeyRef
    losses: list[int]
    operation_id: str = "overtaken"

    @property
    def keys(self) -> tuple[KeyRef, ...]:
        return (self.key,)

    def apply(self, book: Book) -> int:
        account = book.account(self.key)
        if self.losses:
            account = account._replace(version=account.version + self.losses.pop())
            book.add_account(account)
        return book.post(account, 7, "deposit", self.operation_id).balance_msat


async def test_a_guard_that_finds_another_state_undoes_the_whole_batch(node: Node) -> None:
    key, other = await node.open_key("k"), await node.open_key("o")
    await node.fund(key, [1], salt="k")
    await node.fund(other, [1], salt="o")
    before = node.ledger.batches
    results = await asyncio.gather(
        node.ledger.submit(node.reserve("h1", other, 100)),
        node.ledger.submit(Overtaken(key=key, losses=[1])),
        node.ledger.submit(node.reserve("h2", other, 100)),
    )
    assert results[1] == 1007
    assert node.clock.waits == [0.05]
    assert node.ledger.batches == before + 1
    assert await node.held(other) == 200
    assert await node.value("SELECT count(*) FROM reservation") == 2


async def test_a_statement_that_fails_leaves_nothing_of_those_before_it(node: Node) -> None:
    key, other = await node.open_key("k"), await node.open_key("o")
    await node.fund(other, [1], salt="o")
    await node.ledger.submit(Overtaken(key=key, losses=[]))
    results = await asyncio.gather(
        node.ledger.submit(node.reserve("h1", other, 100)),
        node.ledger.submit(Overtaken(key=key, losses=[])),  # its operation is there: the last fails
        return_exceptions=True,
    )
    assert type(results[1]) is ServiceUnavailable
    assert await node.balance(key) == 7
    assert await node.held(other) == 100
    assert await node.value("SELECT count(*) FROM reservation") == 1


async def test_what_the_database_will_never_do_is_its_command_s_alone(node: Node) -> None:
    key, other = await node.open_key("k"), await node.open_key("o")
    await node.fund(other, [1], salt="o")
    results = await asyncio.gather(
        node.ledger.submit(node.reserve("h1", other, 100)),
        node.ledger.submit(Impossible(key=key)),
        node.ledger.submit(node.reserve("h2", other, 100)),
        return_exceptions=True,
    )
    assert type(results[1]) is ServiceUnavailable
    assert await node.held(other) == 200
    await node.assert_sound()


async def test_races_lost_again_and_again_are_tried_one_by_one(node: Node) -> None:
    key, other = await node.open_key("k"), await node.open_key("o")
    await node.fund(other, [1], salt="s")
    results = await asyncio.gather(
        node.ledger.submit(Stubborn(key=key, losses=[LostRace() for _ in range(20)])),
        node.ledger.submit(node.reserve("h1", other, 100)),
        return_exceptions=True,
    )
    assert type(results[0]) is ServiceUnavailable
    assert await node.held(other) == 100
    assert await node.balance(key) == 0
    await node.assert_sound()


async def test_a_refusal_undoes_what_its_command_wrote(node: Node) -> None:
    key = await node.open_key("k")
    with pytest.raises(Overloaded):
        await node.ledger.submit(Stubborn(key=key, losses=[Overloaded()]))
    assert await node.balance(key) == 0
    assert await node.value("SELECT max(next_counter) FROM keyset") == 0
    await node.assert_sound()


async def test_a_key_opened_in_a_batch_can_be_used_in_it(node: Node) -> None:
    proofs = node.signer.proofs([4], salt="s")
    results = await asyncio.gather(
        node.open_key("k"),
        node.ledger.submit(node.begin("dep", proofs, target=KeyRef(id="key_k"))),
    )
    assert results[1].deposit.api_key_id == "key_k"
