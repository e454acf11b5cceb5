"""A node that has lived, on either engine."""

import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from bench.seed import MINT_URL, seed
from routstr.flows.context import Context
from routstr.ledger.engine import PoolSettings, open_database
from routstr.ledger.vault import Vault
from tests.harness.clock import MovableClock
from tests.harness.till import MASTER, open_context


@pytest.fixture
async def lived(database_url: str) -> AsyncIterator[Context]:
    """A node of 300 keys and 5,000 rows of five days, without a mint."""
    database = open_database(database_url, PoolSettings(size=1, overflow=1))
    vault = Vault(MASTER, random_bytes=secrets.token_bytes)
    now = datetime.now(UTC)
    await seed(database, vault, keys=300, transactions=5_000, now=now, days=5)
    await database.close()
    async with open_context(database_url, (MINT_URL,), MovableClock()) as (ctx, _):
        yield ctx
