"""A running ledger on each engine, empty or lived in."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.harness.databases import SQLITE
from tests.harness.postgres import Postgres
from tests.ledger.lived import live, live_on
from tests.ledger.node import Node, Signer, running_node


@pytest.fixture
async def node(database_url: str) -> AsyncIterator[Node]:
    async with running_node(database_url) as node:
        yield node


@pytest.fixture(scope="session")
def lived_sqlite(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database file in which a node has lived; copy it, never open it."""
    path = tmp_path_factory.mktemp("lived") / "routstr.db"
    shutil.copyfile(sqlite_template, path)
    _live_in(SQLITE + str(path))
    return path


@pytest.fixture(scope="session")
def lived_postgres(postgres_server: Postgres, postgres_template: str) -> Iterator[str]:
    """A database in which a node has lived; clone it, never connect to it."""
    url = postgres_server.create_database(postgres_template)
    _live_in(url)
    yield url
    postgres_server.drop_database(url)


@pytest.fixture
def lived_sqlite_url(lived_sqlite: Path, tmp_path: Path) -> str:
    path = tmp_path / "lived.db"
    shutil.copyfile(lived_sqlite, path)
    return SQLITE + str(path)


@pytest.fixture
def lived_postgres_url(postgres_server: Postgres, lived_postgres: str) -> Iterator[str]:
    url = postgres_server.create_database(lived_postgres)
    yield url
    postgres_server.drop_database(url)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def lived_url(request: pytest.FixtureRequest) -> str:
    """A lived-in database of the test's own: the test runs once on each engine."""
    url: str = request.getfixturevalue(f"lived_{request.param}_url")
    return url


@pytest.fixture
async def lived_node(lived_url: str) -> AsyncIterator[Node]:
    async with running_node(lived_url, owner="later", signer=Signer(fee_ppk=100, salt=5)) as node:
        yield node


def _live_in(url: str) -> None:
    async def run() -> None:
        async with running_node(url) as node:
            await live_on(node, await live(node))

    with ThreadPoolExecutor(1) as thread:  # the main thread's event loops are the tests' own
        thread.submit(asyncio.run, run()).result()
