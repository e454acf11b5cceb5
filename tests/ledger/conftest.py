"""A running ledger on each engine."""

from collections.abc import AsyncIterator

import pytest

from tests.ledger.node import Node, running_node


@pytest.fixture
async def node(database_url: str) -> AsyncIterator[Node]:
    async with running_node(database_url) as node:
        yield node
