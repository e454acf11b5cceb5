"""A node, a customer and a real mint with the fault proxy between them, and the count of the money.

    async with open_stand(database_url, mint, seed=1) as stand:
        token = await stand.coin(16)        # the customer's; it names the proxy as its mint
        stand.proxy.inject("POST /v1/swap", Fault.STALL)
        …
        stand.proxy.heal()
        await stand.drain()
        assert (await stand.count()).lost_msat == 0

The customer's wallet talks to the mint past the proxy: it is the node's recovery that is proved.
"""

import contextlib
import secrets
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from sqlalchemy import text

from demo.mint import RealMint
from demo.wallet import Wallet
from routstr.ecash.keyset import fee
from routstr.ecash.token import BODY_BYTES_MAX, decode_token
from routstr.errors import RoutstrError
from routstr.flows.audit import audit
from routstr.flows.context import Context
from routstr.flows.resume import resume
from routstr.flows.withdraw import Wish, withdraw
from routstr.gateways.mint_limits import LaneLimits
from routstr.ledger.book import KeyRef
from routstr.ledger.reads import find_key
from tests.fakes.upstream import FakeUpstream
from tests.faults.proxy import FaultProxy
from tests.harness.clock import MovableClock
from tests.harness.till import open_context, pass_time

MSAT: Final = 1_000  # in a sat
FUNDS_SAT: Final = 2**16
SILENCE_S: Final = 0.2  # then a call that meets silence is cut, so that none waits long
DRAIN_MAX_S: Final = 60.0
STEP_S: Final = 1.0  # at first; each look is twice as far from the last one, up to
STEP_MAX_S: Final = 8.0
# Often, but else as a node has them: they close after failures and pause when limited. No call
# waits for such a pause, because the tests' clock stands still meanwhile.
LANES: Final = LaneLimits(rate_per_minute=600_000, burst=10_000, wait_s=0.5)
OPEN: Final = "SELECT state, last_code FROM mint_operation WHERE state NOT IN ('done', 'failed')"

ResultT = TypeVar("ResultT")


class StillOpen(Exception):
    """Something is not whole although all has been healed for a minute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """The same money by three counts: the mint's, the customer's wallet, the node's books."""

    outstanding_msat: int
    wallet_msat: int
    held_msat: int
    owed_msat: int

    @property
    def lost_msat(self) -> int:
        """What the mint owes to nobody; negative for coins that only one side believes in."""
        return self.outstanding_msat - self.wallet_msat - self.held_msat

    @property
    def surplus_msat(self) -> int:
        """What the node holds and owes to nobody."""
        return self.held_msat - self.owed_msat


@dataclass(slots=True, kw_only=True)
class Stand:
    """One node and one customer.

    `base_msat` is what others hold of the mint's money, `counted` the last count.
    """

    ctx: Context
    clock: MovableClock
    mint: RealMint
    proxy: FaultProxy
    wallet: Wallet
    base_msat: int = 0
    problems: list[str] = field(default_factory=list)
    counted: Count | None = None

    # ── the customer ──────────────────────────────────────────────────────────────────────────

    async def coin(self, amount_sat: int, *, lock: str | None = None) -> str:
        """A token of as few coins as can be; with `lock`, for the owner of that key alone."""
        proofs = await self.wallet._change(amount_sat, lock)
        return self.wallet._token(proofs)

    def net_msat(self, token: str) -> int:
        """What a token is worth to whoever redeems it (NUT-02)."""
        proofs = decode_token(token, bytes_max=BODY_BYTES_MAX).proofs
        face_sat = sum(proof.amount for proof in proofs)
        return (face_sat - fee([self.mint.fee_ppk] * len(proofs))) * MSAT

    async def claim(self, token: str | None) -> int:
        """Redeem a withdrawn token at the mint; its face value in msat."""
        assert token is not None
        await self.wallet.receive(token)
        return decode_token(token, bytes_max=BODY_BYTES_MAX).amount * MSAT

    async def empty(self, key_id: str) -> None:
        """Take out and redeem all that a key has."""
        view = await self.repeated(lambda: withdraw(self.ctx, KeyRef(id=key_id), Wish()))
        await self.claim(view.token)

    async def balance_msat(self, key_id: str) -> int:
        async with self.ctx.database.reading() as connection:
            view = await find_key(connection, KeyRef(id=key_id))
        assert view is not None
        return view.balance_msat

    async def repeated(self, request: Callable[[], Awaitable[ResultT]]) -> ResultT:
        """The answer, asked for again while the node says that this helps. Raises StillOpen."""
        until_s = self.clock.monotonic() + DRAIN_MAX_S
        while True:
            try:
                return await request()
            except RoutstrError as error:
                wait_s = error.retry_after_s
                if wait_s is None or self.clock.monotonic() + wait_s > until_s:
                    raise StillOpen(f"the repeat was answered with {error.code}") from error
            await self.later(wait_s)
            await resume(self.ctx)

    def paid(self, bolt11: str) -> int:
        """How often the mint has paid that invoice."""
        return paid_by(self.mint, bolt11)

    # ── the node ──────────────────────────────────────────────────────────────────────────────

    async def later(self, seconds: float) -> None:
        """Time passes."""
        await pass_time(self.ctx, self.clock, seconds)

    async def drain(self) -> None:
        """Let the node end alone what is open. Raises StillOpen after a minute."""
        until_s, step_s = self.clock.monotonic() + DRAIN_MAX_S, STEP_S
        await self.proxy.quiet()
        while still_open := await self.rows(OPEN):
            if self.clock.monotonic() > until_s:
                raise StillOpen(f"operations stay open: {still_open}")
            await self.later(step_s)
            await resume(self.ctx)
            step_s = min(2 * step_s, STEP_MAX_S)

    async def worked_until(
        self,
        is_so: Callable[[], Awaitable[bool]],
        job: Callable[[], Awaitable[object]],
        *,
        every_s: float,
    ) -> None:
        """Let a job of the node run as often as it does, until that is so. Raises StillOpen."""
        until_s = self.clock.monotonic() + DRAIN_MAX_S
        while not await is_so():
            if self.clock.monotonic() > until_s:
                raise StillOpen("a job of the node does not end its work")
            await self.later(every_s)
            await resume(self.ctx)
            await job()

    # ── the books ─────────────────────────────────────────────────────────────────────────────

    async def value(self, sql: str, **values: object) -> Any:
        """One value of a query."""
        async with self.ctx.database.reading() as connection:
            return (await connection.execute(text(sql), values)).scalar()

    async def rows(self, sql: str) -> list[tuple[object, ...]]:
        """The rows of a query."""
        async with self.ctx.database.reading() as connection:
            return [tuple(row) for row in await connection.execute(text(sql))]

    async def count(self) -> Count:
        """Count the money, and note as problems what an audit, full and deep, finds."""
        report = await audit(self.ctx, full=True, deep=True)
        if not report.ok or any(each.silent for each in report.mints):
            broken = [each.name for each in report.invariants if each.breaches]
            self.problems.append(f"the audit finds {broken} {report.mints}")
        totals = report.totals
        self.counted = Count(
            outstanding_msat=outstanding_sat(self.mint) * MSAT - self.base_msat,
            wallet_msat=self.wallet.balance * MSAT,
            held_msat=totals.held_msat,
            owed_msat=totals.balances_msat + totals.pending_withdrawals_msat,
        )
        return self.counted


@asynccontextmanager
async def open_stand(
    database_url: str, mint: RealMint, *, seed: int = 0, **options: Any
) -> AsyncIterator[Stand]:
    """On a migrated, empty database; nobody else may use the mint at the same time.

    `options` are those of `open_context`.
    """
    base_msat = outstanding_sat(mint) * MSAT
    clock = MovableClock()
    async with (
        FakeUpstream() as upstream,
        FaultProxy(mint.url, seed=seed, silence_s=SILENCE_S) as proxy,
        Wallet(mint.url, seed=secrets.token_bytes(64)) as wallet,
        open_context(
            database_url,
            [proxy.url],
            clock,
            lanes=LANES,
            seed=secrets.token_bytes(64),
            upstream_url=upstream.base_url,
            **{"keyset_refresh_s": 30, "operation_wait_s": 0.5, **options},
        ) as (ctx, _),
    ):
        await wallet.mint(FUNDS_SAT)
        wallet.mint_url = proxy.url  # in its tokens; its own calls go to the mint
        yield Stand(
            ctx=ctx, clock=clock, mint=mint, proxy=proxy, wallet=wallet, base_msat=base_msat
        )


def outstanding_sat(mint: RealMint) -> int:
    """What the mint signed and was not given back, by its own books."""
    return _asked(mint, "SELECT coalesce(sum(balance), 0) FROM balance")


def paid_by(mint: RealMint, bolt11: str) -> int:
    """How often a mint has paid that invoice, by its own books."""
    sql = "SELECT count(*) FROM melt_quotes WHERE request = ? AND state = 'PAID'"
    return _asked(mint, sql, bolt11)


def _asked(mint: RealMint, sql: str, *values: str) -> int:
    path = mint.directory / "mint" / "mint.sqlite3"
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as books:
        return int(books.execute(sql, values).fetchone()[0])
