"""The embedded PostgreSQL: databases come and go, and a crash loses nothing that was committed."""

from collections.abc import Iterator
from subprocess import CalledProcessError

import asyncpg
import pytest

from tests.harness.postgres import EmbeddedPostgres, Postgres

SCHEME = "postgresql+asyncpg://"


@pytest.fixture
def own_server() -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres()
    try:
        yield server.start()
    finally:
        server.remove()


async def query(url: str, sql: str) -> object:
    connection = await asyncpg.connect(url.replace(SCHEME, "postgresql://"))
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


async def test_a_clone_has_its_templates_rows_and_keeps_its_own(postgres_server: Postgres) -> None:
    template = postgres_server.create_database()
    await query(template, "CREATE TABLE t AS SELECT 1 AS n")
    first = postgres_server.create_database(template)
    second = postgres_server.create_database(template)
    await query(first, "UPDATE t SET n = 2")
    assert await query(first, "SELECT n FROM t") == 2
    assert await query(second, "SELECT n FROM t") == 1
    for url in (first, second, template):
        postgres_server.drop_database(url)


async def test_a_database_is_dropped_even_under_a_forgotten_connection(
    postgres_server: Postgres,
) -> None:
    url = postgres_server.create_database()
    forgotten = await asyncpg.connect(url.replace(SCHEME, "postgresql://"))
    postgres_server.drop_database(url)
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await query(url, "SELECT 1")
    forgotten.terminate()


def test_a_refused_statement_raises(postgres_server: Postgres) -> None:
    with pytest.raises(CalledProcessError):
        postgres_server.execute("SELECT nonsense")


@pytest.mark.postgres
def test_it_confirms_only_what_it_keeps(own_server: EmbeddedPostgres) -> None:
    assert own_server.execute("SHOW fsync") == "on"
    assert own_server.execute("SHOW synchronous_commit") == "on"
    own_server.execute("CREATE TABLE kept AS SELECT 7 AS n")
    own_server.crash()
    own_server.start()
    assert own_server.execute("SELECT n FROM kept") == "7"
