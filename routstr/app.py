"""The composition root: every part is made here, once, and given to those who need it.

Start: settings checked, data directory locked, schema migrated, secrets opened, ledger running,
orphans of a dead process ended, then the doors open. Stop: doors closed, running requests given
`shutdown_grace_s`, then ended and settled, and the ledger drained before anything is closed.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import fields
from datetime import UTC, datetime
from typing import Final

import structlog
from fastapi import FastAPI

from routstr import __version__
from routstr.config import Settings, check_for_serving, load_models
from routstr.ecash.acceptance import acceptance_keys
from routstr.ecash.secret import new_mnemonic, seed_from_mnemonic
from routstr.errors import ConfigError
from routstr.flows.context import (
    Catalog,
    Context,
    EarlyLeaves,
    Failpoint,
    Limits,
    MintShelf,
    Misses,
    NodeFacts,
    RunningHolds,
    TaskOwner,
)
from routstr.flows.expire import expire
from routstr.gateways.addresses import OutsideHttp
from routstr.gateways.lnurl import LnurlClient
from routstr.gateways.mint import MintClient
from routstr.gateways.mint_limits import LaneLimits
from routstr.gateways.upstream import UpstreamClient
from routstr.jobs.runner import JobRunner
from routstr.jobs.schedule import Periods, jobs
from routstr.ledger.commands import Wallet
from routstr.ledger.engine import (
    Database,
    PoolSettings,
    check_durability,
    check_reachable,
    has_schema,
    lock_directory,
    open_database,
    sqlite_directories,
)
from routstr.ledger.executor import ExecutorLimits, LedgerExecutor
from routstr.ledger.filesystem import MOUNTS, network_kind
from routstr.ledger.keyfile import KEY_BYTES, key_from_file, make_key_file
from routstr.ledger.leases import DropLeases
from routstr.ledger.migrate import migrate
from routstr.ledger.restores import check_restored
from routstr.ledger.seed import acceptance_index, wallet_mnemonic
from routstr.ledger.vault import Vault
from routstr.log import Secret
from routstr.web.balance import router as balance_router
from routstr.web.catalog import router as catalog_router
from routstr.web.change import router as change_router
from routstr.web.errors import install_errors
from routstr.web.lightning import router as lightning_router
from routstr.web.middleware import install_middleware
from routstr.web.proxy import routes as proxy_routes
from routstr.web.quote import router as quote_router
from routstr.web.quote import routes as quote_routes

log = structlog.get_logger()

KEY_FILE: Final = "secret.key"
API_KEY_BYTES: Final = 32
MNEMONIC_BYTES: Final = 16
ID_BYTES: Final = 16
IDS_PER_BLOCK: Final = 64
MISSES_MAX: Final = 60  # of all clients together: an honest one hardly ever misses
MISSES_WINDOW_S: Final = 60.0
STOP_POLL_S: Final = 0.05
SETTLE_S: Final = 5.0  # for the requests that were told to end
JOB_END_S: Final = 1.0  # for the jobs, all of which a later start does again


class Ids:
    """Fresh ids: a telling prefix and 128 random bits, drawn in blocks for speed."""

    def __init__(self) -> None:
        """No block yet."""
        self._block = b""

    def new(self, kind: str) -> str:
        """`kind` followed by 32 hex digits."""
        if not self._block:
            self._block = secrets.token_bytes(ID_BYTES * IDS_PER_BLOCK)
        taken, self._block = self._block[:ID_BYTES], self._block[ID_BYTES:]
        return f"{kind}_{taken.hex()}"


class WallClock:
    """The one real clock."""

    def now(self) -> datetime:
        """The time, aware, in UTC."""
        return datetime.now(UTC)  # noqa: TID251 - this is the one real clock

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait that long."""
        await asyncio.sleep(seconds)  # noqa: TID251 - this is the one real clock


def create_app(settings: Settings, failpoint: Failpoint | None = None) -> FastAPI:
    """The node as an ASGI app; nothing is opened until its lifespan starts.

    `failpoint` is called at named points around every await on money; only tests arm it. Raises
    ConfigError for settings a node must not serve with.
    """
    checked = check_for_serving(settings)
    ids = Ids()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with running(checked, ids, failpoint or _nothing) as ctx:
            app.state.ctx = ctx
            yield

    app = FastAPI(
        title=checked.name,
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    install_errors(app)
    install_middleware(app, checked)
    app.include_router(catalog_router)
    app.include_router(quote_router)
    for prefix in ("/v1/balance", "/v1/wallet"):
        app.include_router(balance_router, prefix=prefix)
        app.include_router(change_router, prefix=prefix)
    for prefix in ("", "/v1/balance", "/v1/wallet", "/v2"):
        app.include_router(lightning_router, prefix=f"{prefix}/lightning")
    app.router.routes.extend([*quote_routes(), *proxy_routes()])
    return app


def _nothing(_: str) -> None:
    """No failpoint is armed."""


@asynccontextmanager
async def observing(settings: Settings) -> AsyncIterator[Context]:
    """A context that only reads, beside a running node or on a stopped one's database."""
    async with AsyncExitStack() as stack:
        yield await assemble(settings, Ids(), _nothing, stack, may_write=False)


@asynccontextmanager
async def running(settings: Settings, ids: Ids, failpoint: Failpoint) -> AsyncIterator[Context]:
    """A node at work, without its HTTP doors. Raises ConfigError when it must not start."""
    async with AsyncExitStack() as stack:
        ctx = await assemble(settings, ids, failpoint, stack)
        async with ctx.database.reading() as connection:
            await check_restored(connection)
        loop = asyncio.get_running_loop()
        ledger = loop.create_task(ctx.ledger.run(), name="ledger")
        if ctx.database.dialect == "sqlite":
            await ctx.ledger.submit(DropLeases())
            await expire(ctx, orphaned=True)
        runner = JobRunner(ctx, jobs(_periods(settings)))
        working = loop.create_task(runner.run(), name="jobs")
        ctx.tasks.start(runner.begin(), name="jobs at start")
        log.info("node_started", version=__version__, engine=ctx.database.dialect)
        try:
            yield ctx
        finally:
            runner.stop()
            await end_requests(ctx)
            await ctx.tasks.finish(SETTLE_S)
            await _finish(working, JOB_END_S)
            ctx.ledger.stop()
            await ledger
            log.info("node_stopped")


async def _finish(task: asyncio.Task[None], timeout_s: float) -> None:
    """Wait for it, then cancel it: a job may be in the middle of a mint's silence."""
    await asyncio.wait([task], timeout=timeout_s)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def end_requests(ctx: Context) -> None:
    """Let running requests end by themselves for the grace time, then end them, settled.

    What then still waits for a mint is left for the next start.
    """
    deadline_s = ctx.monotonic_s() + ctx.limits.shutdown_grace_s
    while (len(ctx.holds) or ctx.tasks.resumable) and ctx.monotonic_s() < deadline_s:
        await ctx.clock.sleep(STOP_POLL_S)
    ctx.holds.stop()
    ctx.tasks.leave_resumable()


async def open_ledger(
    settings: Settings, ids: Ids, stack: AsyncExitStack, *, may_write: bool = True
) -> tuple[Database, LedgerExecutor, Wallet]:
    """The database, its executor (not running yet) and the wallet's keys.

    With `may_write` the directories are locked and the schema migrated first. Raises ConfigError.
    """
    database = open_database(settings.database_url, _pool(settings))
    stack.push_async_callback(database.close)
    if may_write:
        _own_directories(settings, stack)
    elif not await has_schema(database):
        raise ConfigError("DATABASE_URL: there is no node's database there yet")
    vault = Vault(master_key(settings, may_write=may_write), random_bytes=secrets.token_bytes)
    await check_reachable(database)
    await check_durability(database)
    if may_write:
        await migrate(settings.database_url)
    clock = WallClock()
    words = await wallet_mnemonic(
        database,
        vault,
        new_mnemonic=lambda: new_mnemonic(secrets.token_bytes(MNEMONIC_BYTES)),
        now=clock.now(),
    )
    wallet = Wallet(seed=seed_from_mnemonic(words), vault=vault, new_id=ids.new)
    executor = LedgerExecutor(
        database,
        wallet=wallet,
        clock=clock,
        limits=ExecutorLimits(
            queue_max=settings.ledger_queue_max,
            batch_max=settings.ledger_batch_max,
            held_msat_max=settings.exposure_msat_max,
        ),
    )
    return database, executor, wallet


def _own_directories(settings: Settings, stack: AsyncExitStack) -> None:
    """Make the data directory, and on SQLite lock it and the database's, till the stack ends."""
    try:
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        directories = sqlite_directories(settings.database_url, settings.data_dir)
        mounts = MOUNTS.read_text() if MOUNTS.exists() else ""
        for directory in directories:
            kind = network_kind(directory, mounts)
            if kind is not None:
                raise ConfigError(f"DATA_DIR: {directory} is on {kind}; SQLite needs a local disk")
            stack.callback(lock_directory(directory).release)
    except OSError as error:
        raise ConfigError(
            f"DATA_DIR: {settings.data_dir} cannot be used: {error.strerror}"
        ) from error


async def assemble(
    settings: Settings,
    ids: Ids,
    failpoint: Failpoint,
    stack: AsyncExitStack,
    *,
    may_write: bool = True,
) -> Context:
    """Every part, made and connected, till the stack ends; the ledger is not running yet."""
    catalog = Catalog(load_models(settings) if settings.models_file else ())
    database, ledger, wallet = await open_ledger(settings, ids, stack, may_write=may_write)
    clock = WallClock()
    mints = MintClient(
        mint_urls=settings.cashu_mints,
        clock=clock,
        limits=LaneLimits(
            calls_max=settings.mint_calls_max,
            rate_per_minute=settings.mint_calls_per_minute,
            burst=settings.mint_calls_burst,
        ),
        allow_loopback_http=settings.allow_loopback_http,
        connect_s=settings.mint_connect_timeout_s,
        total_s=settings.mint_total_timeout_s,
        answer_bytes_max=settings.mint_answer_bytes_max,
    )
    await stack.enter_async_context(mints)
    upstream_key = settings.upstream_api_key
    upstream = UpstreamClient(
        base_url=settings.upstream_base_url,
        api_key=Secret("" if upstream_key is None else upstream_key.get_secret_value()),
        allow_loopback_http=settings.allow_loopback_http,
    )
    await stack.enter_async_context(upstream)
    return Context(
        ledger=ledger,
        database=database,
        wallet=wallet,
        acceptance=acceptance_keys(wallet.seed, await acceptance_index(database)),
        mints=mints,
        lnurl=LnurlClient(await stack.enter_async_context(OutsideHttp())),
        upstream=upstream,
        catalog=catalog,
        clock=clock,
        monotonic_s=clock.monotonic,
        new_id=ids.new,
        new_api_key=lambda: f"sk-{secrets.token_hex(API_KEY_BYTES)}",
        owner=ids.new("node"),
        limits=_limits(settings),
        facts=_facts(settings),
        tasks=TaskOwner(),
        holds=RunningHolds(),
        shelf=MintShelf(),
        early_leaves=EarlyLeaves(
            events_max=settings.early_leaves_max,
            window_s=settings.early_leaves_window_s,
            now_s=clock.monotonic,
        ),
        misses=Misses(events_max=MISSES_MAX, window_s=MISSES_WINDOW_S, now_s=clock.monotonic),
        failpoint=failpoint,
    )


def master_key(settings: Settings, *, may_write: bool) -> bytes:
    """The master secret: SECRET_KEY, or a file of the data directory, made on the first start.

    Raises ConfigError for a secret that is too short and for a file that is missing or unsafe.
    """
    if settings.secret_key is not None:
        secret = settings.secret_key.get_secret_value().encode()
        if len(secret) < KEY_BYTES:
            raise ConfigError(f"SECRET_KEY: shorter than {KEY_BYTES} characters")
        return secret
    path = settings.data_dir / KEY_FILE
    if may_write and not path.exists():
        make_key_file(path, random_bytes=secrets.token_bytes)
    return key_from_file(path)


def _pool(settings: Settings) -> PoolSettings:
    return PoolSettings(
        size=settings.db_pool_size,
        overflow=settings.db_pool_overflow,
        timeout_s=settings.db_pool_timeout_s,
        recycle_s=settings.db_pool_recycle_s,
        pre_ping=settings.db_pool_pre_ping,
    )


def _periods(settings: Settings) -> Periods:
    return Periods(
        expire_s=settings.expire_every_s,
        resume_s=settings.resume_every_s,
        audit_s=settings.audit_every_s,
        prune_s=settings.prune_every_s,
        renew_s=settings.hold_renew_s,
        redeem_s=settings.redeem_every_s,
        reconcile_s=settings.reconcile_every_s,
        invoices_s=settings.invoices_every_s,
        refill_s=settings.refill_every_s,
        payout_s=settings.payout_every_s,
    )


def _limits(settings: Settings) -> Limits:
    """Each limit is the setting of the same name."""
    names = {each.name for each in fields(Limits)} - {"refund_ttl_s"}
    return Limits(
        refund_ttl_s=settings.refund_ttl_seconds,
        **{name: getattr(settings, name) for name in names},
    )


def _facts(settings: Settings) -> NodeFacts:
    return NodeFacts(
        name=settings.name,
        description=settings.description,
        version=__version__,
        npub=settings.npub,
        http_url=settings.http_url,
        onion_url=settings.onion_url,
        mints=settings.cashu_mints,
        allow_loopback_http=settings.allow_loopback_http,
        body_bytes_max=settings.body_bytes_max,
        btc_usd_text=str(settings.btc_usd_price),
        upstream_name="upstream",
    )
