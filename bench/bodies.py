"""400 kB of anything: how long it keeps the event loop from its other work.

A clock ticks on the loop each millisecond while such bodies are judged as the node judges them.
What counts is how long this process worked between two ticks (its CPU time, all threads), the best
of a few tries: it is the node that is measured, and not what else the machine does.
"""

import asyncio
import gc
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from itertools import pairwise
from typing import Final

import uvloop

from bench.finding import Finding
from routstr.__main__ import GC_THRESHOLDS
from routstr.core.dialects import CHAT, DIALECTS
from routstr.errors import RoutstrError
from routstr.flows.long_bodies import LongBodies, takes_long

BYTES: Final = 400_000
STALL_MS_MAX: Final = 20.0
TICK_S: Final = 0.001
TRIES: Final = 5
BETWEEN_S: Final = 0.02

HEAD: Final = '{"model":"demo/small","messages":[{"role":"user","content":"a"}],"metadata":{"a":['


def _filled(head: str, unit: str, tail: str) -> bytes:
    return (head + ",".join([unit] * (BYTES // (len(unit) + 1))) + tail).encode()


def _chat(content: object) -> bytes:
    return json.dumps(
        {"model": "demo/small", "messages": [{"role": "user", "content": content}]}
    ).encode()


BODIES: Final[Mapping[str, bytes]] = {
    "one long text": _chat("word " * (BYTES // 5)),
    "one picture": _chat(
        [{"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * BYTES}}]
    ),
    "escapes": _chat('\n"' * (BYTES // 4)),
    "small messages": _filled(
        '{"model":"demo/small","messages":[', '{"role":"user","content":"a"}', "]}"
    ),
    "numbers": _filled(HEAD, "1", "]}}"),
    "long numbers": _filled(HEAD, "9" * 4_000, "]}}"),
    "empty texts": _filled(HEAD, '""', "]}}"),
    "empty lists": _filled(HEAD, "[]", "]}}"),
    "empty objects": _filled(HEAD, "{}", "]}}"),
    "deep lists": _filled(HEAD, "[" * 50 + "]" * 50, "]}}"),
    "many keys": _filled(HEAD, '{"a":1}', "]}}"),
    "a key given twice": _filled(HEAD, "1", ',{"a":1,"a":2}]}}'),
    "not whole": _filled(HEAD, "[]", "]"),
}


def prove() -> Iterator[Finding]:
    """One finding, with the worst of them."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        stalls_ms = {
            f"{name} ({path})": runner.run(_stall_ms(path, body))
            for path in (CHAT.path, "/responses", "/messages")
            for name, body in BODIES.items()
        }
    worst = max(stalls_ms, key=lambda name: stalls_ms[name])
    over = [f"{name}: {ms:.0f} ms" for name, ms in stalls_ms.items() if ms > STALL_MS_MAX]
    yield Finding(
        what=f"{len(stalls_ms)} bodies of 400 kB",
        found=f"the loop stands still for at most {stalls_ms[worst]:.0f} ms: {worst}",
        must=f"at most {STALL_MS_MAX:.0f} ms",
        ok=not over,
        figures={"stall_ms": round(stalls_ms[worst])},
        complaints=tuple(over),
    )


async def _stall_ms(path: str, body: bytes) -> float:
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)  # as the node does it
    bodies = LongBodies()
    return min([await _longest_s(bodies, path, body) for _ in range(TRIES)]) * 1_000


async def _longest_s(bodies: LongBodies, path: str, body: bytes) -> float:
    """The longest time between two ticks while the body is judged once."""
    loop = asyncio.get_running_loop()
    ticks = [time.process_time()]
    is_over = False

    def tick() -> None:
        ticks.append(time.process_time())
        if not is_over:
            loop.call_later(TICK_S, tick)

    tick()
    await asyncio.sleep(BETWEEN_S)
    del ticks[:-1]
    judge = partial(DIALECTS[path].parse, body, content_type="application/json", depth_max=64)
    with suppress(RoutstrError):  # judged, too
        await bodies.run(judge) if takes_long(body) else judge()
    await asyncio.sleep(2 * TICK_S)
    is_over = True
    return max(later - earlier for earlier, later in pairwise(ticks))
