"""What locked ecash saves: instant acceptance beside a swap at the real mint, in one run.

`python -m bench.instant`. A node on SQLite (synchronous=FULL) in this process takes tokens of six
proofs, by turns locked to its key and plain. The plain ones are swapped first (algorithm A); the
locked ones are credited while the mint is stopped (SIGSTOP), so that not one call to it can be in
the figure. Times are of the whole receive: checks, DLEQs, and the durable commit.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import uvloop

from bench.finding import Finding, require, stumbled
from demo.mint import RealMint
from demo.servers import MODELS_FILE
from demo.wallet import Wallet
from routstr.app import running
from routstr.assembly import Ids
from routstr.config import Settings
from routstr.flows.context import Context
from routstr.flows.keys import Terms, create_key
from routstr.flows.mints import known_mint
from routstr.flows.redeem import redeem
from routstr.log import configure

ADDED_MS_MAX: Final = 15.0
ROUNDS: Final = 40
WARM_UP: Final = 5
AMOUNT_SAT: Final = 63  # six proofs
WHAT: Final = "a locked token of six proofs, to its durable credit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Milliseconds of each receive, and those of them in which this process was at work.

    The rest is waiting: for the disk, and on a busy machine for a processor.
    """

    locked_ms: list[float]
    worked_ms: list[float]
    swapped_ms: list[float]


def prove() -> Iterator[Finding]:
    """One finding."""
    configure("CRITICAL", json=False)
    with stumbled(WHAT) as failed:
        times = uvloop.run(measure())  # the node's own event loop
        locked_ms = statistics.median(times.locked_ms)
        worked_ms = statistics.median(times.worked_ms)
        swapped_ms = statistics.median(times.swapped_ms)
        yield Finding(
            what=WHAT,
            found=f"{locked_ms:.1f} ms, {worked_ms:.1f} of them at work"
            f" (a swap at the mint: {swapped_ms:.1f} ms)",
            must=f"{ADDED_MS_MAX:.0f} ms, with the mint stopped",
            ok=locked_ms <= ADDED_MS_MAX,
            figures={
                "instant_ms": round(locked_ms, 1),
                "instant_work_ms": f"{worked_ms:.1f}",
                "instant_p95_ms": f"{_p95(times.locked_ms):.1f}",
                "swap_added_ms": f"{swapped_ms:.1f}",
            },
        )
    yield from failed


async def measure() -> Times:
    """Take tokens by turns, at a mint and a node of this run's own."""
    with tempfile.TemporaryDirectory(prefix="routstr-instant-") as directory:
        home = Path(directory)
        with RealMint(home / "mint") as mint:
            async with (
                _node(home / "node", mint.url) as ctx,
                Wallet(mint.url, seed=bytes(64)) as wallet,
            ):
                return await _take_turns(ctx, mint, wallet)


async def _take_turns(ctx: Context, mint: RealMint, wallet: Wallet) -> Times:
    await wallet.mint(4 * AMOUNT_SAT * (ROUNDS + WARM_UP))
    await known_mint(ctx, wallet.mint_url)
    times = Times(locked_ms=[], worked_ms=[], swapped_ms=[])
    for turn in range(WARM_UP + ROUNDS):
        locked = await wallet.send(AMOUNT_SAT, lock=ctx.acceptance.current)
        plain = await wallet.send(AMOUNT_SAT)
        mint.pause()
        try:
            worked_s = time.process_time()
            locked_ms = await _timed(ctx, locked)
            worked_ms = (time.process_time() - worked_s) * 1000
        finally:
            mint.resume()
        swapped_ms = await _timed(ctx, plain)
        await redeem(ctx)  # between the measurements, not in them
        if turn >= WARM_UP:
            times.locked_ms.append(locked_ms)
            times.worked_ms.append(worked_ms)
            times.swapped_ms.append(swapped_ms)
    return times


async def _timed(ctx: Context, token: str) -> float:
    started_s = time.perf_counter()
    made = await create_key(ctx, token, Terms(), idempotency_key=None)
    elapsed_s = time.perf_counter() - started_s
    require("the credit", made.available_msat, AMOUNT_SAT * 1000)
    return elapsed_s * 1000


@asynccontextmanager
async def _node(directory: Path, mint_url: str) -> AsyncIterator[Context]:
    """A node at work without its HTTP doors; its jobs stay away during the run."""
    hour_s = 3600
    given: dict[str, Any] = {
        "data_dir": directory,
        "database_url": f"sqlite+aiosqlite:///{directory}/routstr.db",
        "cashu_mints": (mint_url,),
        "upstream_base_url": "http://127.0.0.1:9",
        "models_file": MODELS_FILE,
        "btc_usd_price": "100000",
        "allow_loopback_http": True,
        "mint_calls_per_minute": 60_000,
        "mint_calls_burst": 1_000,
        "redeem_every_s": hour_s,
        "reconcile_every_s": hour_s,
    }
    settings = Settings(_env_file=None, **given)  # type: ignore[call-arg]  # pydantic's own
    async with running(settings, Ids(), lambda _: None) as ctx:
        yield ctx


def _p95(values: list[float]) -> float:
    return sorted(values)[len(values) * 95 // 100]


def main() -> int:
    """Print the finding; the exit status."""
    (finding,) = prove()
    print(f"{finding.what}: {finding.found}; must be {finding.must}")
    for complaint in finding.complaints:
        print(complaint, file=sys.stderr)
    print(" ".join(f"{name}={value}" for name, value in finding.figures.items()))
    return 0 if finding.ok else 1


if __name__ == "__main__":
    sys.exit(main())
