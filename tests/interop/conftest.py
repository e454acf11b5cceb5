"""Fixtures of the interop tests: markets with a real mint and a node, and wallets of others."""

import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final, Protocol

import httpx
import pytest

from demo.customer import Customer
from demo.mint import RealMint
from demo.prices import PriceList
from demo.servers import DemoUpstream, Node
from routstr.app import observing
from routstr.config import PREFIX, Settings, check_for_serving
from routstr.flows.audit import audit
from tests.interop.cashu_ts import CashuTs

MINTS: Final = {0: "real_mint", 100: "fee_mint"}  # by their fees, in ppk
MODEL: Final = "demo/large"
PROMPT: Final = "What does an independent wallet prove?"
COMMAND_TIMEOUT_S: Final = 60
STOCK_SAT: Final = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Market:
    """A mint and a node that takes its ecash, as processes."""

    mint: RealMint
    node: Node

    def fee_sat(self, proofs: int) -> int:
        """What the mint takes of a swap of so many proofs (NUT-02), by our own arithmetic."""
        return -(-proofs * self.mint.fee_ppk // 1000)

    def command(self, *arguments: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        """What the node's operator types, beside it or while it is stopped."""
        return subprocess.run(
            [*self.node.argv()[:3], *arguments],
            env=dict(self.node.environment()),
            cwd=self.node.directory,
            capture_output=True,
            input=stdin,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )

    def audit(self) -> None:
        """The node's books are whole, and the mint says the same of its coins."""
        done = self.command("audit", "--json", "--deep")
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

    async def stock(self, wallet: CashuTs) -> str:
        """A key with plenty on it: from now on the node knows the mint, and has small coins."""
        token = await wallet.send(STOCK_SAT)
        return str((await self.customer.create_key(token))["api_key"])

    async def cash_in(self, wallet: CashuTs, key: str) -> int:
        """Empty the key into the wallet, to the sat; what it had, in msat."""
        had_msat, held_sat = await self.customer.balance_msat(key), await wallet.balance()
        refund = await self.customer.withdraw(key)
        back, refund_sat = await wallet.decode(refund["token"]), int(refund["sats"])
        assert back.amount == refund_sat
        assert refund_sat * 1000 + refund["fee_msats"] + refund["remaining_msats"] == had_msat
        assert 0 <= refund["remaining_msats"] < 1000
        await wallet.receive(refund["token"], is_dleq_needed=True)
        assert await wallet.balance() == held_sat + refund_sat - back.fee
        return had_msat


class OpenCashuTs(Protocol):
    """Opens an empty wallet at a mint; it ends with the test."""

    async def __call__(self, mint: RealMint) -> CashuTs: ...


@pytest.fixture(scope="session", params=MINTS, ids="{}ppk".format)
def market(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    demo_upstream: DemoUpstream,
) -> Iterator[Market]:
    """One market without fees and one with, each shared by all tests; in the end it is audited."""
    mint: RealMint = request.getfixturevalue(MINTS[request.param])
    settings = {
        "CASHU_MINTS": mint.url,
        "UPSTREAM_BASE_URL": demo_upstream.api_url,
        "REDEEM_EVERY_S": "1",
        "PAYOUT_KEEP_SATS": "1",
    }
    with Node(tmp_path_factory.mktemp("node"), settings=settings) as node:
        market = Market(mint=mint, node=node)
        yield market
        market.audit()


@pytest.fixture
def other_mint(market: Market, real_mint: RealMint, fee_mint: RealMint) -> RealMint:
    """A mint that the market's node does not know."""
    return fee_mint if market.mint is real_mint else real_mint


@pytest.fixture
async def audited(market: Market) -> AsyncIterator[None]:
    """The same audit after the test, without a process of its own, whose start takes seconds."""
    yield
    given: dict[str, Any] = {
        name.removeprefix(PREFIX).lower(): value
        for name, value in market.node.environment().items()
        if name.startswith(PREFIX)
    }
    given["database_url"] = f"sqlite+aiosqlite:///{market.node.data_dir / 'routstr.db'}"
    settings = Settings(_env_file=None, **given)  # type: ignore[call-arg]  # pydantic's own
    async with observing(check_for_serving(settings)) as ctx:
        report = await audit(ctx, full=True, deep=True)
    assert report.ok, report
    assert [each.silent for each in report.mints] == [None], report.mints


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
