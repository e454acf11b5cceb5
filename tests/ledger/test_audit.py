"""The audit: a sound node is called sound, and one wrong row is called by its invariant's name."""

import asyncio
import itertools
import json
from dataclasses import dataclass
from datetime import timedelta

import pytest

from routstr.ledger.audit import (
    TITLES,
    AuditReport,
    _snapshot,
    audit,
    report_json,
    report_rows,
)
from routstr.ledger.audit_schema import CHAIN_KEYS, GUARDS
from routstr.ledger.book import Book, KeyRef
from routstr.ledger.commands import Command
from routstr.ledger.vault import Vault
from tests.ledger import corruptions, corruptions_teams
from tests.ledger.corruptions import Corruption
from tests.ledger.node import HELD_MSAT_MAX, START, Node, running_node, settle

CORRUPTIONS = (*corruptions.CORRUPTIONS, *corruptions_teams.CORRUPTIONS)


# An operation that is not noted down is a breach of its own: `test_partitions.py`.
NOTE_ALL = (
    "INSERT INTO transaction_operation"
    ' SELECT operation_id FROM "transaction" ON CONFLICT DO NOTHING'
)


async def corrupt(node: Node, *statements: str) -> None:
    """Run them as somebody who may do anything; the triggers stand again after it."""
    async with node.database.writer.begin() as connection:
        if node.database.dialect == "postgresql":
            await connection.exec_driver_sql('ALTER TABLE "transaction" DISABLE TRIGGER USER')
            for statement in statements:
                await connection.exec_driver_sql(statement)
            await connection.exec_driver_sql('ALTER TABLE "transaction" ENABLE TRIGGER USER')
            await connection.exec_driver_sql(NOTE_ALL)
            return
        found = await connection.exec_driver_sql(
            "SELECT name, sql FROM sqlite_master WHERE name IN ('transaction_no_UPDATE',"
            " 'transaction_no_DELETE')"
        )
        triggers = found.all()
        for trigger in triggers:
            await connection.exec_driver_sql(f'DROP TRIGGER "{trigger.name}"')
        for statement in statements:
            await connection.exec_driver_sql(statement)
        for trigger in triggers:
            await connection.exec_driver_sql(trigger.sql)


def named(report: AuditReport) -> str:
    return " ".join(sorted(report.broken, key=lambda name: int(name[2:])))


@pytest.mark.parametrize("wrong", CORRUPTIONS, ids=lambda wrong: wrong.what)
async def test_one_wrong_row_is_named(lived_node: Node, wrong: Corruption) -> None:
    await lived_node.assert_sound()
    await corrupt(lived_node, wrong.sql)
    report = await lived_node.audit()
    assert named(report) == wrong.named
    assert not report.ok
    for each in report.invariants:
        assert bool(each.examples) == bool(each.breaches)
    fast = await lived_node.audit(full=False, since=START)
    # It reads neither coins' secrets nor keys' terms, and an ended hold only through its row.
    assert set(wrong.named.split()) - set(fast.broken) <= {"I-23", "I-9"}
    assert set(fast.broken) <= set(report.broken)
    assert fast.broken or wrong.named == "I-23"


def test_every_invariant_has_a_wrong_row() -> None:
    covered = {name for wrong in CORRUPTIONS for name in wrong.named.split()}
    assert covered == set(TITLES)


@pytest.mark.parametrize(("name", "guard"), GUARDS)
async def test_a_guard_that_is_gone_is_named(lived_node: Node, name: str, guard: str) -> None:
    table = next(t for t in TABLES if guard.partition("_")[2].startswith(t))
    if lived_node.database.dialect == "postgresql":
        await corrupt(lived_node, f'ALTER TABLE "{table}" DROP CONSTRAINT {guard} CASCADE')
    else:
        await forget(lived_node, guard)
    report = await lived_node.audit()
    assert (named(report), report.ok) == (name, False)
    assert guard in next(each.examples for each in report.invariants if each.breaches)


async def forget(node: Node, guard: str) -> None:
    """A schema on SQLite that has never heard of that constraint."""
    await corrupt(
        node,
        "PRAGMA writable_schema=ON",
        f"UPDATE sqlite_master SET sql = replace(sql, '{guard}', 'gone') WHERE type = 'table'",
    )


@pytest.mark.parametrize(("name", "key", "_"), CHAIN_KEYS)
async def test_a_chain_with_a_key_less_is_named(
    lived_node: Node, name: str, key: str, _: str
) -> None:
    if lived_node.database.dialect == "postgresql":
        await lived_node.execute(f"ALTER TABLE transaction_first DROP CONSTRAINT {key}")
    else:
        await forget(lived_node, key)
    report = await lived_node.audit()
    assert (named(report), report.ok) == (name, False)


TABLES = (
    "apikey",
    "proof",
    "withdrawal",
    "deposit_input",
    "deposit",
    "mint_output",
    "idempotency",
)


@pytest.mark.parametrize("verb", ["UPDATE", "DELETE"])
async def test_a_chain_nobody_guards_is_named(lived_node: Node, verb: str) -> None:
    if lived_node.database.dialect == "postgresql":
        # The whole is asked for by its name, a partition by its own.
        part = "transaction" if verb == "UPDATE" else "transaction_default"
        await lived_node.execute(f'ALTER TABLE "{part}" DISABLE TRIGGER transaction_append_only')
    else:
        await lived_node.execute(f"DROP TRIGGER transaction_no_{verb}")
    assert named(await lived_node.audit()) == "I-5"


async def test_a_negative_balance_is_named_even_where_no_check_stopped_it(
    lived_node: Node,
) -> None:
    wrong = "UPDATE apikey SET reserved = -1 WHERE id = 'key_other'"
    if lived_node.database.dialect == "postgresql":
        check = "ck_apikey_reserved_not_negative"
        await corrupt(
            lived_node,
            f"ALTER TABLE apikey DROP CONSTRAINT {check}",
            wrong,
            f"ALTER TABLE apikey ADD CONSTRAINT {check} CHECK (reserved >= 0) NOT VALID",
        )
    else:
        await corrupt(lived_node, "PRAGMA ignore_check_constraints=ON", wrong)
    found = next(each for each in (await lived_node.audit()).invariants if each.breaches)
    assert found.name == "I-4"
    assert "key_other" in found.examples


DOUBLES = {
    "I-11": (
        "ALTER TABLE withdrawal DROP CONSTRAINT uq_withdrawal_api_key_id_idempotency_key",
        "UPDATE withdrawal SET idempotency_key = 'same'",
    ),
    "I-12": (
        "ALTER TABLE mint_output DROP CONSTRAINT uq_mint_output_b_",
        "UPDATE mint_output SET b_ = (SELECT min(b_) FROM mint_output) WHERE position = 1",
    ),
    "I-15": (
        "ALTER TABLE transaction_first DROP CONSTRAINT uq_transaction_operation_id",
        "INSERT INTO \"transaction\" SELECT 999, 'key_other', 99, 0, 0, type, NULL, timestamp,"
        " NULL, operation_id FROM \"transaction\" WHERE operation_id = 'end:released'",
    ),
}


@pytest.mark.parametrize("name", DOUBLES)
async def test_a_double_is_named_where_no_constraint_stopped_it(
    lived_postgres_url: str, name: str
) -> None:
    async with running_node(lived_postgres_url, owner="later") as node:
        await corrupt(node, *DOUBLES[name])
        report = await node.audit()
    found = next(each for each in report.invariants if each.name == name)
    assert found.breaches >= 2  # the guard and the double


@dataclass(frozen=True, slots=True, kw_only=True)
class Gift(Command[None]):
    """Money out of nothing, in a book that adds up."""

    key: KeyRef

    @property
    def keys(self) -> tuple[KeyRef, ...]:
        return (self.key,)

    def apply(self, book: Book) -> None:
        account = book.account(self.key)
        account = account._replace(total_deposited_msat=account.total_deposited_msat + 5000)
        book.post(account, 5000, "deposit", "gift")


async def test_money_without_coins_behind_it_is_named(lived_node: Node) -> None:
    await lived_node.ledger.submit(Gift(key=KeyRef(id="key_other")))
    report = await lived_node.audit()
    assert named(report) == "I-2 I-3"
    assert next(each.examples for each in report.invariants if each.name == "I-3") == ("node",)
    assert report.totals.surplus_msat == 4050 - 5000


async def test_all_is_read_at_one_moment(lived_postgres_url: str) -> None:
    async with (
        running_node(lived_postgres_url, owner="later") as node,
        node.database.reading() as reading,
    ):
        connection = await _snapshot(reading, "postgresql", full=True)
        for name, value in (("isolation", "repeatable read"), ("read_only", "on")):
            shown = await connection.exec_driver_sql(f"SHOW transaction_{name}")
            assert shown.scalar_one() == value


async def test_a_stopped_node_may_leave_work_undone(lived_node: Node) -> None:
    overdue = [each for each in CORRUPTIONS if each.what.startswith("an overdue")]
    await corrupt(lived_node, *(each.sql for each in overdue))
    assert named(await lived_node.audit()) == "I-8 I-9"
    stopped = await audit(
        lived_node.database,
        lived_node.wallet.vault,
        full=True,
        now=lived_node.clock.now(),
        held_msat_max=HELD_MSAT_MAX,
        is_running=False,
    )
    assert stopped.ok


async def test_a_fast_audit_sees_what_moved_since(lived_node: Node) -> None:
    """And the heads and open work of everything; old rows are the full audit's."""
    now = lived_node.clock.now()
    early, late = now - timedelta(days=1), now + timedelta(days=3650)
    assert (await lived_node.audit(full=False, since=early)).ok
    assert (await lived_node.audit(full=False, since=late)).ok
    await corrupt(
        lived_node,
        "UPDATE \"transaction\" SET balance_after = 1 WHERE operation_id = 'deposit:dep_b'",
        "UPDATE withdrawal SET token = NULL WHERE id = 'exact'",
        "UPDATE apikey SET reserved = 0 WHERE id = 'key_rich'",
    )
    assert named(await lived_node.audit(full=False, since=early)) == "I-4 I-5 I-11"
    assert named(await lived_node.audit(full=False, since=late)) == "I-4 I-11"
    unknown = await lived_node.audit(full=False)
    assert unknown.full  # nobody knows when it was clean last
    assert named(unknown) == "I-4 I-5 I-11"


async def test_no_audit_of_a_node_at_work_is_a_false_alarm(lived_node: Node) -> None:
    node, key = lived_node, KeyRef(id="key_rich")

    async def watch() -> list[AuditReport]:
        return [await node.audit() for _ in range(6)]

    async def request(n: int) -> None:
        await node.ledger.submit(node.reserve(f"busy{n}", key, 100))
        await node.ledger.submit(settle(f"busy{n}", key, n))
        await node.ledger.submit(node.withdraw(f"busy{n}", key, 1))

    watching = asyncio.create_task(watch())
    numbers = itertools.count()
    while not watching.done():
        await asyncio.gather(*(request(next(numbers)) for _ in range(2)), return_exceptions=True)
    assert [named(report) for report in await watching if not report.ok] == []


async def test_the_totals_are_the_nodes_money(lived_node: Node) -> None:
    totals = (await lived_node.audit()).totals
    assert totals.balances_msat == sum(
        [await lived_node.balance(KeyRef(id=name)) for name in ("key_rich", "key_other")]
    )
    assert totals.holds_msat == 1400
    assert totals.pending_withdrawals_msat == 16_000
    (purse,) = totals.purses
    assert (purse.unit, purse.issued_msat, purse.reserved_msat) == ("sat", 23_000, 30_000)
    # 118 sat came in net of the mint's fees, 8 by Lightning, 10 locked; 15 and 8 went out, 1 for
    # the swap. An invoice took 5 and 2 of fees, the swap that made another one impossible 1.
    assert purse.held_msat == totals.held_msat == (136 - 24 - 8) * 1000
    # What the requests cost is the operator's, and until it is redeemed the fee of what is locked.
    assert totals.surplus_msat == 700 + 2000 + 1000 + 300 + 50


async def test_a_report_is_json_and_rows_without_secrets(lived_node: Node) -> None:
    await corrupt(lived_node, "UPDATE proof SET secret = 'plain-secret'")
    report = await lived_node.audit()
    text = json.dumps(report_json(report)) + str(report_rows(report))
    assert "plain-secret" not in text
    rows = {name: found for name, _, found in report_rows(report)}
    assert set(rows) == set(TITLES)
    assert rows["I-1"] == "ok"
    wrong = next(each for each in report.invariants if each.name == "I-23")
    assert wrong.breaches > len(wrong.examples) == 5
    assert rows["I-23"].startswith(f"{wrong.breaches}: proof.secret")


async def test_tokens_under_another_master_key_are_lost_and_named(lived_node: Node) -> None:
    report = await audit(
        lived_node.database,
        Vault(b"x" * 32, random_bytes=bytes),
        full=True,
        now=lived_node.clock.now(),
        held_msat_max=HELD_MSAT_MAX,
        is_running=False,
    )
    assert named(report) == "I-11"
    assert {"exact", "swapped"} == set(
        next(each for each in report.invariants if each.breaches).examples
    )
