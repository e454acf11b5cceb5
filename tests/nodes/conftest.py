"""Two real processes of one node on one real PostgreSQL, with a mint and an upstream."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import httpx
import pytest

from demo.process import NO_TLS
from demo.servers import DemoUpstream
from tests.fakes.mint import FakeMint
from tests.harness.cluster import ClusterNode

WAIT_S = 30.0
POLL_S = 0.02


class StartNode(Protocol):
    def __call__(
        self, *, upstream_url: str = ..., workers: int = 1, **settings: str
    ) -> ClusterNode:
        """A node that serves; all of a test share its database."""


@pytest.fixture
async def mint() -> AsyncIterator[FakeMint]:
    async with FakeMint() as mint:
        yield mint


@pytest.fixture
def start(
    tmp_path: Path, postgres_url: str, mint: FakeMint, demo_upstream: DemoUpstream
) -> Iterator[StartNode]:
    with ExitStack() as running:
        nodes: list[ClusterNode] = []

        def start(
            *, upstream_url: str = demo_upstream.api_url, workers: int = 1, **settings: str
        ) -> ClusterNode:
            node = ClusterNode(
                tmp_path / f"node-{len(nodes) + 1}",
                database_url=postgres_url,
                mint_url=mint.url,
                upstream_url=upstream_url,
                workers=workers,
                **settings,
            )
            nodes.append(node)
            return running.enter_context(node)

        yield start


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(verify=NO_TLS, timeout=30, trust_env=False) as http:
        yield http


async def funded(http: httpx.AsyncClient, node: ClusterNode, mint: FakeMint, sats: int) -> str:
    """A new key with so much on it."""
    body = {"initial_balance_token": mint.issue(sats)}
    created = await http.post(f"{node.url}/v1/balance/create", json=body)
    assert created.status_code == httpx.codes.OK, created.text
    return str(created.json()["api_key"])


async def told(node: ClusterNode, event: str, count: int = 1) -> None:
    """Return once its log has that, so many times."""
    await until(lambda: node.log.count(event) >= count, f"{count} times {event}")


async def until(is_so: Callable[[], bool], what: str) -> None:
    """Return once it is so."""
    deadline_s = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < deadline_s, what
        await asyncio.sleep(POLL_S)
