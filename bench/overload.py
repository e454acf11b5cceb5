"""Three times what the node can serve: it serves what it can, and tells the rest at once.

Then who disturbs whom: thousands of requests at an upstream that says nothing, a mint that hangs,
and bodies of 400 kB, each while another customer asks for something that has nothing to do with it.
"""

import asyncio
from collections.abc import Iterator
from typing import Final

from bench import bodies, waiting
from bench.finding import FellShort, Finding, stumbled
from bench.load import Came, load
from bench.residence import LoneNode, mib_of
from bench.scene import Scene, audit, open_scene
from bench.still import StillUpstream

FUNDS_SAT: Final = 2_000_000
WARM_S: Final = 3
PEAK_S: Final = 10
CROWD_S: Final = 10
PEAK_CONNECTIONS: Final = 64
CROWDS: Final = (192, 512, 2_048)
TIMES: Final = 3
GOODPUT_MIN: Final = 0.9
DELAY_S: Final = 0.5
REFUSED_MS_MAX: Final = 500.0
WHAT: Final = "three times the load"


def prove() -> Iterator[Finding]:
    """The findings of all parts."""
    with (
        stumbled(WHAT) as failed,
        open_scene() as scene,
        StillUpstream(scene.home / "still") as upstream,
    ):
        yield from asyncio.run(_crowded(scene, upstream))
    yield from failed
    yield from waiting.prove()
    yield from bodies.prove()


async def _crowded(scene: Scene, upstream: StillUpstream) -> list[Finding]:
    settings = {"CASHU_MINTS": scene.mint.url, "UPSTREAM_BASE_URL": upstream.api_url("whole")}
    settings |= {"LOG_LEVEL": "WARNING", "OVERLOAD_DELAY_S": str(DELAY_S)}
    with LoneNode(scene.home / "crowded", settings=settings) as node:
        async with scene.customer(node, funds_sat=FUNDS_SAT + 50) as customer:
            await customer.open_key(FUNDS_SAT)
            findings = list(_crowds(node, customer.key))
            await audit(node)
    return findings


def _crowds(node: LoneNode, key: str) -> Iterator[Finding]:
    load(node.port, key, seconds=WARM_S, connections=PEAK_CONNECTIONS)
    peak = load(node.port, key, seconds=PEAK_S, connections=PEAK_CONNECTIONS)
    if not peak.per_s:
        raise FellShort(f"nothing was served: {peak}")
    for connections in CROWDS:
        came = load(node.port, key, seconds=CROWD_S, connections=connections)
        yield _finding(f"{connections:,} customers who never wait", came, node, _peak(node, key))
    rate = round(TIMES * peak.per_s)
    came = load(node.port, key, seconds=CROWD_S, rate=rate, new=True)
    what = f"{rate:,} requests a second, each on a new connection"
    yield _finding(what, came, node, _peak(node, key), name="goodput_percent")


def _peak(node: LoneNode, key: str) -> float:
    """What it serves right after: other work on the machine counts on both sides."""
    return load(node.port, key, seconds=PEAK_S / 2, connections=PEAK_CONNECTIONS).per_s


def _finding(
    what: str, came: Came, node: LoneNode, peak_per_s: float, *, name: str = ""
) -> Finding:
    share = came.per_s / peak_per_s if peak_per_s else 0.0
    is_told_at_once = (came.refused_p50_ms or 0) <= REFUSED_MS_MAX
    percent = round(100 * share)
    return Finding(
        what=what,
        found=f"{came.per_s:.0f} a second are {percent} % of the peak of {peak_per_s:.0f}, "
        f"p99 {came.p99_ms} ms; {came.refused:,} refused in {came.refused_p50_ms} ms "
        f"(p99 {came.refused_p99_ms}), {came.other} failed, {came.unanswered:,} unanswered, "
        f"{mib_of(node.process.pid):.0f} MiB",
        must=f"{GOODPUT_MIN:.0%} of the peak, refusals at once, none failed",
        ok=share >= GOODPUT_MIN and is_told_at_once and not came.other,
        figures={name: percent} if name else {},
    )
