"""A till at a model mint of its own, on either engine."""

from collections.abc import AsyncIterator

import pytest

from tests.fakes.mint import FakeMint
from tests.harness.till import Till, open_till


@pytest.fixture
async def mint() -> AsyncIterator[FakeMint]:
    async with FakeMint() as mint:
        yield mint


@pytest.fixture
async def till(database_url: str, mint: FakeMint) -> AsyncIterator[Till]:
    async with open_till(database_url, mint) as till:
        yield till
