"""The clean-up jobs over books of millions of rows, while requests are paid for.

Every job that needs no mint runs, and every dry run, one after the other, beside callers that
reserve and settle all the time; but the audit, whose first run reads every row there is. A command
of theirs must not wait for a job; the books are whole before and after.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from bench.finding import Finding
from routstr.errors import InsufficientBalance, RoutstrError
from routstr.flows.context import Context
from routstr.flows.house.jobs import preview, run_job
from routstr.flows.house.keys import LIMIT_MAX, find_keys
from routstr.flows.house.works import WORKS
from routstr.flows.operate import AUDIT_JOB
from routstr.ledger.audit import audit
from routstr.ledger.book import KeyRef
from routstr.ledger.holds import Reserve, Settle

CALLERS: Final = 8
PAYING_S: Final = 4  # at least: one slow commit is one of each caller, and no hundredth of them
PAUSE_S: Final = 0.02  # of a caller after each pair: a busy node, not one at its limit
COMMAND_MS_MAX: Final = 50
PERMILLE: Final = 990
SINCE: Final = timedelta(hours=1)
# These ask mints, or are at work anyway; a backup of all this is another proof's.
LEFT_OUT: Final = frozenset(
    {"renew", "resume", "invoices", "redeem", "payout", "refresh", "follow", "refill", "reconcile"}
    | {"withdrawals", "expire-keys", "backup", "audit"}
)


async def clean_under_load(engine: str, ctx: Context) -> list[Finding]:
    """A finding for each job, and one for the books."""
    before = await _broken(ctx)
    async with _paying(ctx) as times_ms:  # what it takes while no job is at work
        pass
    idle = _of_commands(f"{engine}: no job, while requests are paid", times_ms)
    found: list[Finding | None] = [replace(idle, must="to compare", ok=True, figures={})]
    found += [await _under_load(engine, ctx, work.name) for work in WORKS]
    broken = [*before, *await _broken(ctx)]
    books = Finding(
        what=f"{engine}: the books before and after",
        found=", ".join(broken) or "whole",
        must="whole",
        ok=not broken,
    )
    return [*(each for each in found if each is not None), books]


async def _under_load(engine: str, ctx: Context, name: str) -> Finding | None:
    """The job, or its dry run if it needs a mint; None for one that has neither."""
    work = next(each for each in WORKS if each.name == name)
    is_dry = name in LEFT_OUT
    if is_dry and (work.preview is None or name == AUDIT_JOB):
        return None
    complaints: list[str] = []
    started_s = time.perf_counter()
    async with _paying(ctx) as times_ms:
        try:
            await (preview(ctx, name) if is_dry else run_job(ctx, name, asked_by="bench"))
        except RoutstrError as error:
            complaints.append(f"{error.code}: {error.message}")
        took_ms = (time.perf_counter() - started_s) * 1000
    what = f"{engine}: {name}{', a dry run' if is_dry else ''}, while requests are paid"
    return _of_commands(what, times_ms, f"{took_ms:.0f} ms; ", complaints)


def _of_commands(
    what: str, times_ms: list[float], took: str = "", complaints: Sequence[str] = ()
) -> Finding:
    times_ms.sort()
    p99_ms = times_ms[len(times_ms) * PERMILLE // 1000]
    return Finding(
        what=what,
        found=f"{took}p99 of {len(times_ms)} commands {p99_ms:.0f} ms",
        must=f"p99 below {COMMAND_MS_MAX} ms",
        ok=p99_ms < COMMAND_MS_MAX and not complaints,
        figures={"command_p99_ms": round(p99_ms)},
        complaints=tuple(complaints),
    )


@asynccontextmanager
async def _paying(ctx: Context) -> AsyncIterator[list[float]]:
    """Callers that pay until the block ends, and for some seconds at least; ms of each command."""
    times_ms: list[float] = []
    alive = await _usable(ctx)
    stopping = asyncio.Event()
    callers = [
        asyncio.create_task(_pay(ctx, alive[number::CALLERS], stopping, times_ms))
        for number in range(CALLERS)
    ]
    least = asyncio.create_task(ctx.clock.sleep(PAYING_S))
    try:
        yield times_ms
        await least
    finally:
        stopping.set()
        await asyncio.gather(*callers)


async def _usable(ctx: Context) -> list[str]:
    """Keys that may buy."""
    now = ctx.clock.now()
    rows = (await find_keys(ctx, shown="funded", limit=LIMIT_MAX)).keys
    return [
        row.key.id
        for row in rows
        if row.key.revoked_at is None and (row.key.expires_at is None or row.key.expires_at > now)
    ]


async def _pay(
    ctx: Context, ids: list[str], stopping: asyncio.Event, times_ms: list[float]
) -> None:
    number = 0
    while not stopping.is_set():
        key_id, number = ids[number % len(ids)], number + 1
        started_s = time.perf_counter()
        try:
            hold = await ctx.ledger.submit(_reserve(ctx, key_id))
        except InsufficientBalance:  # of a small database all keys are empty some time
            await ctx.clock.sleep(PAUSE_S)
            continue
        reserved_s = time.perf_counter()
        await ctx.ledger.submit(
            Settle(
                hold_id=hold.id,
                api_key_id=hold.api_key_id,
                cost_msat=1,
                description="model-0",
                request_data={"outcome": "completed", "evidence": "estimated", "model": "model-0"},
            )
        )
        ended_s = time.perf_counter()
        times_ms += [(reserved_s - started_s) * 1000, (ended_s - reserved_s) * 1000]
        await ctx.clock.sleep(PAUSE_S)


def _reserve(ctx: Context, key_id: str) -> Reserve:
    return Reserve(
        hold_id=f"req_{secrets.token_hex(16)}",
        caller=KeyRef(id=key_id),
        wanted_msat=2,
        minimum_msat=1,
        quote_msat=2,
        model_id="model-0",
        price_snapshot={},
        owner=ctx.owner,
        lease_s=90,
    )


async def _broken(ctx: Context) -> list[str]:
    """The invariants that do not hold, as far as a fast audit of the last hour sees."""
    now: datetime = ctx.clock.now()
    report = await audit(
        ctx.database,
        ctx.wallet.vault,
        full=False,
        now=now,
        held_msat_max=ctx.ledger.held_msat_max,
        since=now - SINCE,
    )
    return list(report.broken)
