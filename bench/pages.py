"""Every page of the operator on a node that has lived: 100,000 keys, 5 million rows, both engines.

PostgreSQL gets a fifth of the rows, or filling it would take longer than all else. KEYS and
TRANSACTIONS in the environment make it smaller. A database is filled in memory where there is room,
and SQLite's is moved to the disk before jobs and paid requests write to it. What is timed is the
server's work: a flow from its call to its result, a page from the request to its last byte, over
loopback. Each is asked five times, the first time cold. Then the clean-up jobs run over the same
books (`cleanup.py`).
"""

import asyncio
import gc
import os
import secrets
import shutil
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

import httpx

from bench.cleanup import clean_under_load
from bench.finding import Finding, stumbled
from bench.seed import KEYS, MINT_URL, TRANSACTIONS, Seeded, seed
from bench.seed_rows import key_id
from demo.process import NO_TLS
from routstr.flows.context import Context
from routstr.flows.house import keys, money
from routstr.flows.house.money import Ask
from routstr.flows.house.overview import needs_of, overview
from routstr.flows.house.usage import error_details, usage
from routstr.ledger.engine import PoolSettings, open_database
from routstr.ledger.migrate import migrate
from routstr.ledger.reads_house_keys import KEY_FILTERS
from routstr.ledger.vault import Vault
from routstr.log import configure
from routstr.web.admin.routes import admin_routers
from routstr.web.pages.kit import compile_templates
from routstr.web.pages.routes import page_routers
from tests.harness.clock import MovableClock
from tests.harness.house import move_in, session_headers
from tests.harness.postgres import EmbeddedPostgres
from tests.harness.shop import make_app, serving
from tests.harness.till import MASTER, open_context

ENGINES: Final = ("sqlite", "postgresql")
ASKED: Final = 5
PAGE_MS_MAX: Final = 300
SEED_S_MAX: Final = 600
WAIT_S: Final = 60
SQLITE: Final = "sqlite+aiosqlite:///"
DISK: Final = Path(tempfile.gettempdir())
MEMORY: Final = Path("/dev/shm")  # noqa: S108 - only where; what lies there has random names
ROOM_BYTES: Final = 14 * 1024**3
# What is no page of somebody logged in, works instead of showing, or shows what it is told to.
LEFT_OUT: Final = (
    *("/admin/login", "/admin/setup", "/admin/enrol", "/admin/events"),
    *("/admin/api/audit", "/admin/models/edit"),
)

Timed = Callable[[], Awaitable[object]]


def prove() -> Iterator[Finding]:
    """A finding for the seed, each flow, each page, and each job under load, on both engines."""
    configure("CRITICAL", json=False)
    compile_templates()  # of which a process has to be asked once, whatever the database
    for engine in ENGINES:
        with stumbled(f"pages on {engine}") as failed:
            yield from asyncio.run(_on(engine))
        yield from failed


async def _on(engine: str) -> list[Finding]:
    async with _lived(engine) as (url, made):
        found = [_of_seed(engine, made)]
        async with open_context(url, (MINT_URL,), MovableClock()) as (ctx, _):
            for what, ask in flows(ctx, key_id(0)).items():
                found.append(_finding(f"{engine}: {what}", await _times_ms(ask)))
            found += await _pages(engine, ctx)
            found.append(_counted(found))
        async with (
            _on_disk(url) as disk_url,
            open_context(disk_url, (MINT_URL,), MovableClock()) as (ctx, _),
        ):
            found += await clean_under_load(engine, ctx)
    return found


@asynccontextmanager
async def _on_disk(url: str) -> AsyncIterator[str]:
    """The same database where commits cost what they cost; PostgreSQL's is there already."""
    if not url.startswith(SQLITE):
        yield url
        return
    with tempfile.TemporaryDirectory(prefix="routstr-jobs-", dir=DISK) as home:
        path = Path(home) / "routstr.db"
        await asyncio.to_thread(shutil.move, url.removeprefix(SQLITE), path)
        await asyncio.to_thread(os.sync)  # or its own writing is what commits wait for
        yield f"{SQLITE}{path}"


def _counted(found: Sequence[Finding]) -> Finding:
    """How many of them there are, and which is the slowest."""
    timed = [each for each in found if "slowest_page_ms" in each.figures]
    within = sum(each.ok for each in timed)
    return Finding(
        what="pages and reads within their time",
        found=f"{within} of {len(timed)}",
        must="all",
        ok=within == len(timed),
        figures={"pages": len(timed)},
    )


@asynccontextmanager
async def _lived(engine: str) -> AsyncIterator[tuple[str, Seeded]]:
    """A database of that engine, seeded, and how that went."""
    keys_wanted = int(os.environ.get("KEYS") or KEYS)
    transactions = int(os.environ.get("TRANSACTIONS") or TRANSACTIONS)
    if engine != "sqlite":
        transactions = max(transactions // 5, 2 * keys_wanted)
    with tempfile.TemporaryDirectory(prefix="routstr-pages-", dir=_roomy()) as home:
        server = None if engine == "sqlite" else EmbeddedPostgres().start()
        try:
            url = f"{SQLITE}{Path(home) / 'routstr.db'}"
            if server is not None:
                url = server.create_database()
            await migrate(url)
            database = open_database(url, PoolSettings())
            made = await seed(
                database,
                Vault(MASTER, random_bytes=secrets.token_bytes),
                keys=keys_wanted,
                transactions=transactions,
                now=datetime.now(UTC),
            )
            await database.close()
            yield url, made
        finally:
            if server is not None:
                server.remove()


def _roomy() -> Path | None:
    """Memory, if the largest database fits in it twice."""
    is_there = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= ROOM_BYTES
    return MEMORY if is_there else None


def flows(ctx: Context, busy_id: str) -> Mapping[str, Timed]:
    """What pages and the JSON API call, by name; `busy_id` is a key with many rows."""
    asked: dict[str, Timed] = {
        "usage, a year": partial(usage, ctx, hours=24 * 365),
        "error details, 30 days": partial(error_details, ctx, hours=720),
        "what needs you": partial(needs_of, ctx),
        "a key": partial(keys.key_shown, ctx, busy_id),
        "a key's rows": partial(keys.key_rows, ctx, busy_id, limit=100),
        "all keys' totals": partial(keys.all_keys, ctx),
        "balances": partial(money.balances, ctx),
        "mints": partial(money.mints, ctx),
        "open operations": partial(money.operations, ctx),
    }
    for hours in (1, 24, 720):
        asked[f"overview, {hours} h"] = partial(overview, ctx, hours=hours)
    rows = {
        "of all keys": Ask(limit=100, with_total=True),
        "offset 10,000": Ask(offset=money.OFFSET_MAX),
        "withdrawals": Ask(status="withdrawal", with_total=True),
        "of a key": Ask(search=busy_id, with_total=True),
    }
    for name, ask in rows.items():
        asked[f"rows, {name}"] = partial(money.transactions, ctx, ask)
    moved = Ask(with_total=True)
    asked["rows that moved"] = partial(money.transactions, ctx, moved, is_moved=True)
    for shown in KEY_FILTERS:
        asked[f"keys, {shown}"] = partial(keys.find_keys, ctx, shown=shown)
        asked[f"keys counted, {shown}"] = partial(keys.keys_found, ctx, shown=shown)
    for text in (busy_id, busy_id[:9], "sk-12", "key_nothing", f"sk-{'0' * 64}"):
        asked[f"keys by {text[:12]}"] = partial(keys.find_keys, ctx, search=text)
    for status in (None, *money.WITHDRAWAL_STATES):
        ask = Ask(status=status, with_total=True)
        asked[f"withdrawals, {status or 'all'}"] = partial(money.withdrawals, ctx, ask)
    for status in (None, "paid", "expired"):
        ask = Ask(status=status, with_total=True)
        asked[f"invoices, {status or 'all'}"] = partial(money.invoices, ctx, ask)
    for status in (None, "pending", "credited"):
        ask = Ask(status=status, with_total=True)
        asked[f"deposits, {status or 'all'}"] = partial(money.deposits, ctx, ask)
    return asked


async def _pages(engine: str, ctx: Context) -> list[Finding]:
    """Every page and every list of the JSON API that needs no name, as a browser asks for it."""
    paths = sorted(
        {
            str(getattr(route, "path", ""))
            for router in (*page_routers(), *admin_routers())
            for route in router.routes
            if "GET" in (getattr(route, "methods", None) or ())
        }
    )
    opened, _ = await move_in(ctx)
    found = []
    async with serving(make_app(ctx)) as port:
        origin = f"http://127.0.0.1:{port}"
        headers = session_headers(ctx, opened, origin)
        async with httpx.AsyncClient(
            base_url=origin, verify=NO_TLS, timeout=WAIT_S, headers=headers
        ) as http:
            for path in paths:
                if path.startswith("/admin") and not path.startswith(LEFT_OUT) and "{" not in path:
                    found.append(await _page(engine, http, path))
    return found


async def _page(engine: str, http: httpx.AsyncClient, path: str) -> Finding:
    statuses: set[int] = set()

    async def ask() -> None:
        statuses.add((await http.get(path)).status_code)

    times_ms = await _times_ms(ask)
    wrong = sorted(statuses - {httpx.codes.OK})
    return _finding(f"{engine}: {path}", times_ms, [f"answered {status}" for status in wrong])


async def _times_ms(ask: Timed) -> list[float]:
    gc.collect()  # what the one before left behind is nothing to this one
    times_ms = []
    for _ in range(ASKED):
        started_s = time.perf_counter()
        await ask()
        times_ms.append((time.perf_counter() - started_s) * 1000)
    return times_ms


def _finding(what: str, times_ms: list[float], complaints: list[str] | None = None) -> Finding:
    worst_ms, median_ms = max(times_ms), statistics.median(times_ms)
    return Finding(
        what=what,
        found=f"median {median_ms:.0f} ms, worst {worst_ms:.0f} ms",
        must=f"at most {PAGE_MS_MAX} ms",
        ok=worst_ms <= PAGE_MS_MAX and not complaints,
        figures={"slowest_page_ms": round(worst_ms)},
        complaints=tuple(complaints or ()),
    )


def _of_seed(engine: str, made: Seeded) -> Finding:
    took_s = sum(made.steps.values())
    steps = ", ".join(f"{name} {seconds:.0f}" for name, seconds in made.steps.items() if name)
    return Finding(
        what=f"{engine}: {made.keys} keys and {made.requests} requests, made",
        found=f"{took_s:.0f} s ({steps})",
        must=f"at most {SEED_S_MAX} s",
        ok=took_s <= SEED_S_MAX,
    )
