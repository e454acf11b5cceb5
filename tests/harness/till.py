"""A node's money roads on a real database and a model mint, without HTTP: one `Till` a process.

    async with open_mint() as mint, open_till(database_url, mint) as till:
        key = await till.create(mint.issue(21))
        await till.later(600)                         # ten minutes pass, on both engines
        assert await till.balance(key) == 21_000

At its end no task is left, the books are whole, and what the node holds at the mint is unspent.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields, replace
from decimal import Decimal
from typing import Any, Final

import pytest
from sqlalchemy import text

from routstr.config import Settings
from routstr.ecash.acceptance import acceptance_keys
from routstr.ecash.bdhke import y_of
from routstr.ecash.receipt_key import receipt_key
from routstr.ecash.token import BODY_BYTES_MAX, decode_token
from routstr.flows.audit import audit
from routstr.flows.catalog import Catalog
from routstr.flows.context import Context, Failpoint, MintShelf
from routstr.flows.keys import Created, Terms, create_key, topup
from routstr.flows.limits import Limits, NodeFacts
from routstr.flows.rations import EarlyLeaves, Misses
from routstr.flows.resume import resume
from routstr.flows.tasks import RunningHolds, TaskOwner
from routstr.flows.withdraw import Wish, WithdrawalView, withdraw
from routstr.gateways.addresses import OutsideHttp
from routstr.gateways.lnurl import LnurlClient
from routstr.gateways.mint import MintClient
from routstr.gateways.mint_limits import LaneLimits
from routstr.gateways.pool import UpstreamPool
from routstr.ledger.book import KeyRef
from routstr.ledger.commands import Wallet
from routstr.ledger.engine import PoolSettings, open_database
from routstr.ledger.executor import ExecutorLimits, LedgerExecutor
from routstr.ledger.reads import find_key
from routstr.ledger.tables import metadata
from routstr.ledger.vault import Vault
from tests.fakes.mint import FakeMint
from tests.harness.clock import MovableClock
from tests.harness.live import live_of
from tests.harness.shop import CHAT_MODEL, CHEAP, Marks, upstream_at

WAIT_S: Final = 10.0
MASTER: Final = bytes(range(32))
SEED: Final = bytes(64)
NO_UPSTREAM: Final = "http://127.0.0.1:9/v1"  # hardly anybody buys anything here
UNSPARING: Final = LaneLimits(rate_per_minute=60_000, burst=1_000, failures_max=1_000)

# For a rule that no database has a part in, one engine is enough.
ON_SQLITE: Final = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

# Every stored time that something waits for, by table.
WAITED_FOR: Final = {
    "mint_operation": (
        "created_at",
        "lease_until",
        "next_attempt_at",
        "watch_until",
        "ended_at",
    ),
    "reservation": ("deadline",),
    "deposit": ("created_at", "credited_at"),
    "apikey": ("created_at", "first_used_at", "last_used_at", "expires_at"),
    "withdrawal": ("completed_at",),
    "lightning_invoice": ("created_at", "expires_at", "next_poll_at", "paid_at"),
    "job_run": ("lease_until", "next_run_at"),
    "job_history": ("started_at", "finished_at"),
}


@dataclass(slots=True, kw_only=True)
class Till:
    """One process's worth of node; `seed` and master key are the database's."""

    ctx: Context
    mint: FakeMint
    clock: MovableClock
    marks: Marks
    ledger: "asyncio.Task[None]"

    # ── what users do ─────────────────────────────────────────────────────────────────────────

    async def create(self, token: str, *, repeat: str | None = None, **terms: Any) -> Created:
        return await create_key(self.ctx, token, Terms(**terms), idempotency_key=repeat)

    async def topup(self, key: Created, token: str, *, repeat: str | None = None) -> int:
        """What the key may spend after it."""
        caller = KeyRef(id=key.key_id)
        received = await topup(self.ctx, caller, token, idempotency_key=repeat)
        return received.available_msat

    async def withdraw(self, key: Created, amount_sat: int | None = None) -> WithdrawalView:
        return await withdraw(self.ctx, KeyRef(id=key.key_id), Wish(amount_sat=amount_sat))

    async def balance(self, key: Created | str) -> int:
        key_id = key if isinstance(key, str) else key.key_id
        async with self.ctx.database.reading() as connection:
            view = await find_key(connection, KeyRef(id=key_id))
        assert view is not None
        return view.balance_msat

    # ── what happens to it ────────────────────────────────────────────────────────────────────

    async def later(self, seconds: float) -> None:
        """Time passes: the clock goes on, or PostgreSQL, which has its own, is put back."""
        await pass_time(self.ctx, self.clock, seconds)

    async def resume(self) -> int:
        """Drive what is due now, and what is due as soon as its back-off is over."""
        await self.later(60)
        return await resume(self.ctx)

    async def die(self) -> None:
        """Stop in the middle of everything, as a killed process does."""
        dying = [*self.ctx.tasks._tasks, self.ledger]
        for task in dying:
            task.cancel()
        await asyncio.wait(dying)

    # ── what the books say ────────────────────────────────────────────────────────────────────

    async def value(self, sql: str, **values: object) -> Any:
        """One value of a query."""
        async with self.ctx.database.reading() as connection:
            return (await connection.execute(text(sql), values)).scalar()

    async def operations(self) -> list[tuple[str, str | None]]:
        """(state, last code) of every mint operation, oldest first."""
        sql = "SELECT state, last_code FROM mint_operation ORDER BY created_at, id"
        async with self.ctx.database.reading() as connection:
            return [(row.state, row.last_code) for row in await connection.execute(text(sql))]

    async def dump(self) -> dict[str, list[str]]:
        """Every row of every table, as text."""
        found = {}
        async with self.ctx.database.reading() as connection:
            for table in metadata.sorted_tables:
                rows = await connection.execute(table.select())
                found[table.name] = sorted(map(str, rows.all()))
        return found

    async def held(self, unit: str = "sat") -> int:
        """What the node's own proofs are worth, in the unit."""
        total = await self.value(
            "SELECT coalesce(sum(p.amount), 0) FROM proof p JOIN keyset k ON k.id = p.keyset_id"
            " WHERE p.state IN ('unspent', 'reserved') AND k.unit = :unit",
            unit=unit,
        )
        return int(total)

    async def assert_sound(self) -> None:
        """Every invariant holds, and the mint calls none of the node's coins spent."""
        report = await audit(self.ctx, full=True, deep=False)
        assert report.ok, [each for each in report.invariants if each.breaches]
        sql = text("SELECT y FROM proof WHERE state = 'unspent'")
        async with self.ctx.database.reading() as connection:
            ys = list((await connection.execute(sql)).scalars())
        assert "SPENT" not in self.mint.state_of(ys).values()


@asynccontextmanager
async def open_till(
    database_url: str,
    mint: FakeMint,
    *,
    more_mints: Sequence[str] = (),
    owner: str = "one",
    is_sound_at_end: bool = True,
    **limits: Any,
) -> AsyncIterator[Till]:
    """`limits` are fields of `Limits` other than the settings' defaults."""
    clock, marks = MovableClock(), Marks()
    urls = (mint.url, *more_mints)
    async with open_context(database_url, urls, clock, owner=owner, failpoint=marks, **limits) as (
        ctx,
        ledger,
    ):
        till = Till(ctx=ctx, mint=mint, clock=clock, marks=marks, ledger=ledger)
        yield till
        await ctx.tasks.finish(WAIT_S)
        if is_sound_at_end:
            await till.assert_sound()


@asynccontextmanager
async def open_context(
    database_url: str,
    mint_urls: Sequence[str],
    clock: MovableClock,
    *,
    owner: str = "one",
    failpoint: Failpoint | None = None,
    lanes: LaneLimits | None = None,
    seed: bytes = SEED,
    outside: OutsideHttp | None = None,
    upstream_url: str = NO_UPSTREAM,
    **limits: Any,
) -> "AsyncIterator[tuple[Context, asyncio.Task[None]]]":
    """A context at work on any mints, and its ledger; without `lanes` mints are never spared.

    Two databases that deal with one mint need a `seed` each. `outside` is the way to Lightning
    addresses; without one there are none.
    """
    lanes = lanes or UNSPARING
    async with _parts(database_url, mint_urls, clock, lanes, seed, upstream_url) as parts:
        ctx = Context(
            **parts,
            lnurl=LnurlClient(outside or OutsideHttp()),
            owner=owner,
            live=live_of(
                replace(default_limits(), **limits), replace(FACTS, mints=tuple(mint_urls))
            ),
            failpoint=failpoint or Marks(),
            passwords=CHEAP,
        )
        ledger = asyncio.create_task(ctx.ledger.run())
        try:
            yield ctx, ledger
        finally:
            await ctx.tasks.finish(WAIT_S)
            ctx.ledger.stop()
            await asyncio.wait([ledger])


async def pass_time(ctx: Context, clock: MovableClock, seconds: float) -> None:
    """The clock goes on, or PostgreSQL, which has its own, is put back."""
    if ctx.database.dialect == "sqlite":
        clock.advance(seconds)
        return
    clock.advance(seconds, wall=False)
    async with ctx.database.writer.begin() as connection:
        for table, columns in WAITED_FOR.items():
            moved = ", ".join(
                f"{each} = {each} - make_interval(secs => {seconds})" for each in columns
            )
            statement = f"UPDATE {table} SET {moved}"
            await connection.execute(text(statement))


@asynccontextmanager
async def _parts(
    database_url: str,
    mint_urls: Sequence[str],
    clock: MovableClock,
    lanes: LaneLimits,
    seed: bytes,
    upstream_url: str,
) -> AsyncIterator[dict[str, Any]]:
    """What the composition root makes, by its name in the context."""
    database = open_database(database_url, PoolSettings(size=4, overflow=4))
    vault = Vault(MASTER, random_bytes=secrets.token_bytes)
    wallet = Wallet(seed=seed, vault=vault, new_id=_new_id)
    async with (
        MintClient(
            mint_urls=mint_urls,
            clock=clock,
            limits=lanes,
            allow_loopback_http=True,
            total_s=WAIT_S,
        ) as mints,
        UpstreamPool(now_s=clock.monotonic) as upstream,
    ):
        yield {
            "acceptance": acceptance_keys(seed, 0),
            "receipt_key": receipt_key(seed),
            "ledger": LedgerExecutor(database, wallet=wallet, clock=clock, limits=ExecutorLimits()),
            "database": database,
            "wallet": wallet,
            "mints": mints,
            "upstream": upstream,
            "catalog": Catalog(
                [CHAT_MODEL], upstream=upstream_at(upstream_url), btc_usd=Decimal(60_000)
            ),
            "clock": clock,
            "monotonic_s": clock.monotonic,
            "new_id": _new_id,
            "new_api_key": lambda: f"sk-{secrets.token_hex(32)}",
            "tasks": TaskOwner(),
            "holds": RunningHolds(),
            "shelf": MintShelf(),
            "early_leaves": EarlyLeaves(events_max=20, window_s=600, now_s=clock.monotonic),
            "misses": Misses(events_max=60, window_s=60, now_s=clock.monotonic),
        }
    await database.close()


def ys_of(token: str) -> list[str]:
    """The names of a token's proofs."""
    proofs = decode_token(token, bytes_max=BODY_BYTES_MAX).proofs
    return [y_of(proof.secret) for proof in proofs]


def worth(token: str | None) -> int:
    """A token's amount in its unit."""
    assert token is not None
    return decode_token(token, bytes_max=BODY_BYTES_MAX).amount


def _new_id(kind: str) -> str:
    return f"{kind}_{secrets.token_hex(16)}"


def default_limits() -> Limits:
    """The settings' own defaults, as far as a setting of that name exists."""
    settings = Settings.model_fields
    known = {
        each.name: settings[each.name].default for each in fields(Limits) if each.name in settings
    }
    return Limits(**known, refund_ttl_s=settings["refund_ttl_seconds"].default)


FACTS: Final = NodeFacts(
    name="Till",
    description="",
    version="0",
    npub=None,
    http_url=None,
    onion_url=None,
    mints=(),
    allow_loopback_http=True,
    body_bytes_max=16 * 1024 * 1024,
)
