"""Half an hour at half of what the node can do: its memory stays flat, and its books whole.

The peak is measured first, on the same node. Memory is what the system says is resident, taken
each second. SOAK_MINUTES=5 makes it shorter.
"""

import asyncio
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from bench.finding import FellShort, Finding, require, stumbled
from bench.load import Came, load
from bench.residence import LoneNode, mib_of
from bench.scene import Scene, audit, open_scene, rows
from bench.still import StillUpstream

MINUTES: Final = 30
WARM_UP_SHARE: Final = 6  # the first sixth: five minutes of thirty
PEAK_S: Final = 10
CONNECTIONS: Final = 64
GROWTH_MIB_MAX: Final = 10  # performance.md: what 100,000 requests may add
FUNDS_SAT: Final = 1_000_000
PROBE_S: Final = 1.0

HELD: Final = "SELECT coalesce(sum(reserved), 0) FROM apikey"


def prove() -> Iterator[Finding]:
    """One finding."""
    minutes = float(os.environ.get("SOAK_MINUTES") or MINUTES)
    what = f"{minutes:g} minutes at half of the peak"
    with (
        stumbled(what) as failed,
        open_scene() as scene,
        StillUpstream(scene.home / "still") as upstream,
    ):
        yield asyncio.run(_soak(scene, upstream, what, minutes * 60))
    yield from failed


async def _soak(scene: Scene, upstream: StillUpstream, what: str, seconds: float) -> Finding:
    settings = {"CASHU_MINTS": scene.mint.url, "UPSTREAM_BASE_URL": upstream.api_url("whole")}
    settings |= {"LOG_LEVEL": "WARNING"}
    with LoneNode(scene.home / "soaked", settings=settings) as node:
        async with scene.customer(node, funds_sat=FUNDS_SAT + 50) as customer:
            await customer.open_key(FUNDS_SAT)
            peak = load(node.port, customer.key, seconds=PEAK_S, connections=CONNECTIONS)
            rate = int(peak.per_s / 2)
            came, memory = _watched(node, customer.key, seconds, rate)
            await audit(node)
        require("what is still reserved", rows(node, HELD), [(0,)])
    half = [mib for at_s, mib in memory if at_s >= seconds / WARM_UP_SHARE]
    if not half:
        raise FellShort("there was no time to measure memory")
    warm, end = half[0], half[-1]
    requests = came.statuses.get("200", 0)
    failed = came.unanswered + came.other + came.refused
    return Finding(
        what=what,
        found=f"{requests:,} requests at {rate} a second, {failed} failed, "
        f"{warm:.0f} MiB warm, {end:.0f} MiB at the end, p99 {came.p99_ms} ms",
        must=f"at most {GROWTH_MIB_MAX} MiB more, none failed, books whole",
        ok=end - warm <= GROWTH_MIB_MAX and not failed,
        figures={
            "soak_requests": requests,
            "soak_mib_warm": round(warm),
            "soak_mib_end": round(end),
            "soak_failed": failed,
        },
    )


def _watched(
    node: LoneNode, key: str, seconds: float, rate: int
) -> tuple[Came, list[tuple[float, float]]]:
    """The load, and the resident memory by the second since it began."""
    begun_s, memory = time.monotonic(), []
    with ThreadPoolExecutor(1) as other:
        running = other.submit(
            load, node.port, key, seconds=seconds, connections=CONNECTIONS, rate=rate
        )
        while not running.done():
            memory.append((time.monotonic() - begun_s, mib_of(node.process.pid)))
            time.sleep(PROBE_S)
    return running.result(), memory
