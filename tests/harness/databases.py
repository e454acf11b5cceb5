"""Fixtures of migrated, empty databases on both engines, each a clone made for one test."""

import asyncio
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from routstr.ledger.migrate import migrate
from tests.harness.postgres import EmbeddedPostgres, Postgres, installed_programs

SQLITE: Final = "sqlite+aiosqlite:///"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """The server TEST_POSTGRES_URL names, or an embedded one that ends with the run."""
    url = os.environ.get("TEST_POSTGRES_URL")
    if url:
        yield Postgres(url, installed_programs())
        return
    server = EmbeddedPostgres()
    try:
        yield server.start()
    finally:
        server.remove()


@pytest.fixture(scope="session")
def postgres_template(postgres_server: Postgres) -> Iterator[str]:
    """A database migrated once; clone it, never connect to it."""
    url = postgres_server.create_database()
    run_migrations(url)
    yield url
    postgres_server.drop_database(url)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database file migrated once; copy it, never open it."""
    path = tmp_path_factory.mktemp("template") / "routstr.db"
    run_migrations(SQLITE + str(path))
    return path


@pytest.fixture
def postgres_url(postgres_server: Postgres, postgres_template: str) -> Iterator[str]:
    """A migrated PostgreSQL database of the test's own."""
    url = postgres_server.create_database(postgres_template)
    yield url
    postgres_server.drop_database(url)


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """A migrated SQLite database of the test's own."""
    path = tmp_path / "data" / "routstr.db"
    path.parent.mkdir()
    shutil.copyfile(sqlite_template, path)
    return SQLITE + str(path)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest) -> str:
    """A migrated database of the test's own: the test runs once on each engine."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


def run_migrations(url: str) -> None:
    """Bring a database of either engine to the newest revision, as the node does when it starts."""
    with ThreadPoolExecutor(1) as thread:  # the main thread's event loops are the tests' own
        thread.submit(asyncio.run, migrate(url)).result()
