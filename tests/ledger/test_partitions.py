"""The months of the audit chain on PostgreSQL: made ahead, guarded each, unique together."""

from datetime import UTC, datetime

import pytest
from sqlalchemy.exc import DBAPIError, IntegrityError

from routstr.ledger.book import KeyRef
from routstr.ledger.migrate import migrate
from routstr.ledger.partitions import make_months, month_after
from routstr.ledger.reads_receipts import find_hold
from tests.ledger.node import Node, running_node, settle
from tests.migrations.test_migrations import downgrade

PARTS = "SELECT count(*) FROM pg_inherits WHERE inhparent = CAST('\"transaction\"' AS regclass)"
CAUGHT = "SELECT count(*) FROM transaction_default"
NO_GUARD = 'ALTER TABLE "transaction" {} TRIGGER transaction_append_only'


def test_months_follow_each_other_over_the_year() -> None:
    assert month_after(datetime(2026, 12, 31, 23, tzinfo=UTC)) == datetime(2027, 1, 1, tzinfo=UTC)
    assert month_after(datetime(2026, 1, 31, tzinfo=UTC), 0) == datetime(2026, 1, 1, tzinfo=UTC)
    assert month_after(datetime(2026, 11, 2, tzinfo=UTC), 14) == datetime(2028, 1, 1, tzinfo=UTC)


async def live_on(node: Node, operation_id: str, months: int) -> None:
    """Let that row, and the hold it ends, be of a later month, which nobody has made yet."""
    later = f"+ interval '{months} months'"
    await node.execute(NO_GUARD.format("DISABLE"))
    await node.execute(
        f'UPDATE "transaction" SET timestamp = timestamp {later} WHERE operation_id = :id',
        id=operation_id,
    )
    await node.execute(
        f"UPDATE reservation SET ended_at = ended_at {later} WHERE 'end:' || id = :id",
        id=operation_id,
    )
    await node.execute(NO_GUARD.format("ENABLE"))


async def test_a_row_of_any_month_finds_its_place_and_stays(lived_postgres_url: str) -> None:
    key = KeyRef(id="key_rich")
    async with running_node(lived_postgres_url, owner="later") as node:
        assert (await node.value(PARTS), await make_months(node.database)) == (4, 0)
        await live_on(node, "end:settled", 1)
        await live_on(node, "end:released", 7)
        assert await node.value(CAUGHT) == 1
        await refuse_doubles(node)
        before = await node.rows()
        assert await make_months(node.database) == 1  # what was caught is a partition of its own
        assert await make_months(node.database) == 0
        assert (await node.value(PARTS), await node.value(CAUGHT)) == (5, 0)
        assert await node.rows() == before
        async with node.database.reading() as connection:
            found = await find_hold(connection, "released")
        assert found is not None
        assert found.ending is not None
        await node.ledger.submit(settle("held", key, 1))  # and life goes on
        await node.assert_sound()
        rows = (await node.rows())["transaction"]
    await downgrade(lived_postgres_url, "0010")
    await migrate(lived_postgres_url)
    async with running_node(lived_postgres_url, owner="last") as node:
        assert (await node.rows())["transaction"] == rows
        await node.assert_sound()


async def refuse_doubles(node: Node) -> None:
    """Whatever the month, and by whatever name the rows are asked for."""
    row = (
        "INSERT INTO {} (api_key_id, sequence, amount, balance_after, type, timestamp,"
        " operation_id) SELECT api_key_id, 99, 0, 0, type, timestamp + interval '400 days',"
        " operation_id"
        " FROM \"transaction\" WHERE operation_id = 'end:settled'"
    )
    for name in ('"transaction"', "transaction_default"):
        with pytest.raises(IntegrityError, match="pk_transaction_operation"):
            await node.execute(row.format(name))
    for statement in (
        "DELETE FROM transaction_default",
        "UPDATE transaction_default SET amount = amount",
        "DELETE FROM transaction_operation",
    ):
        with pytest.raises(DBAPIError, match="append-only"):
            await node.execute(statement)


async def test_an_operation_that_is_not_noted_is_named(lived_postgres_url: str) -> None:
    async with running_node(lived_postgres_url, owner="later") as node:
        await node.execute("ALTER TABLE transaction_operation DISABLE TRIGGER USER")
        await node.execute("DELETE FROM transaction_operation WHERE operation_id = 'end:settled'")
        report = await node.audit()
    assert report.broken == ("I-15",)


async def test_months_are_made_while_rows_are_read(lived_postgres_url: str) -> None:
    """A lock that is not free is left for later."""
    async with running_node(lived_postgres_url, owner="later") as node:
        await live_on(node, "end:released", 7)
        async with node.database.reading() as connection:
            await connection.exec_driver_sql("SELECT 1 FROM transaction_default")
            assert await make_months(node.database) == 0
        assert await make_months(node.database) == 1
