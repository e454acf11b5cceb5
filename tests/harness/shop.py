"""A small node of real parts: ledger on a real database, fake upstream, real uvicorn in between.

    async with open_shop(database_url) as shop:
        key = await shop.key(100_000)
        answer = await shop.http.post("/v1/chat/completions", headers=key.headers, json=order())

At its end every exchange has ended, the books are clean and the receipts add up, or the test fails.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import httpx
import uvicorn
from fastapi import FastAPI

from demo.process import NO_TLS
from routstr.config import Settings
from routstr.core.pricing import Model, Price
from routstr.ecash.acceptance import acceptance_keys
from routstr.ecash.receipt_key import receipt_key
from routstr.flows.catalog import Catalog, built_in, listed
from routstr.flows.context import Context, MintShelf
from routstr.flows.exchange import Exchange
from routstr.flows.house.passwords import Passwords
from routstr.flows.limits import Limits, NodeFacts
from routstr.flows.rations import EarlyLeaves, Misses
from routstr.flows.tasks import RunningHolds, TaskOwner
from routstr.gateways.addresses import OutsideHttp
from routstr.gateways.lnurl import LnurlClient
from routstr.gateways.mint import MintClient
from routstr.gateways.pool import UpstreamPool
from routstr.gateways.upstream_config import BUILT_IN, UpstreamConfig
from routstr.ledger.commands import Wallet
from routstr.ledger.engine import PoolSettings, open_database
from routstr.ledger.executor import ExecutorLimits, LedgerExecutor
from routstr.ledger.vault import Vault
from routstr.log import Secret
from routstr.web.front import NodeApp
from routstr.web.head import bounded_head
from routstr.web.routes import install_doors
from tests.fakes.upstream import FakeUpstream
from tests.fakes.upstream_script import MODEL
from tests.harness.funding import FundedKey, assert_books_are_clean, funded_key
from tests.harness.live import live_of
from tests.harness.receipts import assert_receipts_are_sound

WAIT_S: Final = 10.0
PATH: Final = "/v1/chat/completions"
PROMPT: Final = "Count to three."
CHEAP: Final = Passwords(memory_kib=8, rounds=1)  # else each costs a fifth of a second

# 100 msat a request, 2 msat a token in, 5 msat a token out.
CHAT_MODEL: Final = Model(
    id=MODEL,
    name="Fake",
    context_length=10_000,
    max_output_tokens=2_000,
    price=Price(
        version="v7",
        input_msat_per_mtok=2_000_000,
        output_msat_per_mtok=5_000_000,
        request_msat=100,
    ),
)
# 1 000 msat a request, tokens for nothing.
FLAT_MODEL: Final = Model(
    id="flat-model",
    name="Flat",
    context_length=10_000,
    max_output_tokens=2_000,
    price=Price(version="f1", input_msat_per_mtok=0, output_msat_per_mtok=0, request_msat=1_000),
)


class WallClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Marks:
    """Records the failpoints that were passed; `at` lets a test act in the middle of things."""

    def __init__(self) -> None:
        self.passed: list[str] = []
        self.at: dict[str, Any] = {}

    async def reached(self, name: str) -> None:
        """Wait until that point was passed."""
        await until(lambda: name in self.passed)

    def __call__(self, name: str) -> None:
        self.passed.append(name)
        if name in self.at:
            self.at[name]()


@dataclass(frozen=True, slots=True)
class HeaderBounds:
    header_bytes_max: int = 32 * 1024
    header_lines_max: int = 100


@dataclass(slots=True, kw_only=True)
class Shop:
    """The running node; `ctx.limits` are the defaults but for what the test changed."""

    ctx: Context
    app: NodeApp
    upstream: FakeUpstream
    marks: Marks
    port: int = 0
    http: httpx.AsyncClient

    async def key(self, amount_msat: int = 1_000_000) -> FundedKey:
        return await funded_key(self.ctx, amount_msat)

    def sell(self, models: Mapping[str, Model]) -> None:
        """Sell these, each under its name, in place of what is sold."""
        named = {name: replace(model, id=name) for name, model in models.items()}
        listings = {name: listed(model, [built_in(model)]) for name, model in named.items()}
        self.ctx.catalog.replace(replace(self.ctx.catalog.picture, listings=listings))

    def exchange(self) -> Exchange:
        """The only one that is running."""
        [exchange] = self.ctx.holds._holds.values()
        assert isinstance(exchange, Exchange)
        return exchange

    async def noticed_leave(self) -> None:
        """Wait until the node knows that its only client has left."""
        exchange = self.exchange()
        await until(lambda: exchange.stopped is not None)

    async def quiet(self) -> None:
        """Wait until every exchange has ended, as it must within 5 s."""
        running = [task for task in asyncio.all_tasks() if task.get_name().startswith("req_")]
        if running:
            _, late = await asyncio.wait(running, timeout=5)
            assert not late, "an exchange did not end"


async def until(is_true: Callable[[], bool]) -> None:
    """Let everything run until something inside the node, which nothing tells of, is so."""
    async with asyncio.timeout(WAIT_S):
        while not is_true():  # noqa: ASYNC110 - it has no event, and no time passes here
            await asyncio.sleep(0)


def order(**more: object) -> dict[str, object]:
    """A chat body; None leaves a member out."""
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": PROMPT}],
        "max_tokens": 100,
        **more,
    }
    return {name: value for name, value in body.items() if value is not None}


@asynccontextmanager
async def open_shop(
    database_url: str, *, base_url: str | None = None, **limits: Any
) -> AsyncIterator[Shop]:
    """`limits` are fields of `Limits`, `facts_*` of NodeFacts; `base_url`: another upstream."""
    marks = Marks()
    async with (
        FakeUpstream() as upstream,
        _context(database_url, base_url or upstream.base_url, marks, limits) as ctx,
    ):
        app = make_app(ctx)
        shop = Shop(
            ctx=ctx, app=app, upstream=upstream, marks=marks, http=httpx.AsyncClient(verify=NO_TLS)
        )
        async with serving(app) as port:
            shop.port = port
            async with httpx.AsyncClient(
                verify=NO_TLS,
                base_url=f"http://127.0.0.1:{port}",
                timeout=WAIT_S,
                limits=httpx.Limits(max_connections=None),
            ) as shop.http:
                yield shop
                await shop.quiet()
        await assert_books_are_clean(ctx)
        await assert_receipts_are_sound(ctx)
        assert len(ctx.holds) == 0


def make_app(ctx: Context) -> NodeApp:
    """The whole web room."""
    app = NodeApp()
    app.state.ctx = ctx
    install_doors(app, HeaderBounds())
    return app


@asynccontextmanager
async def serving(
    app: FastAPI, *, http: type[asyncio.Protocol] | None = None
) -> AsyncIterator[int]:
    """A uvicorn in this process, behind the node's own protocol; yields its port."""
    started = asyncio.Event()

    class Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            started.set()

    server = Server(
        uvicorn.Config(
            app,
            host="127.0.0.1",
            port=0,
            http=http
            or bounded_head(
                bytes_max=128 * 1024, lines_max=100, timeout_s=WAIT_S, stall_s=lambda: WAIT_S
            ),
            lifespan="off",
            log_config=None,
            access_log=False,
        )
    )
    running = asyncio.create_task(server.serve())
    async with asyncio.timeout(WAIT_S):
        await started.wait()
    try:
        yield int(server.servers[0].sockets[0].getsockname()[1])
    finally:
        server.should_exit = server.force_exit = True
        await running


@asynccontextmanager
async def _context(
    database_url: str, base_url: str, marks: Marks, changed: dict[str, Any]
) -> AsyncIterator[Context]:
    facts = {name[6:]: value for name, value in changed.items() if name.startswith("facts_")}
    limits = {name: value for name, value in changed.items() if not name.startswith("facts_")}
    clock = WallClock()
    database = open_database(database_url, PoolSettings())
    vault = Vault(bytes(range(32)), random_bytes=secrets.token_bytes)
    wallet = Wallet(seed=bytes(64), vault=vault, new_id=_new_id)
    ledger = LedgerExecutor(database, wallet=wallet, clock=clock, limits=_EXECUTOR)
    early_leaves_max = limits.get("early_leaves_max", 20)
    async with UpstreamPool(now_s=time.monotonic) as pool:
        ctx = Context(
            ledger=ledger,
            database=database,
            wallet=wallet,
            acceptance=acceptance_keys(wallet.seed, 0),
            receipt_key=receipt_key(wallet.seed),
            mints=MintClient(mint_urls=(), clock=clock),
            lnurl=LnurlClient(OutsideHttp()),
            upstream=pool,
            catalog=Catalog(
                [CHAT_MODEL, FLAT_MODEL],
                upstream=upstream_at(base_url),
                btc_usd=Decimal(60_000),
            ),
            clock=clock,
            monotonic_s=time.monotonic,
            new_id=_new_id,
            new_api_key=lambda: f"sk-{secrets.token_hex(32)}",
            owner="shop",
            live=live_of(replace(_default_limits(), **limits), replace(_FACTS, **facts)),
            tasks=TaskOwner(),
            holds=RunningHolds(),
            shelf=MintShelf(),
            early_leaves=EarlyLeaves(
                events_max=early_leaves_max, window_s=600, now_s=time.monotonic
            ),
            misses=Misses(events_max=60, window_s=60, now_s=time.monotonic),
            failpoint=marks,
            passwords=CHEAP,
        )
        serving_ledger = asyncio.create_task(ledger.run())
        try:
            yield ctx
        finally:
            await ctx.tasks.finish(timeout_s=WAIT_S)
            ledger.stop()
            await serving_ledger
            await database.close()


def upstream_at(base_url: str, *, id_: str = BUILT_IN, slug: str = "fake") -> UpstreamConfig:
    """An upstream on this machine, with the operator's key for it."""
    return UpstreamConfig(
        id=id_,
        slug=slug,
        base_url=base_url,
        api_key=Secret("sk-operator-0123456789"),
        allow_loopback_http=True,
    )


def _new_id(kind: str) -> str:
    return f"{kind}_{secrets.token_hex(16)}"


def _default_limits() -> Limits:
    """The settings' own defaults, as far as a setting of that name exists."""
    settings = Settings.model_fields
    known = {
        each.name: settings[each.name].default for each in fields(Limits) if each.name in settings
    }
    return Limits(**known, refund_ttl_s=settings["refund_ttl_seconds"].default)


# Retries that follow at once: a test that takes the database away need not wait for them.
_EXECUTOR: Final = ExecutorLimits(attempts_max=3, retry_wait_s=0.001)
_FACTS: Final = NodeFacts(
    name="Shop",
    description="",
    version="0",
    npub=None,
    http_url=None,
    onion_url=None,
    mints=(),
    allow_loopback_http=True,
    body_bytes_max=16 * 1024 * 1024,
)
