"""Ten thousand streams that began and then say nothing: what they keep, and whom they disturb.

Each has one event from the upstream and its hold renewed; another customer asks the node meanwhile.
Where a process may not open twice as many files, there are as many streams as it can, and what
10,000 would take is reckoned from them.
"""

import asyncio
import resource
import statistics
import time
from collections.abc import Iterator
from typing import Final, cast

import uvloop

from bench.finding import FellShort, Finding, require, stumbled
from bench.residence import LoneNode, mib_of
from bench.scene import Customer, Scene, at_rest, audit, open_scene, rows
from bench.still import EVENT, StillUpstream

STREAMS: Final = 10_000
SPARE_FILES: Final = 400
MIB_MAX: Final = 1_536
FUNDS_SAT: Final = 2_000_000
TOGETHER: Final = 50  # how many are opened at a time
OPEN_TIMEOUT_S: Final = 30.0
RENEW_S: Final = 20  # `HOLD_RENEW_S`: after that all have been renewed once
REST_S: Final = 30.0
POLL_S: Final = 0.2
ASKED: Final = 50
WHAT: Final = "idle streams"

BODY: Final = (
    b'{"model":"demo/small","messages":[{"role":"user","content":"Wait."}],"max_tokens":64,'
    b'"stream":true}'
)
HELD: Final = "SELECT count(*) FROM reservation WHERE state = 'held'"
RESERVED: Final = "SELECT coalesce(sum(reserved), 0) FROM apikey"


def prove() -> Iterator[Finding]:
    """One finding."""
    with (
        stumbled(WHAT) as failed,
        open_scene() as scene,
        StillUpstream(scene.home / "still") as upstream,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        yield runner.run(_hold_open(scene, upstream))
    yield from failed


def _how_many() -> int:
    """How many the node can carry: two connections each, within what a process may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return STREAMS if hard < 0 else min(STREAMS, (hard - SPARE_FILES) // 2)


async def _hold_open(scene: Scene, upstream: StillUpstream) -> Finding:
    count = _how_many()
    settings = {"CASHU_MINTS": scene.mint.url, "UPSTREAM_BASE_URL": upstream.api_url("first")}
    settings |= {"LOG_LEVEL": "WARNING", "OVERLOAD_DELAY_S": "10"}
    with LoneNode(scene.home / "streaming", settings=settings) as node:
        async with scene.customer(node, funds_sat=FUNDS_SAT + 50) as customer:
            await customer.open_key(FUNDS_SAT)
            listeners: list[_Listener] = []
            await _open(node, customer.key, TOGETHER, listeners)
            before_ms, before_mib = await _asked_ms(customer), mib_of(node.process.pid)
            await _open(node, customer.key, count - TOGETHER, listeners)
            await asyncio.sleep(RENEW_S + 5)
            open_mib, among_ms = mib_of(node.process.pid), await _asked_ms(customer)
            require("streams that are held", rows(node, HELD), [(count,)])
            require("streams that were cut", sum(each.is_cut for each in listeners), 0)
            for each in listeners:
                each.close()
            await _all_ended(node)
            await at_rest(node)
            await audit(node)
    each_kib = (open_mib - before_mib) * 1_024 / (count - TOGETHER)
    mib = open_mib + (STREAMS - count) * each_kib / 1_024
    return Finding(
        what=f"{count:,} {WHAT}",
        found=f"{open_mib:.0f} MiB resident, {each_kib:.0f} KiB a stream; {STREAMS:,} take "
        f"{mib:.0f} MiB; a balance in {before_ms:.1f} ms without, {among_ms:.1f} ms among them",
        must=f"{STREAMS:,} in less than {MIB_MAX} MiB, none cut, books whole",
        ok=mib < MIB_MAX,
        figures={
            "idle_streams": count,
            "idle_streams_mib": round(mib),
            "kib_per_stream": round(each_kib),
        },
    )


async def _all_ended(node: LoneNode) -> None:
    deadline_s = time.monotonic() + REST_S
    while rows(node, RESERVED) != [(0,)]:
        if time.monotonic() > deadline_s:
            raise FellShort(f"holds stay open: {rows(node, HELD)}")
        await asyncio.sleep(POLL_S)


async def _asked_ms(customer: Customer) -> float:
    """The median time of a question that reads the database."""
    times_s = []
    for _ in range(ASKED):
        begun_s = time.perf_counter()
        await customer.info()
        times_s.append(time.perf_counter() - begun_s)
    return 1_000 * statistics.median(times_s)


async def _open(node: LoneNode, key: str, count: int, listeners: list["_Listener"]) -> None:
    """Open so many more and wait for each one's first event."""
    for start in range(0, count, TOGETHER):
        some = min(TOGETHER, count - start)
        listeners += await asyncio.gather(*(_one(node.port, key) for _ in range(some)))


async def _one(port: int, key: str) -> "_Listener":
    loop = asyncio.get_running_loop()
    listener = _Listener(key, loop.create_future())
    await loop.create_connection(lambda: listener, "127.0.0.1", port)
    async with asyncio.timeout(OPEN_TIMEOUT_S):
        await listener.begun
    return listener


class _Listener(asyncio.Protocol):
    """A stream's client, as small as it can be."""

    def __init__(self, key: str, begun: "asyncio.Future[None]") -> None:
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: node\r\nAuthorization: Bearer {key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"
        )
        self._request = head.encode() + BODY
        self._transport: asyncio.Transport | None = None
        self._read = b""
        self.begun = begun
        self.is_cut = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own is no subclass
        self._transport.write(self._request)
        self._request = b""

    def data_received(self, data: bytes) -> None:
        if self.begun.done():
            return
        self._read += data
        if EVENT.strip() in self._read:
            self._read = b""
            self.begun.set_result(None)
        elif b" 200 " not in self._read[:20]:
            self.begun.set_exception(FellShort(self._read[:300].decode(errors="replace")))

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_cut = True
        if not self.begun.done():
            self.begun.set_exception(FellShort("the node hung up"))

    def close(self) -> None:
        """Leave."""
        if self._transport is not None:
            self._transport.close()
