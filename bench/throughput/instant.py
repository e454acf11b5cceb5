"""What a payment by locked ecash costs the node: `X-Cashu` with six proofs, for one request.

The real mint makes the tokens beforehand, each locked to the node's key and with its DLEQs, and is
stopped (SIGSTOP) while they pay: what is measured is everything that the node does until the answer
and its change are out, and redeeming later, in batches, is not in it.
"""

import asyncio
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Final

import httpx

from bench.finding import FellShort, require
from bench.scene import ok
from bench.throughput.figures import Figures
from bench.throughput.measures import body
from bench.throughput.node import BenchNode
from bench.throughput.usage import Watched
from demo.mint import RealMint
from demo.wallet import Wallet

REQUESTS: Final = 60
WARM_UP: Final = 10
AT_ONCE: Final = 16
TOKEN_SAT: Final = 63  # six proofs
FUNDS: Final = 30  # deposits, each of which the node takes as the small coins that it lacks
FUNDS_SAT: Final = 945
FLOAT_TIMEOUT_S: Final = 20
POLL_S: Final = 0.1
HOUR_S: Final = "3600"

# Change for every payment is ready, and nothing calls the mint while it is stopped.
COINS: Final = (1, 2, 4, 8, 16, 32)
SETTINGS: Final = {
    "FLOAT_COINS": "150",  # a size is refilled once it falls below half of that
    "FLOAT_COIN_MAX": str(max(COINS)),
    "REFILL_EVERY_S": HOUR_S,
    "REDEEM_EVERY_S": HOUR_S,
    "RECONCILE_EVERY_S": HOUR_S,
    "LOCKED_SATS_MAX": "100000",
    "MINT_CALLS_PER_MINUTE": "60000",
    "MINT_CALLS_BURST": "1000",
}
READY: Final = """
SELECT count(*) FROM (SELECT amount FROM proof WHERE state = 'unspent' AND amount <= :largest
  GROUP BY amount HAVING count(*) >= :wanted)
"""


def pay(node: BenchNode, mint: RealMint) -> Figures:
    """The figures of all payments. Raises FellShort when the change float is not made in time."""
    return asyncio.run(_pay(node, mint))


async def _pay(node: BenchNode, mint: RealMint) -> Figures:
    async with (
        Wallet(mint.url, seed=bytes(64)) as wallet,
        httpx.AsyncClient(base_url=node.url, timeout=30, trust_env=False) as http,
    ):
        payments = WARM_UP + REQUESTS
        await wallet.mint(FUNDS_SAT * FUNDS + TOKEN_SAT * payments)
        for _ in range(FUNDS):
            funds = {"initial_balance_token": await wallet.send(FUNDS_SAT)}
            ok(await http.post("/v1/balance/create", json=funds))
        lock = ok(await http.get("/v1/info"))["p2pk_pubkey"]
        tokens = [await wallet.send(TOKEN_SAT, lock=lock) for _ in range(payments)]
        await _float_is_made(node, payments)
        mint.pause()
        try:
            await _answers(http, tokens[:WARM_UP])
            watched = Watched(node.process.pid)
            taken_ms = await _answers(http, tokens[WARM_UP:])
            used_us = watched.used_us()
        finally:
            mint.resume()
    return {
        "cpu_ms": used_us / REQUESTS / 1000,
        "p50_ms": sorted(taken_ms)[len(taken_ms) // 2] if taken_ms else 0.0,
        "requests": REQUESTS,
        "failed": REQUESTS - len(taken_ms),
    }


async def _answers(http: httpx.AsyncClient, tokens: list[str]) -> list[float]:
    """Milliseconds of each payment that bought its answer and brought its change at once."""
    places, asked = asyncio.Semaphore(AT_ONCE), body("small")

    async def buy(token: str) -> float | None:
        headers = {"x-cashu": token, "content-type": "application/json"}
        async with places:
            started_s = time.perf_counter()
            answer = await http.post("/v1/chat/completions", content=asked, headers=headers)
        is_paid = answer.status_code == httpx.codes.OK and "x-cashu" in answer.headers
        return (time.perf_counter() - started_s) * 1000 if is_paid else None

    taken = await asyncio.gather(*(buy(token) for token in tokens))
    return [each for each in taken if each is not None]


async def _float_is_made(node: BenchNode, payments: int) -> None:
    """Return once there is change for all of them."""
    deadline_s = time.monotonic() + FLOAT_TIMEOUT_S
    wanted = {"largest": max(COINS), "wanted": payments}
    while _ready(node.data_dir / "routstr.db", wanted) < len(COINS):
        require("time to make the change float", time.monotonic() < deadline_s, True)
        await asyncio.sleep(POLL_S)


def _ready(path: Path, wanted: dict[str, int]) -> int:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        row = database.execute(READY, wanted).fetchone()
    if row is None:
        raise FellShort(f"{path.name} cannot be read")
    return int(row[0])
