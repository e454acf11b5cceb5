"""Which database takes a seed from outside, and what it then says of itself."""

from datetime import UTC, datetime

import pytest

from routstr.ecash.secret import new_mnemonic
from routstr.errors import ConfigError, RestoreRefused
from routstr.ledger.catalog import TakeJob
from routstr.ledger.restores import (
    adopt_mnemonic,
    check_restored,
    finish_restore,
)
from routstr.ledger.seed import acceptance_index, stored_mnemonic, wallet_mnemonic
from tests.ledger.node import Node

OURS, THEIRS, OTHER = (new_mnemonic(bytes([n]) * 16) for n in (1, 2, 3))
NOW = datetime(2025, 1, 1, tzinfo=UTC)


async def adopt(node: Node, mnemonic: str, *, acceptance_key: int = 1) -> None:
    await adopt_mnemonic(
        node.database, node.wallet.vault, mnemonic, acceptance_key=acceptance_key, now=NOW
    )


async def facts(node: Node) -> tuple[str | None, int]:
    """The mnemonic and the acceptance key of the database."""
    async with node.database.reading() as connection:
        known = await stored_mnemonic(connection, node.wallet.vault)
    return known, await acceptance_index(node.database)


async def test_an_empty_database_takes_a_seed(node: Node) -> None:
    vault = node.wallet.vault
    await wallet_mnemonic(node.database, vault, new_mnemonic=lambda: OURS, now=NOW)
    assert await facts(node) == (OURS, 0)
    await adopt(node, THEIRS)
    assert await facts(node) == (THEIRS, 1)
    await adopt(node, THEIRS, acceptance_key=9)
    assert await facts(node) == (THEIRS, 1), "it is the same life"
    await adopt(node, OTHER, acceptance_key=9)
    assert await facts(node) == (OTHER, 9)


async def test_no_node_starts_on_half_a_wallet(node: Node) -> None:
    async with node.database.reading() as connection:
        await check_restored(connection)
    await adopt(node, THEIRS)
    async with node.database.reading() as connection:
        with pytest.raises(ConfigError):
            await check_restored(connection)
    await finish_restore(node.database, now=NOW)
    async with node.database.reading() as connection:
        await check_restored(connection)


async def test_a_database_that_has_lived_keeps_its_seed(lived_node: Node) -> None:
    before = await lived_node.rows()
    with pytest.raises(RestoreRefused):
        await adopt(lived_node, THEIRS)
    assert await lived_node.rows() == before


async def test_a_database_that_a_node_uses_takes_none(node: Node) -> None:
    await node.ledger.submit(TakeJob(name="expire", owner="one", lease_s=30))
    if node.database.dialect == "sqlite":  # its lock says that no node is at work
        await adopt(node, THEIRS)
        return
    with pytest.raises(RestoreRefused):
        await adopt(node, THEIRS)
