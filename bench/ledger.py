"""How many reserve + settle pairs a second the executor commits: `make bench-ledger`.

SQLite with synchronous=FULL in a temporary directory (or the database that BENCH_DATABASE_URL
names); BENCH_KEYS keys, one hot key unless told, and BENCH_CALLERS concurrent callers, 64 unless
told; every pair is two durable commits shared with others. CPU is this process's, all its threads.
"""

import asyncio
import itertools
import os
import secrets
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import uvloop

from routstr.assembly import Ids
from routstr.ledger.accounts import NewKey, OpenKey
from routstr.ledger.book import Book, KeyRef
from routstr.ledger.commands import Command, Wallet
from routstr.ledger.engine import PoolSettings, open_database
from routstr.ledger.executor import ExecutorLimits, LedgerExecutor
from routstr.ledger.holds import Reserve, Settle
from routstr.ledger.migrate import migrate
from routstr.ledger.vault import Vault

CALLERS: Final = int(os.environ.get("BENCH_CALLERS", "64"))
KEYS: Final = int(os.environ.get("BENCH_KEYS", "1"))
SECONDS: Final = float(os.environ.get("BENCH_SECONDS", "5"))
FUNDS_MSAT: Final = 10**12


class WallClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fund(Command[None]):
    """Give the benchmark's key its balance: no mint takes part here."""

    key_id: str

    @property
    def keys(self) -> Sequence[KeyRef]:
        return (KeyRef(id=self.key_id),)

    def apply(self, book: Book) -> None:
        book.post(
            book.account(KeyRef(id=self.key_id)), FUNDS_MSAT, "deposit", f"bench:{self.key_id}"
        )


async def call(executor: LedgerExecutor, ids: Ids, hashes: Iterator[str], until_s: float) -> int:
    """One caller: reserve, settle, again; the number of pairs committed."""
    pairs = 0
    while time.perf_counter() < until_s:
        hold = await executor.submit(
            Reserve(
                hold_id=ids.new("req"),
                caller=KeyRef(hash=next(hashes)),
                wanted_msat=1_000,
                minimum_msat=1_000,
                quote_msat=1_000,
                model_id="bench",
                price_snapshot={"input_msat_per_mtok": 1, "output_msat_per_mtok": 1},
                owner="bench",
                lease_s=90,
            )
        )
        await executor.submit(
            Settle(
                hold_id=hold.id,
                api_key_id=hold.api_key_id,
                cost_msat=700,
                description="bench",
                request_data={"outcome": "completed", "evidence": "exact"},
            )
        )
        pairs += 1
    return pairs


async def measure(database_url: str) -> None:
    await migrate(database_url)
    database = open_database(database_url, PoolSettings())
    vault = Vault(bytes(32), random_bytes=secrets.token_bytes)
    wallet = Wallet(
        seed=bytes(64), vault=vault, new_id=lambda kind: f"{kind}_{secrets.token_hex(16)}"
    )
    executor = LedgerExecutor(
        database,
        wallet=wallet,
        clock=WallClock(),
        limits=ExecutorLimits(queue_max=2 * KEYS + CALLERS, held_msat_max=FUNDS_MSAT),
    )
    running = asyncio.create_task(executor.run())
    keys = [
        NewKey(id=f"key_{secrets.token_hex(16)}", hash=secrets.token_hex(32)) for _ in range(KEYS)
    ]
    await asyncio.gather(*(executor.submit(OpenKey(key=key)) for key in keys))
    await asyncio.gather(*(executor.submit(Fund(key_id=key.id)) for key in keys))
    before = (executor.commands, executor.batches)
    started_s, cpu_started_s = time.perf_counter(), time.process_time()
    until_s = started_s + SECONDS
    ids, hashes = Ids(), itertools.cycle(key.hash for key in keys)
    pairs = sum(
        await asyncio.gather(*(call(executor, ids, hashes, until_s) for _ in range(CALLERS)))
    )
    seconds, cpu_s = time.perf_counter() - started_s, time.process_time() - cpu_started_s
    commands, batches = executor.commands - before[0], executor.batches - before[1]
    executor.stop()
    await running
    await database.close()
    print(f"{pairs} pairs in {seconds:.1f} s, {CALLERS} callers, {KEYS} keys, {database.dialect}")
    print(f"{commands} commands in {batches} commits: {commands / batches:.1f} a commit")
    print(f"{cpu_s / pairs * 1_000_000:.0f} us CPU and {seconds / pairs * 1_000_000:.0f} us a pair")
    print(f"pairs_per_s={pairs / seconds:.0f}")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="routstr-bench-") as directory:
        url = os.environ.get("BENCH_DATABASE_URL", f"sqlite+aiosqlite:///{directory}/bench.db")
        uvloop.run(measure(url))  # the node's own event loop


if __name__ == "__main__":
    main()
