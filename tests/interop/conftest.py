"""Fixtures of the interop tests: markets with a real mint and a node, and wallets of others."""

import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final, Protocol

import httpx
import pytest

from demo.customer import Customer
from demo.mint import RealMint
from demo.prices import PriceList
from demo.servers import DemoUpstream, Node
from tests.interop.cashu_ts import CashuTs

FEES_PPK: Final = (0, 100)
MODEL: Final = "demo/large"
PROMPT: Final = "What does an independent wallet prove?"
AUDIT_TIMEOUT_S: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Market:
    """A mint and a node that takes its ecash, as processes."""

    mint: RealMint
    node: Node

    def fee_sat(self, proofs: int) -> int:
        """What the mint takes of a swap of so many proofs (NUT-02), by our own arithmetic."""
        return -(-proofs * self.mint.fee_ppk // 1000)

    def audit(self) -> None:
        """The node's books are whole, and the mint says the same of its coins."""
        done = subprocess.run(
            [*self.node.argv()[:3], "audit", "--json", "--deep"],
            env=dict(self.node.environment()),
            cwd=self.node.directory,
            capture_output=True,
            text=True,
            timeout=AUDIT_TIMEOUT_S,
        )
        assert done.stdout, done.stderr
        report = json.loads(done.stdout)
        broken = {each["name"]: each for each in report["invariants"] if each["breaches"]}
        assert (done.returncode, broken) == (0, {}), done.stdout


@dataclass(frozen=True, slots=True, kw_only=True)
class Buyer:
    """Somebody at the node's door: the usual way in `customer`, anything else by `http`."""

    market: Market
    customer: Customer
    http: httpx.AsyncClient

    async def buy(self, credential: str) -> int:
        """A paid answer; what it cost in msat, which our own price list must confirm."""
        reply = await self.customer.chat(credential, MODEL, PROMPT)
        price = PriceList.load()[MODEL]
        cost_msat = price.cost_msat(words_in=reply.words_in, words_out=reply.words_out)
        assert reply.told_msat == cost_msat
        return cost_msat


class OpenCashuTs(Protocol):
    """Opens an empty wallet at a mint; it ends with the test."""

    async def __call__(self, mint: RealMint) -> CashuTs: ...


@pytest.fixture(scope="session", params=FEES_PPK, ids="{}ppk".format)
def market(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    demo_upstream: DemoUpstream,
) -> Iterator[Market]:
    """One market without fees and one with, each shared by all tests; in the end it is audited."""
    home = tmp_path_factory.mktemp("market")
    with RealMint(home / "mint", fee_ppk=request.param) as mint:
        settings = {"CASHU_MINTS": mint.url, "UPSTREAM_BASE_URL": demo_upstream.api_url}
        with Node(home / "node", settings=settings) as node:
            market = Market(mint=mint, node=node)
            yield market
            market.audit()


@pytest.fixture
async def buyer(market: Market) -> AsyncIterator[Buyer]:
    """A customer without money; wallets have it."""
    base_url = market.node.api_url
    async with (
        Customer(base_url) as customer,
        httpx.AsyncClient(base_url=base_url, timeout=30, trust_env=False) as http,
    ):
        yield Buyer(market=market, customer=customer, http=http)


@pytest.fixture
async def open_cashu_ts() -> AsyncIterator[OpenCashuTs]:
    """Wallets on cashu-ts."""
    async with AsyncExitStack() as opened:

        async def start(mint: RealMint) -> CashuTs:
            return await opened.enter_async_context(CashuTs(mint.url))

        yield start
