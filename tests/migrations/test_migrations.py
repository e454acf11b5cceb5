"""T-14: the schema goes up, down and up again under rows that somebody owns."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from demo.process import ROOT
from routstr.ledger.audit import AuditReport
from routstr.ledger.book import KeyRef
from routstr.ledger.engine import PoolSettings, open_database
from routstr.ledger.migrate import MIGRATIONS, leave_references_unchecked, migrate
from tests.harness.databases import SQLITE
from tests.harness.postgres import Postgres
from tests.ledger.lived import live
from tests.ledger.node import Node, Signer, reserve, running_node, settle

REQUESTS = 5000  # each is a reservation and a row of the chain
UP_S_MAX = 60
# Columns that a revision below takes away with what is in them.
TAKEN = (
    *("nuts", "answered_at", "quote_id", "next_poll_at", "polls"),
    *("rate_minute", "rate_requests", "rate_tokens"),
)
KEEPING = (
    "0004",
    "0005",
    "0006",
    "0009",
)  # revisions whose tables and columns hold nothing that `live` writes


async def run_on(url: str, work: Callable[[Connection], None]) -> None:
    """Do it in one transaction of its own, as `migrate` does."""
    database = open_database(url, PoolSettings(size=1, overflow=0))
    if database.dialect == "sqlite":
        leave_references_unchecked(database.writer)
    try:
        async with database.writer.begin() as connection:
            await connection.run_sync(work)
    finally:
        await database.close()


def config_on(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    return config


def revisions() -> list[str]:
    """All there are, the first one first."""
    script = ScriptDirectory(str(MIGRATIONS))
    return [each.revision for each in script.walk_revisions()][::-1]


async def downgrade(url: str, revision: str) -> None:
    await run_on(url, lambda connection: command.downgrade(config_on(connection), revision))


SCHEMA = {
    "sqlite": ["SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'"],
    "postgresql": [
        "SELECT table_name, column_name, data_type, is_nullable, column_default"
        " FROM information_schema.columns WHERE table_schema = 'public'",
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE connamespace = CAST('public' AS regnamespace)",
        "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
        "SELECT viewname, definition FROM pg_views WHERE schemaname = 'public'",
        "SELECT tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal",
        "SELECT proname, prosrc FROM pg_proc WHERE pronamespace = CAST('public' AS regnamespace)",
    ],
}


async def schema_of(url: str) -> list[tuple[object, ...]]:
    """Every table, constraint, index, view, trigger and function, in the engine's own words."""
    found: list[tuple[object, ...]] = []

    def look(connection: Connection) -> None:
        for query in SCHEMA[connection.dialect.name]:
            found.extend(sorted(tuple(row) for row in connection.execute(text(query))))

    await run_on(url, look)
    return found


@pytest.fixture
async def node(database_url: str) -> AsyncIterator[Node]:
    async with running_node(database_url) as node:
        yield node


async def busy(url: str) -> tuple[AuditReport, dict[str, list[str]]]:
    """Live in it, and sell a lot; the audit and every row as they are then."""
    async with running_node(url) as node:
        await live(node)
        key = KeyRef(id="key_rich")
        for first in range(0, REQUESTS, 250):
            numbers = range(first, first + 250)
            await asyncio.gather(
                *(node.ledger.submit(reserve(f"many{n}", key, 3)) for n in numbers)
            )
            await asyncio.gather(*(node.ledger.submit(settle(f"many{n}", key, 2)) for n in numbers))
        return await node.audit(), await node.rows()


async def found(url: str) -> tuple[AuditReport, dict[str, list[str]]]:
    signer = Signer(fee_ppk=100, salt=5)
    async with running_node(url, owner="later", signer=signer) as node:
        return await node.audit(), await node.rows("updated_at", *TAKEN)


async def test_down_and_up_again_keeps_every_row(database_url: str) -> None:
    before, _ = await busy(database_url)
    _, rows = await found(database_url)
    assert before.ok
    assert sum(len(each) for each in rows.values()) > 10_000
    for revision in KEEPING:
        await downgrade(database_url, f"{int(revision) - 1:04}")
        started_s = time.monotonic()
        await migrate(database_url)
        took_s = time.monotonic() - started_s
        after, rows_after = await found(database_url)
        assert rows_after == rows
        assert (after.invariants, after.totals) == (before.invariants, before.totals)
        assert took_s < UP_S_MAX
        print(f"T-14 revision={revision} rows={REQUESTS * 2} audit_equal up={took_s:.1f}s")


async def test_down_to_nothing_and_up_is_the_same_schema(database_url: str) -> None:
    whole = await schema_of(database_url)
    await downgrade(database_url, "base")
    bare = await schema_of(database_url)
    assert {"alembic_version" in str(each) for each in bare} == {True}
    await migrate(database_url)
    assert await schema_of(database_url) == whole


async def test_each_revision_goes_up_alone(database_url: str) -> None:
    whole = await schema_of(database_url)
    await downgrade(database_url, "base")
    for revision in revisions():
        await migrate(database_url, revision)
        await downgrade(database_url, f"{int(revision) - 1:04}" if revision > "0001" else "base")
        await migrate(database_url, revision)
    await migrate(database_url)
    assert await schema_of(database_url) == whole


class Killed(Exception):
    """The process dies here."""


async def test_a_migration_killed_midway_leaves_the_schema_there_was(database_url: str) -> None:
    before, _ = await busy(database_url)
    whole = await schema_of(database_url)

    def die(connection: Connection) -> None:
        command.downgrade(config_on(connection), "0002")
        raise Killed

    with pytest.raises(Killed):
        await run_on(database_url, die)
    assert await schema_of(database_url) == whole
    after, _ = await found(database_url)
    assert (after.invariants, after.totals) == (before.invariants, before.totals)


MIGRATE = """
import asyncio, sys
from routstr.ledger.migrate import migrate
asyncio.run(migrate(sys.argv[1]))
"""


async def test_nodes_that_start_together_migrate_once(postgres_server: Postgres) -> None:
    url = postgres_server.create_database()
    nodes = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", MIGRATE, url, cwd=ROOT)
        for _ in range(3)
    ]
    assert [await each.wait() for each in nodes] == [0, 0, 0]
    async with running_node(url) as node:
        await node.assert_sound()
        assert await node.value("SELECT count(*) FROM alembic_version") == 1
    postgres_server.drop_database(url)


async def test_a_new_file_is_migrated_by_starting(tmp_path_factory: pytest.TempPathFactory) -> None:
    url = SQLITE + str(tmp_path_factory.mktemp("new") / "routstr.db")
    await migrate(url)
    await migrate(url)
    async with running_node(url) as node:
        await node.assert_sound()


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("mint", "name = 'x'"),
        ("keyset", "active = false"),
        ("upstream", "enabled = false"),
        ("model", "enabled = false"),
        ("admin_user", "password_hash = 'x'"),
    ],
)
async def test_updated_at_is_kept_by_the_database(node: Node, table: str, change: str) -> None:
    old = "2020-01-01T00:00:00.000000+00:00"
    await node.execute(
        "INSERT INTO upstream (id, slug, provider_type, base_url, enabled, fee_ppm, created_at,"
        f" updated_at) VALUES ('u', 'u', 'openai', 'x', true, 0, '{old}', '{old}')"
    )
    await node.execute(
        "INSERT INTO model (id, upstream_id, model_id, forwarded_model_id, context_length,"
        " max_output_tokens, fee_ppm, enabled, created_at, updated_at)"
        f" VALUES ('m', 'u', 'm', 'm', 1, 1, 0, true, '{old}', '{old}')"
    )
    await node.execute(
        "INSERT INTO admin_user (id, name, password_hash, created_at, updated_at)"
        f" VALUES ('a', 'a', 'h', '{old}', '{old}')"
    )
    before = await node.value(f"SELECT max(updated_at) FROM {table}")
    await node.execute(f"UPDATE {table} SET {change}")
    after = await node.value(f"SELECT max(updated_at) FROM {table}")
    assert str(after) > str(before)
    if node.database.dialect == "sqlite":
        assert len(str(after)) == len(old)


async def test_the_reading_views_tell_what_the_rows_do(node: Node) -> None:
    await live(node)
    async with node.database.reading() as connection:
        statement = await connection.execute(
            text("SELECT * FROM key_statement WHERE api_key_id = 'key_rich' ORDER BY sequence")
        )
        lines = statement.all()
        revenue = await connection.execute(
            text("SELECT day, model, requests, revenue_msat FROM revenue_by_model_day")
        )
        days = revenue.all()
    assert [line.sequence for line in lines] == list(range(1, len(lines) + 1))
    for line in lines:
        assert line.paid_in - line.paid_out == line.balance_after
    today = await node.value(
        'SELECT substr(CAST(max(timestamp) AS text), 1, 10) FROM "transaction"'
    )
    assert [tuple(day) for day in days] == [(today, "m", 2, 2700)]
