"""Growth: what a paid request costs with 10 million keys and 50 million rows, and with hardly any.

Two databases of each engine lie side by side on one disk: one of 1,000 keys and next to no row, one
of KEYS and TRANSACTIONS. Requests (reserve by the hash, then settle, 64 at once, durable) go to
one and the other by turns, some hundreds at a time, so that whatever else the machine does falls on
both. What is told is the median of all turns. Either 64 keys ask, or each request draws a key from
all there are, so that nearly each finds its pages out of memory once there are millions.

CPU is this process's and, of PostgreSQL, its server's. SEEDED=directory keeps the databases there,
and finds them again; ENGINES=sqlite asks one engine only; AUDIT=1 audits the books afterwards.
"""

import asyncio
import os
import random
import secrets
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from bench.finding import Finding, stumbled
from bench.ledger import WallClock
from bench.seed import LEAN_DAYS, Seeded, seed
from bench.seed_lean import ROWS_PER_KEY, lean_key_hash
from routstr.assembly import Ids
from routstr.ledger.audit import audit
from routstr.ledger.book import KeyRef
from routstr.ledger.commands import Wallet
from routstr.ledger.engine import Database, PoolSettings, open_database
from routstr.ledger.executor import ExecutorLimits, LedgerExecutor
from routstr.ledger.holds import Reserve, Settle
from routstr.ledger.migrate import migrate
from routstr.ledger.vault import Vault
from tests.harness.postgres import EmbeddedPostgres

SQLITE: Final = "sqlite+aiosqlite:///"
SMALL_KEYS: Final = 1_000
CALLERS: Final = 64
HOT_KEYS: Final = 64
PAIRS: Final = 1_920  # of one turn: about what SQLite takes between two checkpoints
TURNS: Final = 15
# Turns that are not counted: keys that are hot have some pages full of rows, wherever they are.
WARMING: Final = {"hot": 5, "all": 1}
WITHIN: Final = 10  # percent
HELD_MSAT_MAX: Final = 10**15
# As somebody sets it who has fifty million rows; both databases are in the one server.
POSTGRES_OPTIONS: Final = ("shared_buffers=2GB", "max_wal_size=8GB", "checkpoint_timeout=15min")
DONE: Final = "done"

CpuClock = Callable[[], float]


@dataclass(slots=True)
class Node:
    """A ledger on one database, and what its requests took: (CPU, wall) in s, by who asked."""

    database: Database
    executor: LedgerExecutor
    keys: int
    new_id: Callable[[str], str]
    hot: list[str] = field(default_factory=list)
    took: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def draw(self, who: str) -> str:
        """The hash of the key that asks next."""
        if who == "hot":
            return random.choice(self.hot)
        return lean_key_hash(random.randrange(self.keys))


def prove() -> Iterator[Finding]:
    """Findings for each engine: hot keys and all keys, CPU and wall clock."""
    for engine in os.environ.get("ENGINES", "sqlite,postgresql").split(","):
        with stumbled(f"growth on {engine}") as failed:
            yield from asyncio.run(_on(engine))
        yield from failed


async def _on(engine: str) -> list[Finding]:
    keys, transactions = (
        int(os.environ.get(name) or usual)
        for name, usual in (("KEYS", 10_000_000), ("TRANSACTIONS", 50_000_000))
    )
    home = os.environ.get("SEEDED")
    async with AsyncExitStack() as stack:
        if home is None:
            home = stack.enter_context(tempfile.TemporaryDirectory(prefix="routstr-growth-"))
        where = _Engine(engine, Path(home), stack)
        small, _ = await where.node(SMALL_KEYS, ROWS_PER_KEY * SMALL_KEYS + 2)
        big, made = await where.node(keys, transactions)
        for who in ("hot", "all"):
            for turn in range(WARMING[who] + TURNS):
                for node in (small, big) if turn % 2 else (big, small):
                    took = await _turn(node, who, where.cpu_s)
                    if turn >= WARMING[who]:
                        node.took.setdefault(who, []).append(took)
        findings = [] if made is None else [_of_seed(engine, transactions, made)]
        findings += [
            _compared(engine, who, place, small, big) for who in ("hot", "all") for place in (0, 1)
        ]
        if os.environ.get("AUDIT"):
            findings.append(await _audited(engine, big))
    return findings


class _Engine:
    """Where the databases of one engine lie, made at need, and how its CPU is counted."""

    def __init__(self, engine: str, home: Path, stack: AsyncExitStack) -> None:
        self._home, self._stack, self._engine = home, stack, engine
        self._server: EmbeddedPostgres | None = None
        home.mkdir(parents=True, exist_ok=True)
        if engine == "postgresql":
            place = home / "postgresql"
            place.mkdir(exist_ok=True)
            self._server = EmbeddedPostgres(place, options=POSTGRES_OPTIONS).start()
            stack.callback(self._server.stop)

    def cpu_s(self) -> float:
        """Of this process, and of the server."""
        server = 0.0 if self._server is None else self._server.cpu_s()
        return time.process_time() + server

    async def node(self, keys: int, transactions: int) -> tuple[Node, Seeded | None]:
        """A running ledger on a database of that size; what it took to make it, if it was."""
        place = self._home / f"{self._engine}-{keys}-{transactions}"
        mark, made = place / DONE, None
        if self._server is None:
            place.mkdir(exist_ok=True)
            url = f"{SQLITE}{place}/routstr.db"
        else:
            url = self._server.named(f"growth_{keys}_{transactions}", fresh=not mark.exists())
            place.mkdir(exist_ok=True)
        if not mark.exists():
            await migrate(url)
            database = open_database(url, PoolSettings())
            made = await seed(
                database,
                Vault(bytes(32), random_bytes=secrets.token_bytes),
                keys=keys,
                transactions=transactions,
                now=datetime.now(UTC),
                days=LEAN_DAYS,
                lean=True,
            )
            await database.close()
            mark.touch()
        node = await self._stack.enter_async_context(_running(url, keys))
        return node, made


@asynccontextmanager
async def _running(url: str, keys: int) -> AsyncIterator[Node]:
    await migrate(url)
    database, ids = open_database(url, PoolSettings()), Ids()
    vault = Vault(bytes(32), random_bytes=secrets.token_bytes)
    executor = LedgerExecutor(
        database,
        wallet=Wallet(seed=bytes(64), vault=vault, new_id=ids.new),
        clock=WallClock(),
        limits=ExecutorLimits(held_msat_max=HELD_MSAT_MAX),
    )
    running = asyncio.create_task(executor.run())
    node = Node(database, executor, keys, ids.new)
    node.hot = [node.draw("all") for _ in range(HOT_KEYS)]
    try:
        yield node
    finally:
        executor.stop()
        await running
        await database.close()


async def _turn(node: Node, who: str, cpu_s: CpuClock) -> tuple[float, float]:
    """CPU and wall clock of one paid request, in s."""
    left = iter(range(PAIRS))
    began_s, began_cpu_s = time.perf_counter(), cpu_s()
    await asyncio.gather(*(_caller(node, who, left) for _ in range(CALLERS)))
    return (cpu_s() - began_cpu_s) / PAIRS, (time.perf_counter() - began_s) / PAIRS


async def _caller(node: Node, who: str, left: Iterator[int]) -> None:
    for _ in left:
        hold = await node.executor.submit(
            Reserve(
                hold_id=node.new_id("req"),
                caller=KeyRef(hash=node.draw(who)),
                wanted_msat=20,
                minimum_msat=20,
                quote_msat=20,
                model_id="bench",
                price_snapshot={"input_msat_per_mtok": 1, "output_msat_per_mtok": 1},
                owner="bench",
                lease_s=90,
            )
        )
        await node.executor.submit(
            Settle(
                hold_id=hold.id,
                api_key_id=hold.api_key_id,
                cost_msat=7,
                description="bench",
                request_data={"outcome": "completed_no_usage", "evidence": "estimated"},
            )
        )


def _compared(engine: str, who: str, place: int, small: Node, big: Node) -> Finding:
    few, many = (
        1_000_000 * statistics.median(took[place] for took in node.took[who])
        for node in (small, big)
    )
    more = 100 * (many / few - 1)
    what = ("CPU", "wall clock")[place]
    # Keys drawn from all there are wait for the disk; how long is the disk's affair.
    is_bound = who == "hot"
    asked = f"{HOT_KEYS} keys ask" if is_bound else "any key asks"
    return Finding(
        what=f"{engine}: {what} of a paid request, {asked}: {small.keys} keys, then {big.keys}",
        found=f"{few:.0f} us, then {many:.0f} us: {more:+.0f} %",
        must=f"within {WITHIN} %" if is_bound else "told",
        ok=not is_bound or abs(more) <= WITHIN,
        figures={f"growth_{engine}_{who}_{what.partition(' ')[0].lower()}_pct": round(more)},
    )


def _of_seed(engine: str, transactions: int, made: Seeded) -> Finding:
    took_s = sum(made.steps.values())
    steps = ", ".join(f"{name} {seconds:.0f}" for name, seconds in made.steps.items() if name)
    return Finding(
        what=f"{engine}: {made.keys} keys and {transactions} rows, made",
        found=f"{took_s:.0f} s ({steps}), {transactions / took_s:.0f} rows a second",
        must="told",
        ok=True,
    )


async def _audited(engine: str, node: Node) -> Finding:
    began_s = time.perf_counter()
    report = await audit(
        node.database,
        Vault(bytes(32), random_bytes=secrets.token_bytes),
        full=True,
        now=datetime.now(UTC),
        held_msat_max=HELD_MSAT_MAX,
        is_running=False,
    )
    return Finding(
        what=f"{engine}: a full audit afterwards",
        found=f"{'whole' if report.ok else ', '.join(report.broken)},"
        f" {time.perf_counter() - began_s:.0f} s",
        must="whole",
        ok=report.ok,
    )
