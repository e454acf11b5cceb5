"""T-1: any sequence of commands, with repeats and refusals, leaves a book that the audit signs.

Beside the audit a model of plain numbers says what each balance must be. Nobody drives on what a
sequence leaves open, so the audit is not asked what is late: PostgreSQL's clock goes on meanwhile.
"""

import asyncio
import itertools
import shutil
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from routstr.core.hold import HoldState
from routstr.ecash.amounts import split
from routstr.errors import RoutstrError
from routstr.ledger.accounts import Transfer
from routstr.ledger.book import KeyRef
from routstr.ledger.commands import Command, RowCommand
from routstr.ledger.deposits import Begun, FailDeposit
from routstr.ledger.holds import Expire, Extend
from routstr.ledger.sagas import MarkSent, Operation
from routstr.ledger.withdrawals import FailWithdrawal
from tests.harness.databases import SQLITE
from tests.harness.postgres import Postgres
from tests.ledger.lock_rules import LockRules
from tests.ledger.node import (
    HELD_MSAT_MAX,
    START,
    Signer,
    credit_command,
    issue_command,
    reserve,
    running_node,
    settle,
)
from tests.ledger.team_rules import TENTHS, Promise, Purse, TeamRules, Ward

EXAMPLES = {"sqlite": 125, "postgres": 25}
STEPS = 40
IN_MEMORY = Path("/dev/shm")  # noqa: S108 - only where; and no disk, as this is about logic
ROWS = """SELECT (SELECT count(*) FROM "transaction") + (SELECT count(*) FROM reservation)
  + (SELECT count(*) FROM mint_output) + (SELECT count(*) FROM proof)
  + (SELECT count(*) FROM deposit_input) + (SELECT count(*) FROM withdrawal)"""
T = TypeVar("T")
AnyCommand = Command[Any] | RowCommand[Any]
SMALL = st.integers(1, 120)


class Bench:
    """A running node with an event loop of its own."""

    def __init__(self, url: str) -> None:
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        signer = Signer(fee_ppk=100, salt=5)
        entering = self.stack.enter_async_context(running_node(url, signer=signer))
        self.node = self.runner.run(entering)

    def close(self) -> None:
        self.runner.run(self.stack.aclose())
        self.runner.close()


class Ledger(LockRules, TeamRules, RuleBasedStateMachine):
    """Drives one node with keys of its own."""

    bench: ClassVar[Callable[[], Bench]]
    leave: ClassVar[Callable[[Bench], None]]
    numbers: ClassVar[Iterator[int]] = itertools.count(1)
    steps: ClassVar[int] = 0

    keys = Bundle("keys")
    holds = Bundle("holds")
    deposits = Bundle("deposits")
    swaps = Bundle("swaps")

    def __init__(self) -> None:
        super().__init__()
        self.at = type(self).bench()
        self.node = self.at.node
        self.purses: dict[str, Purse] = {}
        self.promises: dict[str, Promise] = {}
        self.wards: dict[str, Ward] = {}
        self.last: AnyCommand | None = None
        self.outcome: object = None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.at.runner.run(work)

    def teardown(self) -> None:
        try:
            self.run(self.node.assert_sound(is_running=False))
        finally:
            type(self).leave(self.at)

    def next_id(self, prefix: str) -> str:
        return f"{prefix}{next(self.numbers)}"

    def submit(self, command: AnyCommand) -> Any:
        """Its result, or None for a refusal; a failure of the node itself is a failure here."""
        self.last = command
        try:
            self.outcome = self.run(self.node.ledger.submit(command))
        except RoutstrError as refusal:
            self.outcome = type(refusal)
        assert self.outcome is not RoutstrError, "the ledger broke"
        return None if isinstance(self.outcome, type) else self.outcome

    def purse(self, key: KeyRef) -> Purse:
        assert key.id is not None
        return self.purses[key.id]

    # ── rules ─────────────────────────────────────────────────────────────────────────────────

    @initialize(target=keys, amounts=st.lists(SMALL, min_size=3, max_size=3))
    def begin(self, amounts: list[int]) -> Any:
        keys = [self.open_key() for _ in amounts]
        for key, amount in zip(keys, amounts, strict=True):
            self.deposit(key, amount, "credit")
        return multiple(*keys)

    @rule(target=keys)
    def open(self) -> KeyRef:
        return self.open_key()

    def open_key(self) -> KeyRef:
        key = self.run(self.node.open_key(self.next_id("k")))
        assert key.id is not None
        self.purses[key.id] = Purse()
        return key

    @rule(target=deposits, key=keys, amount=SMALL, end=st.sampled_from(["credit", "fail", "wait"]))
    def deposit(self, key: KeyRef, amount: int, end: str) -> Any:
        name = self.next_id("d")
        proofs = self.node.signer.proofs(split(amount), salt=name)
        if amount <= 1:  # the fee would eat it
            return multiple()
        command = self.node.begin(name, proofs, target=key)
        few = split(command.face_amount - command.fee_amount)  # so that many withdrawals swap
        begun: Begun = self.submit(replace(command, output_amounts=few))
        if end == "wait":
            return (key, begun)
        self.end_deposit((key, begun), end)
        return multiple()

    @rule(pending=consumes(deposits), end=st.sampled_from(["credit", "fail"]))
    def end_deposit(self, pending: tuple[KeyRef, Begun], end: str) -> None:
        key, begun = pending
        assert begun.operation is not None
        state = self.run(
            self.node.value("SELECT state FROM deposit WHERE id = :id", id=begun.deposit.id)
        )
        if state == "failed" and end == "credit":
            return  # a definite no is never followed by signatures
        if state == "pending":
            self.submit(MarkSent(operation_id=begun.operation.id))
        if end == "credit":
            self.submit(credit_command(self.node.signer, begun.operation, key.id))
            if state == "pending":
                self.purse(key).balance += begun.deposit.credit_msat
        elif state != "credited":
            self.submit(FailDeposit(operation=begun.operation, code="10001", error_code="no"))

    @rule(target=holds, key=keys, share=TENTHS, least=TENTHS, more=TENTHS)
    def reserve(self, key: KeyRef, share: int, least: int, more: int) -> Any:
        hold_id, purse = self.next_id("h"), self.purse(key)
        wanted = purse.balance * share // 20
        minimum, quote = wanted * least // 10, wanted + purse.balance * more // 20
        command = reserve(hold_id, key, wanted, minimum_msat=minimum, quote_msat=quote)
        hold = self.submit(command)
        amount = min(wanted, purse.available)
        held = sum(each.amount for each in self.promises.values() if each.open)
        if amount < minimum or held + amount > HELD_MSAT_MAX:
            assert hold is None
            return multiple()
        assert hold.amount_msat == amount
        purse.reserved += amount
        self.promises[hold_id] = Promise(key=key, amount=amount, quote=quote)
        return hold_id

    @rule(hold_id=holds, share=TENTHS)
    def extend(self, hold_id: str, share: int) -> None:
        promise = self.promises[hold_id]
        amount = promise.quote * share // 10
        hold = self.submit(Extend(hold_id=hold_id, amount_msat=amount, **promise.names))
        target = max(promise.amount, min(amount, promise.quote))
        more = target - promise.amount
        if not promise.open or self.is_dead(promise) or more > self.free(promise):
            assert hold is None
            return
        assert hold.amount_msat == target
        self.promise_more(promise, more)

    @rule(hold_id=holds, share=TENTHS)
    def settle(self, hold_id: str, share: int) -> None:
        promise = self.promises[hold_id]
        cost = promise.quote * share // 10
        spender_id = promise.names["spender_id"]
        settled = self.submit(settle(hold_id, promise.key, cost, spender_id=spender_id))
        if promise.open:
            charged = min(cost, promise.quote, promise.amount + self.free(promise))
            assert (settled.charged_msat, settled.absorbed_msat) == (charged, cost - charged)
            self.end(promise, charged)
        assert settled.state is not HoldState.HELD

    @rule(hold_id=holds)
    def expire(self, hold_id: str) -> None:
        promise = self.promises[hold_id]
        ended = self.submit(Expire(hold_id=hold_id, orphaned=True, **promise.names))
        if promise.open:
            assert (ended.state, ended.charged_msat) == (HoldState.EXPIRED, 0)
            self.end(promise, 0)

    def end(self, promise: Promise, charged: int) -> None:
        purse = self.purse(promise.key)
        purse.reserved -= promise.amount
        purse.balance -= charged
        if promise.ward is not None:
            promise.ward.held -= promise.amount
            promise.ward.used += charged
        promise.open = False

    @rule(target=swaps, key=keys, share=st.none() | TENTHS)
    def withdraw(self, key: KeyRef, share: int | None) -> Any:
        amount = None if share is None else self.purse(key).available * share // 10_000
        begun = self.submit(self.node.withdraw(self.next_id("w"), key, amount))
        if begun is None:
            return multiple()
        view, purse = begun.withdrawal, self.purse(key)
        assert amount is None or view.amount_msat == 1000 * amount
        assert amount is not None or purse.available - view.amount_msat - view.fee_msat < 1000
        purse.balance -= view.amount_msat + view.fee_msat
        assert view.available_msat == purse.available
        return multiple() if begun.operation is None else (key, begun.operation)

    @rule(swap=consumes(swaps), end=st.sampled_from(["issue", "fail"]))
    def end_swap(self, swap: tuple[KeyRef, Operation], end: str) -> None:
        key, operation = swap
        status = self.run(
            self.node.value(
                "SELECT status FROM withdrawal WHERE id = :id", id=operation.withdrawal_id
            )
        )
        assert key.id is not None
        if status == "pending":
            self.submit(MarkSent(operation_id=operation.id))
        if end == "issue":
            view = self.submit(issue_command(self.node.signer, operation, key))
        else:
            view = self.submit(
                FailWithdrawal(operation=operation, api_key_id=key.id, code="11005", message="no")
            )
            if status == "pending":
                self.purse(key).balance += view.amount_msat + view.fee_msat
        assert view.status in {"completed", "failed"}

    @rule(payer=keys, payee=keys, share=TENTHS)
    def transfer(self, payer: KeyRef, payee: KeyRef, share: int) -> None:
        amount = self.purse(payer).balance * share // 10
        moved = self.submit(
            Transfer(transfer_id=self.next_id("t"), payer=payer, payee=payee, amount_msat=amount)
        )
        purse = self.purse(payer)
        possible = payer != payee and 1 <= amount <= purse.available
        assert (moved is not None) == possible
        if possible:
            purse.balance -= amount
            self.purse(payee).balance += amount

    @rule()
    def repeat(self) -> None:
        """The last command again, as after a COMMIT whose answer was lost."""
        if self.last is None:
            return
        count = self.run(self.node.value(ROWS))
        outcome = self.outcome
        result = self.submit(self.last)
        if isinstance(outcome, type):
            assert result is None
        else:
            assert self.run(self.node.value(ROWS)) == count

    # ── what always holds ─────────────────────────────────────────────────────────────────────

    @invariant()
    def the_audit_signs(self) -> None:
        type(self).steps += 1
        report = self.run(self.node.audit(full=False, since=START, is_running=False))
        assert report.ok, report

    @invariant()
    def the_model_agrees(self) -> None:
        money = self.run(self.money())
        for key_id, purse in self.purses.items():
            assert money[key_id] == (purse.balance, purse.reserved, 0, 0)
        for key_id, ward in self.wards.items():
            assert money[key_id] == (0, 0, ward.held, ward.used)


def run_machine(engine: str, bench: Callable[[], Bench], leave: Callable[[Bench], None]) -> None:
    class Machine(Ledger):
        pass

    Machine.bench, Machine.leave = staticmethod(bench), staticmethod(leave)
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=EXAMPLES[engine],
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.generate, Phase.shrink),
            print_blob=True,
        ),
    )
    print(f"T-1 engine={engine} steps={Machine.steps} violations=0")


@pytest.mark.slow
def test_any_sequence_on_sqlite(sqlite_template: Path, tmp_path: Path) -> None:
    """Each sequence has a database of its own."""
    with tempfile.TemporaryDirectory(dir=IN_MEMORY if IN_MEMORY.is_dir() else tmp_path) as home:
        path = Path(home) / "routstr.db"

        def bench() -> Bench:
            shutil.copyfile(sqlite_template, path)
            return Bench(SQLITE + str(path))

        def leave(bench: Bench) -> None:
            bench.close()
            for each in path.parent.glob("*.db*"):
                each.unlink()

        run_machine("sqlite", bench, leave)


@pytest.mark.slow
def test_any_sequence_on_postgres(postgres_server: Postgres, postgres_template: str) -> None:
    """Each sequence has a database of its own: what one left would decide what the next can do."""
    urls: list[str] = []

    def bench() -> Bench:
        urls.append(postgres_server.create_database(postgres_template))
        return Bench(urls[-1])

    def leave(bench: Bench) -> None:
        bench.close()
        postgres_server.drop_database(urls.pop())

    run_machine("postgres", bench, leave)
