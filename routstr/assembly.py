"""Every part of a node, made and connected from its settings; nothing of it runs yet."""

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import fields
from datetime import UTC, datetime
from functools import cache
from typing import Final

from pydantic import SecretStr

from routstr import __version__
from routstr.config import Settings, load_models, with_changes
from routstr.core.admission import Admission
from routstr.ecash.acceptance import acceptance_keys
from routstr.ecash.receipt_key import receipt_key
from routstr.ecash.secret import new_mnemonic, seed_from_mnemonic
from routstr.errors import ConfigError
from routstr.flows.catalog import Catalog
from routstr.flows.context import Context, Failpoint, MintShelf
from routstr.flows.house.settings import read_settings
from routstr.flows.limits import Limits, NodeFacts
from routstr.flows.live import Changed, InForce, Live, Rules, Switches
from routstr.flows.rations import EarlyLeaves, Misses
from routstr.flows.tasks import RunningHolds, TaskOwner
from routstr.gateways.addresses import OutsideHttp
from routstr.gateways.listing_http import ModelLists
from routstr.gateways.lnurl import LnurlClient
from routstr.gateways.mint import MintClient
from routstr.gateways.mint_limits import LaneLimits
from routstr.gateways.pool import UpstreamPool, client_of
from routstr.gateways.rates import RateSources
from routstr.gateways.traces import Traces
from routstr.gateways.upstream_config import BUILT_IN, UpstreamConfig
from routstr.ledger.backups import BackupStore
from routstr.ledger.commands import Wallet
from routstr.ledger.dump import without_password
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
from routstr.ledger.migrate import migrate
from routstr.ledger.notices import Notices
from routstr.ledger.seed import acceptance_index, wallet_mnemonic
from routstr.ledger.target import check_filled
from routstr.ledger.vault import Vault
from routstr.log import Secret
from routstr.web.descriptors import under_way_max

KEY_FILE: Final = "secret.key"
BACKUPS: Final = "backups"
API_KEY_BYTES: Final = 32
MNEMONIC_BYTES: Final = 16
ID_BYTES: Final = 16
IDS_PER_BLOCK: Final = 64
KINDS_IN_ORDER: Final = frozenset({"req", "key", "dep", "op"})
TAIL_BYTES: Final = 10  # random ones, behind 6 of the time
NS_PER_MS: Final = 1_000_000
MISSES_MAX: Final = 60  # of all clients together: an honest one hardly ever misses
MISSES_WINDOW_S: Final = 60.0
MASKED: Final = "[REDACTED]"
# URLs with a password before the host, or in a query, are not told.
MAY_HOLD_SECRETS: Final = ("database_url", "otlp_endpoint", "upstream_base_url")


class Ids:
    """Fresh ids: a telling prefix and 32 hex digits, drawn in blocks for speed.

    Those of rows that requests write begin with the time, so that every index of them grows at its
    end, however many there are. All others are 128 random bits: an invoice's is a secret.
    """

    def __init__(self, now_ns: Callable[[], int] = time.time_ns) -> None:
        """No block yet; `now_ns` counts from 1970, and may go back."""
        self._now_ns = now_ns
        self._block = b""

    def new(self, kind: str) -> str:
        """`kind` followed by 32 hex digits; 12 of them are the time in ms if rows go by it."""
        if len(self._block) < ID_BYTES:
            self._block = secrets.token_bytes(ID_BYTES * IDS_PER_BLOCK)
        if kind in KINDS_IN_ORDER:
            drawn, self._block = self._block[:TAIL_BYTES], self._block[TAIL_BYTES:]
            return f"{kind}_{self._now_ns() // NS_PER_MS:012x}{drawn.hex()}"
        drawn, self._block = self._block[:ID_BYTES], self._block[ID_BYTES:]
        return f"{kind}_{drawn.hex()}"


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
        raise ConfigError(
            "DATABASE_URL: there is no node's database there yet:"
            " `routstr upstreams add` or `routstr serve` makes one"
        )
    vault = Vault(master_key(settings, may_write=may_write), random_bytes=secrets.token_bytes)
    await check_reachable(database)
    await check_durability(database)
    await check_filled(database)
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
    is_restoring: bool = False,
) -> Context:
    """Every part, made and connected, till the stack ends; the ledger is not running yet.

    What the operator changed while a node ran is in force, but for a restore: that goes by the
    settings it is given, because every mint has to be asked, whatever a copy's list says.
    """
    clock = WallClock()
    catalog = _catalog(settings, clock)
    database, ledger, wallet = await open_ledger(settings, ids, stack, may_write=may_write)
    mints = _mint_client(settings, clock)
    await stack.enter_async_context(mints)
    built_in = _built_in(settings)
    if built_in.base_url:
        client_of(built_in)  # one that cannot be used is told now, not to the first client
    upstream = await stack.enter_async_context(UpstreamPool(now_s=clock.monotonic))
    outside = await stack.enter_async_context(OutsideHttp())
    ctx = Context(
        ledger=ledger,
        database=database,
        wallet=wallet,
        acceptance=acceptance_keys(wallet.seed, await acceptance_index(database)),
        receipt_key=receipt_key(wallet.seed),
        mints=mints,
        lnurl=LnurlClient(outside),
        upstream=upstream,
        catalog=catalog,
        clock=clock,
        monotonic_s=clock.monotonic,
        new_id=ids.new,
        new_api_key=lambda: f"sk-{secrets.token_hex(API_KEY_BYTES)}",
        owner=ids.new("node"),
        live=Live(in_force(settings), rules_of(settings)),
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
        admission=Admission(delay_s=settings.overload_delay_s, under_way_max=under_way_max()),
        rates=RateSources(outside),
        traces=_traces(settings, stack),
        lists=ModelLists(),
        backups=backup_store(settings, master_key(settings, may_write=False)),
        notices=Notices(database.writer.url) if database.dialect == "postgresql" else None,
    )
    if not is_restoring:
        await read_settings(ctx)
    return ctx


def _traces(settings: Settings, stack: AsyncExitStack) -> Traces | None:
    """Where requests are told to, if anywhere. Raises ConfigError without the extra `otel`."""
    if not settings.otlp_endpoint:
        return None
    try:
        from routstr.gateways.otlp import open_otlp  # noqa: PLC0415 - of an extra that few install
    except ImportError as error:
        raise ConfigError("OTLP_ENDPOINT: traces need `pip install routstr[otel]`") from error
    headers = "" if settings.otlp_headers is None else settings.otlp_headers.get_secret_value()
    traces = open_otlp(
        settings.otlp_endpoint, headers, service_name=settings.name, version=__version__
    )
    stack.push_async_callback(asyncio.to_thread, traces.close)
    return traces


def _mint_client(settings: Settings, clock: WallClock) -> MintClient:
    def share(whole: int) -> int:  # a mint sees all workers as one node
        return max(1, whole // settings.workers)

    return MintClient(
        mint_urls=settings.cashu_mints,
        clock=clock,
        limits=LaneLimits(
            calls_max=share(settings.mint_calls_max),
            rate_per_minute=share(settings.mint_calls_per_minute),
            burst=share(settings.mint_calls_burst),
        ),
        allow_loopback_http=settings.allow_loopback_http,
        connect_s=settings.mint_connect_timeout_s,
        total_s=settings.mint_total_timeout_s,
        answer_bytes_max=settings.mint_answer_bytes_max,
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


def backup_store(settings: Settings, master: bytes) -> BackupStore:
    """The backups of the node's database, under that master key."""
    passphrase = settings.backup_passphrase
    return BackupStore(
        directory=settings.backup_dir or settings.data_dir / BACKUPS,
        keep=settings.backup_keep,
        database_url=settings.database_url,
        programs=settings.pg_bin_dir,
        master=master,
        passphrase=None if passphrase is None else passphrase.get_secret_value(),
        settings=_shown(settings),
        version=__version__,
        random_bytes=secrets.token_bytes,
    )


def _shown(settings: Settings) -> dict[str, object]:
    """The settings in force as JSON takes them, without secrets."""
    secret = {name for name, value in settings if isinstance(value, SecretStr)}
    shown = settings.model_dump(mode="json", exclude=secret)
    return shown | {"database_url": without_password(settings.database_url)}


def _pool(settings: Settings) -> PoolSettings:
    return PoolSettings(
        size=settings.db_pool_size,
        overflow=settings.db_pool_overflow,
        timeout_s=settings.db_pool_timeout_s,
        recycle_s=settings.db_pool_recycle_s,
        pre_ping=settings.db_pool_pre_ping,
    )


def _catalog(settings: Settings, clock: WallClock) -> Catalog:
    """What the settings sell, until the rest is read from the database. Raises ConfigError."""
    return Catalog(
        load_models(settings) if settings.models_file else (),
        upstream=_built_in(settings) if settings.upstream_base_url else None,
        btc_usd=settings.btc_usd_price,
        now=clock.now,
    )


def _built_in(settings: Settings) -> UpstreamConfig:
    """The upstream that the settings name."""
    key = settings.upstream_api_key
    return UpstreamConfig(
        id=BUILT_IN,
        slug=BUILT_IN,
        base_url=settings.upstream_base_url,
        api_key=Secret("" if key is None else key.get_secret_value()),
        allow_loopback_http=settings.allow_loopback_http,
    )


def in_force(settings: Settings) -> InForce:
    """What those settings mean for flows."""
    switches = {each.name: getattr(settings, each.name) for each in fields(Switches)}
    return InForce(limits=_limits(settings), facts=_facts(settings), switches=Switches(**switches))


def rules_of(settings: Settings) -> Rules:
    """What may be told of the settings of the start, and what follows from changing some."""
    told = settings.model_dump(mode="json")
    secrets_ = {name for name in told if isinstance(getattr(settings, name), SecretStr)}
    told |= dict.fromkeys(secrets_, MASKED)
    for name in MAY_HOLD_SECRETS:
        if "@" in told[name] or "?" in told[name]:
            told[name] = MASKED

    def change(changes: Mapping[str, object]) -> Changed:
        changed = with_changes(settings, changes)
        said = changed.model_dump(mode="json", include=set(changes))
        return Changed(in_force=in_force(changed), values=said)

    return Rules(
        told=told, given=frozenset(settings.model_fields_set), bounds=_bounds(), change=change
    )


@cache
def _bounds() -> Mapping[str, Mapping[str, object]]:
    """What each setting may be, as a JSON schema."""
    properties: Mapping[str, Mapping[str, object]] = Settings.model_json_schema(by_alias=False)[
        "properties"
    ]
    return properties


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
    )
