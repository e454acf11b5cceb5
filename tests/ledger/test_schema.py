"""What the database itself refuses, whoever asks: the last line behind the code."""

import asyncio
from dataclasses import dataclass, replace

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from routstr.errors import ServiceUnavailable, UntrustedMint
from routstr.ledger.book import KeyRef
from routstr.ledger.catalog import SaveMint
from routstr.ledger.commands import RowCommand, Transaction
from routstr.ledger.connection import LedgerConnection
from routstr.ledger.deposits import FailDeposit
from routstr.ledger.sagas import MarkSent
from tests.ledger.node import (
    MINT_URL,
    Node,
    Signer,
    credit_command,
    new_key,
    reserve,
    settle,
)

REFUSED = [
    "UPDATE apikey SET balance = -1, reserved = 0",
    "UPDATE apikey SET reserved = -1",
    "UPDATE apikey SET reserved = balance + 1",
    "UPDATE reservation SET amount = -1",
    "UPDATE reservation SET settled_amount = amount + 1",
    "UPDATE reservation SET state = 'nonsense'",
    "UPDATE deposit SET state = 'nonsense'",
    "UPDATE deposit_input SET y = 'short'",
    "UPDATE withdrawal SET amount = 0",
    "UPDATE withdrawal SET status = 'nonsense'",
    "UPDATE mint_operation SET kind = 'nonsense'",
    "UPDATE mint_operation SET state = 'nonsense'",
    "UPDATE mint_output SET purpose = 'nonsense'",
    "UPDATE mint_output SET counter = 0",
    "UPDATE mint_output SET b_ = 'same'",
    "UPDATE proof SET amount = 0",
    "UPDATE proof SET state = 'nonsense'",
    "UPDATE keyset SET residue31 = 1",
    'UPDATE "transaction" SET amount = amount',
    'DELETE FROM "transaction"',
    "INSERT INTO \"transaction\" SELECT 99, api_key_id, sequence, 0, 0, 'usage', NULL, timestamp,"
    " NULL, 'other' FROM \"transaction\" WHERE sequence = 1",
    "INSERT INTO \"transaction\" SELECT 99, api_key_id, 77, 0, 0, 'usage', NULL, timestamp,"
    ' NULL, operation_id FROM "transaction" WHERE sequence = 1',
    "INSERT INTO \"transaction\" SELECT 99, api_key_id, 77, 0, 0, 'gift', NULL, timestamp,"
    " NULL, 'other' FROM \"transaction\" WHERE sequence = 1",
    "INSERT INTO \"transaction\" SELECT 99, api_key_id, 77, 0, -1, 'usage', NULL, timestamp,"
    " NULL, 'other' FROM \"transaction\" WHERE sequence = 1",
    "DELETE FROM apikey",
]


@pytest.fixture
async def lived_in(node: Node) -> Node:
    """A node whose tables all have rows."""
    key = await node.open_key("k")
    await node.fund(key, [8, 4], salt="s")
    await node.ledger.submit(reserve("h", key, 1000))
    await node.ledger.submit(settle("h", key, 1000))
    await node.ledger.submit(node.withdraw("w", key, 3))
    await node.ledger.submit(
        SaveMint(mint_url="https://other.example", keysets=[Signer(salt=2).keyset])
    )
    return node


@pytest.mark.parametrize("statement", REFUSED)
async def test_the_database_refuses(lived_in: Node, statement: str) -> None:
    before = await lived_in.rows()
    with pytest.raises(DBAPIError):
        await lived_in.execute(statement)
    assert await lived_in.rows() == before


async def test_postgres_refuses_to_empty_the_audit_rows(lived_in: Node) -> None:
    statement = 'TRUNCATE "transaction"'  # SQLite knows no such word, and says so
    with pytest.raises(DBAPIError):
        await lived_in.execute(statement)


async def test_readers_cannot_write(lived_in: Node) -> None:
    async with lived_in.database.reading() as connection:
        with pytest.raises(DBAPIError):
            await connection.execute(text("UPDATE apikey SET balance = 0"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Overtaken(RowCommand[None]):
    """Somebody else's write between our reading and our writing."""

    statement: str

    async def run(self, transaction: Transaction) -> None:
        await transaction.connection.execute(text(self.statement))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE apikey SET version = version + 1",
        "UPDATE apikey SET balance = balance + 1",
        "UPDATE apikey SET reserved = reserved + 1",
        "UPDATE reservation SET state = 'expired'",
        "UPDATE reservation SET amount = amount + 1",
        "UPDATE reservation SET id = 'another' WHERE id = 'held'",
    ],
)
async def test_a_guarded_write_finds_it_was_overtaken(lived_in: Node, statement: str) -> None:
    key = KeyRef(id="key_k")
    await lived_in.ledger.submit(reserve("held", key, 1000))
    before = await lived_in.rows()
    results = await asyncio.gather(
        lived_in.ledger.submit(Overtaken(statement=statement)),
        lived_in.ledger.submit(settle("held", key, 500)),
        return_exceptions=True,
    )
    # Together they lose every race; alone, the second finds what the first has done.
    assert len(lived_in.clock.waits) >= 2
    assert results[0] is None
    assert await lived_in.rows() != before


async def test_a_quick_query_reads_what_is_committed_and_writes_nothing(node: Node) -> None:
    async def balance(connection: LedgerConnection) -> object:
        return await connection.scalar(text("SELECT balance FROM apikey"))

    async def robbery(connection: LedgerConnection) -> None:
        await connection.execute(text("UPDATE apikey SET balance = 9"))

    key = await node.open_key("k")
    assert await node.database.read(balance) == 0
    await node.fund(key, [4], salt="s")
    assert await node.database.read(balance) == 4000
    with pytest.raises((DBAPIError, ServiceUnavailable)):
        await node.database.read(robbery)
    assert await node.database.read(balance) == 4000


async def test_an_operation_moves_only_where_its_table_allows(node: Node) -> None:
    proofs = node.signer.proofs([4], salt="s")
    begun = await node.ledger.submit(node.begin("dep", proofs, new=new_key("k")))
    assert begun.operation is not None
    with pytest.raises(ServiceUnavailable):  # prepared, so it was never posted
        await node.ledger.submit(credit_command(node.signer, begun.operation, None))
    await node.ledger.submit(MarkSent(operation_id=begun.operation.id))
    failed = FailDeposit(operation=begun.operation, code="10001", error_code="refused")
    await node.ledger.submit(failed)
    with pytest.raises(ServiceUnavailable):  # failed is final
        await node.ledger.submit(credit_command(node.signer, begun.operation, None))
    with pytest.raises(ServiceUnavailable):
        await node.ledger.submit(MarkSent(operation_id=begun.operation.id))
    assert await node.value("SELECT count(*) FROM apikey") == 0
    await node.assert_sound()


async def test_a_mints_keysets_are_its_own(node: Node) -> None:
    other = "https://other.example"
    with pytest.raises(UntrustedMint):  # known as another mint's
        await node.ledger.submit(SaveMint(mint_url=other, keysets=[node.signer.keyset]))
    keyset = node.signer.keyset
    changed = replace(keyset, keys={**keyset.keys, 1: keyset.keys[2]})
    with pytest.raises(UntrustedMint):
        await node.ledger.submit(SaveMint(mint_url=MINT_URL, keysets=[changed]))
    bits = int(keyset.id, 16) + 2**31 - 1
    twin = replace(Signer(salt=3).keyset, id=f"{bits:016x}")  # the same 31 bits (NUT-13)
    assert twin.id.startswith("00")
    with pytest.raises(UntrustedMint):
        await node.ledger.submit(SaveMint(mint_url=other, keysets=[twin]))
    assert await node.value("SELECT count(*) FROM mint") == 1


async def test_a_keysets_counters_outlive_its_news(node: Node) -> None:
    key = await node.open_key("k")
    await node.fund(key, [8], salt="s")
    before = await node.value("SELECT next_counter FROM keyset")
    retired = replace(node.signer.keyset, active=False, input_fee_ppk=100)
    await node.ledger.submit(SaveMint(mint_url=MINT_URL, keysets=[retired]))
    assert await node.value("SELECT next_counter FROM keyset") == before == 4
    assert await node.value("SELECT input_fee_ppk FROM keyset WHERE NOT active") == 100
