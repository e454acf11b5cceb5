"""How many reserve + settle pairs a second the executor commits: `make bench-ledger`.

SQLite with synchronous=FULL in a temporary directory (or the database that BENCH_DATABASE_URL
names), one hot key, 64 concurrent callers; every pair is two durable commits shared with others.
"""

import asyncio
import os
import secrets
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import uvloop

from routstr.ledger.accounts import NewKey, OpenKey
from routstr.ledger.book import Book, KeyRef
from routstr.ledger.commands import Command, Wallet
from routstr.ledger.engine import PoolSettings, open_database
from routstr.ledger.executor import ExecutorLimits, LedgerExecutor
from routstr.ledger.holds import Reserve, Settle
from routstr.ledger.migrate import migrate
from routstr.ledger.vault import Vault

CALLERS: Final = 64
SECONDS: Final = 5.0
FUNDS_MSAT: Final = 10**15


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
        book.post(book.account(KeyRef(id=self.key_id)), FUNDS_MSAT, "deposit", "bench")


async def call(executor: LedgerExecutor, key_hash: str, until_s: float) -> int:
    """One caller: reserve, settle, again; the number of pairs committed."""
    pairs = 0
    while time.perf_counter() < until_s:
        hold = await executor.submit(
            Reserve(
                hold_id=f"req_{secrets.token_hex(16)}",
                caller=KeyRef(hash=key_hash),
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
        database, wallet=wallet, clock=WallClock(), limits=ExecutorLimits(held_msat_max=FUNDS_MSAT)
    )
    running = asyncio.create_task(executor.run())
    key = NewKey(id=f"key_{secrets.token_hex(16)}", hash=secrets.token_hex(32))
    await executor.submit(OpenKey(key=key))
    await executor.submit(Fund(key_id=key.id))
    before = (executor.commands, executor.batches)
    started_s = time.perf_counter()
    calls = [call(executor, key.hash, started_s + SECONDS) for _ in range(CALLERS)]
    pairs = sum(await asyncio.gather(*calls))
    seconds = time.perf_counter() - started_s
    commands, batches = executor.commands - before[0], executor.batches - before[1]
    executor.stop()
    await running
    await database.close()
    print(f"{pairs} pairs in {seconds:.1f} s, {CALLERS} callers, one key, {database.dialect}")
    print(f"{commands} commands in {batches} commits: {commands / batches:.1f} a commit")
    print(f"pairs_per_s={pairs / seconds:.0f}")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="routstr-bench-") as directory:
        url = os.environ.get("BENCH_DATABASE_URL", f"sqlite+aiosqlite:///{directory}/bench.db")
        uvloop.run(measure(url))  # the node's own event loop


if __name__ == "__main__":
    main()
