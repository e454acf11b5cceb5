"""A till at a model mint of its own, on either engine."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from routstr.ledger.backups import BackupStore
from tests.fakes.mint import FakeMint
from tests.harness.databases import SQLITE
from tests.harness.life import Life
from tests.harness.postgres import Postgres, installed_programs
from tests.harness.till import MASTER, Till, open_till


@pytest.fixture
async def mint() -> AsyncIterator[FakeMint]:
    async with FakeMint() as mint:
        yield mint


@pytest.fixture
async def till(database_url: str, mint: FakeMint) -> AsyncIterator[Till]:
    async with open_till(database_url, mint) as till:
        yield till


@pytest.fixture
def life(
    request: pytest.FixtureRequest, database_url: str, mint: FakeMint, tmp_path: Path
) -> Iterator[Life]:
    made: list[str] = []

    def new_url() -> str:
        if database_url.startswith(SQLITE):
            return f"{SQLITE}{tmp_path / os.urandom(4).hex()}.db"
        server: Postgres = request.getfixturevalue("postgres_server")
        made.append(server.create_database())
        return made[-1]

    store = BackupStore(
        directory=tmp_path / "backups",
        keep=14,
        database_url=database_url,
        programs=installed_programs(),
        master=MASTER,
        passphrase=None,
        settings={},
        version="0",
        random_bytes=os.urandom,
    )
    yield Life(url=database_url, mint=mint, store=store, new_url=new_url, tmp_path=tmp_path)
    for url in made:
        request.getfixturevalue("postgres_server").drop_database(url)
