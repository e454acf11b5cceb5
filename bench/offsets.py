"""A client that disconnects at every byte of a stream's answer, one client for each byte."""

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from typing import Final

import httpx

from bench.finding import FellShort, Finding, require, stumbled
from bench.scene import Customer, Scene, at_rest, audit, open_scene, rows
from tests.harness.process import NodeProcess

MODEL: Final = "demo/small"
WORDS: Final = 12
WORD_DELAY_MS: Final = 60
AT_ONCE: Final = 50
KEY_SAT: Final = 20_000
SETTLED_S_MAX: Final = 5
CLOSED_S_MAX: Final = 1
POLL_S: Final = 0.02
WAIT_S: Final = 15
WHAT: Final = "a client leaves at every byte of a stream"
UNCHARGED: Final = "SELECT count(*) FROM reservation WHERE state = 'held'"
CHARGES: Final = """
SELECT count(*), sum(-t.amount > r.quote_amount)
FROM "transaction" t JOIN reservation r ON 'end:' || r.id = t.operation_id WHERE t.type = 'usage'
"""


def prove() -> Iterator[Finding]:
    """One finding."""
    options = ("--answer-words", str(WORDS), "--chunk-delay-ms", str(WORD_DELAY_MS))
    with stumbled(WHAT) as failed, open_scene(upstream_options=options) as scene:
        yield asyncio.run(_leave_everywhere(scene))
    yield from failed


async def _leave_everywhere(scene: Scene) -> Finding:
    with scene.node({"EARLY_LEAVES_MAX": "1000000"}) as node:
        async with scene.customer(node, funds_sat=KEY_SAT + 50) as customer:
            await customer.open_key(KEY_SAT)
            whole = await _read(node, customer, None)
            offsets = range(whole)
            closed_s = settled_s = 0.0
            for start in range(0, whole, AT_ONCE):
                batch = offsets[start : start + AT_ONCE]
                seconds = await _leave_at(scene, node, customer, batch)
                closed_s, settled_s = max(closed_s, seconds[0]), max(settled_s, seconds[1])
            await at_rest(node)
            ended, above_quote = rows(node, CHARGES)[0]
            require("how many requests have ended", ended, whole + 1)
            await audit(node)
    return Finding(
        what=f"{WHAT} ({whole:,})",
        found=f"settled in {settled_s:.2f} s, upstream closed in {closed_s:.2f} s",
        must=f"{SETTLED_S_MAX} s, {CLOSED_S_MAX} s",
        ok=settled_s <= SETTLED_S_MAX and closed_s <= CLOSED_S_MAX and not above_quote,
        figures={
            "settled_s": f"{settled_s:.2f}",
            "upstream_closed_s": f"{closed_s:.2f}",
            "unsettled": 0,
            "above_quote": above_quote,
        },
    )


async def _leave_at(
    scene: Scene, node: NodeProcess, customer: Customer, offsets: Sequence[int]
) -> tuple[float, float]:
    """Seconds from the last leave until the upstream was let go, and until all was settled."""
    await asyncio.gather(*(_read(node, customer, offset) for offset in offsets))
    left_s = time.monotonic()
    async with httpx.AsyncClient(base_url=scene.upstream.url, trust_env=False) as http:
        while not await _is_let_go(http):
            await _pause(left_s, "an upstream connection stays open")
    closed_s = time.monotonic() - left_s
    while rows(node, UNCHARGED)[0][0]:
        await _pause(left_s, "a request is not settled")
    return closed_s, time.monotonic() - left_s


async def _is_let_go(http: httpx.AsyncClient) -> bool:
    """Whether every stream that was begun upstream has ended."""
    stats = (await http.get("/stats")).json()
    return bool(stats["requests"] == stats["streams_whole"] + stats["streams_cut"])


async def _pause(left_s: float, otherwise: str) -> None:
    if time.monotonic() - left_s > WAIT_S:
        raise FellShort(f"{otherwise} after {WAIT_S} s")
    await asyncio.sleep(POLL_S)


async def _read(node: NodeProcess, customer: Customer, bytes_wanted: int | None) -> int:
    """Read so many bytes of an answer, its head included, and hang up; None reads to the end."""
    body = json.dumps(
        {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": "Go on"}]}
    )
    url = httpx.URL(node.url)
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {url.host}\r\nConnection: close\r\n"
        f"Authorization: Bearer {customer.key}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection(url.host, url.port)
    try:
        writer.write((head + body).encode())
        await writer.drain()
        if bytes_wanted is None:
            return len(await reader.read(-1))
        if bytes_wanted:
            await reader.readexactly(bytes_wanted)
    except asyncio.IncompleteReadError as error:
        raise FellShort(f"the answer ended after {len(error.partial)} bytes") from error
    finally:
        writer.transport.abort()
    return 0
