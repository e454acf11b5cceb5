"""Streamed answers under load: when the first event comes, how many come, how regularly.

wrk cannot look into a stream, so this is a client of our own, as lean as Python allows: one asyncio
protocol a connection on uvloop, which counts bytes of events and parses nothing else. Every
connection has a stream open all the time; they begin spread over one stream's length, since
strangers do not come in step. A stream that ends otherwise than whole counts as failed.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, cast
from urllib.parse import urlsplit

import uvloop

from bench.throughput.nginx import EVENT_EVERY_S, EVENTS
from bench.throughput.wrk import Target

EVENT: Final = b"data: "
DONE: Final = b"[DONE]"
END: Final = b"0\r\n\r\n"
OK: Final = b"HTTP/1.1 200"
STREAM_S: Final = EVENTS * EVENT_EVERY_S
SILENT_S: Final = 30  # after so long a stream counts as failed
KEPT_BYTES: Final = 16  # of the last read, for marks that are cut in two


@dataclass(slots=True, kw_only=True)
class StreamLoad:
    """What the client saw so far: milliseconds of the whole streams, their events, and failures."""

    first_ms: list[float] = field(default_factory=list)
    total_ms: list[float] = field(default_factory=list)
    events: int = 0
    failed: int = 0

    @property
    def streams(self) -> int:
        """How many came whole."""
        return len(self.total_ms)

    def percentile(self, values: Sequence[float], percent: int) -> float:
        """The value that so many of a hundred do not exceed; 0 if there is none."""
        ordered = sorted(values)
        return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] if ordered else 0.0


class Reader(asyncio.Protocol):
    """One connection; `ask` sends a request and returns once its answer has ended."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._ended: asyncio.Future[None] | None = None
        self._tail = b""
        self.first_s = 0.0
        self.events = 0
        self.is_ok = False
        self.is_whole = False
        self.is_lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        self._end()

    def data_received(self, data: bytes) -> None:
        if not self._tail:
            self.is_ok = data.startswith(OK)
        joined = self._tail + data
        found = joined.count(EVENT) - self._tail.count(EVENT)
        if found and not self.events:
            self.first_s = time.perf_counter()
        self.events += found
        self.is_whole = self.is_whole or DONE in joined
        self._tail = joined[-KEPT_BYTES:]
        if joined.endswith(END):
            self._end()

    async def ask(self, request: bytes) -> float:
        """When the request went out, on the performance counter."""
        assert self._transport is not None
        self._ended = asyncio.get_running_loop().create_future()
        self._tail, self.events, self.first_s = b"", 0, 0.0
        self.is_ok, self.is_whole = False, False
        asked_s = time.perf_counter()
        self._transport.write(request)
        async with asyncio.timeout(SILENT_S):
            await self._ended
        return asked_s

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.close()

    def _end(self) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)


def run(target: Target, body: bytes, *, connections: int, seconds: float) -> StreamLoad:
    """Read streams for so long, from the core we are on; those that run are read to their end."""
    return uvloop.run(_run(target, body, connections, seconds))


async def _run(target: Target, body: bytes, connections: int, seconds: float) -> StreamLoad:
    load = StreamLoad()
    keys = [""] if target.keys_file is None else target.keys_file.read_text().split()
    until_s = time.perf_counter() + seconds
    async with asyncio.TaskGroup() as group:
        for number in range(connections):
            request = _request(target, body, keys[number % len(keys)])
            wait_s = STREAM_S * number / connections
            group.create_task(_read(target, request, load, wait_s=wait_s, until_s=until_s))
    return load


async def _read(
    target: Target, request: bytes, load: StreamLoad, *, wait_s: float, until_s: float
) -> None:
    """One connection's streams, one after the other; a lost connection is made again."""
    loop, place = asyncio.get_running_loop(), urlsplit(target.url)
    await asyncio.sleep(wait_s)
    reader: Reader | None = None
    while time.perf_counter() < until_s:
        if reader is None or reader.is_lost:
            _, reader = await loop.create_connection(Reader, place.hostname or "", place.port or 0)
        try:
            asked_s = await reader.ask(request)
        except TimeoutError:
            load.failed += 1
            reader.close()
            reader = None
            continue
        _note(load, reader, asked_s)
    if reader is not None:
        reader.close()


def _note(load: StreamLoad, reader: Reader, asked_s: float) -> None:
    load.events += reader.events
    if not (reader.is_ok and reader.is_whole):
        load.failed += 1
        return
    load.first_ms.append((reader.first_s - asked_s) * 1000)
    load.total_ms.append((time.perf_counter() - asked_s) * 1000)


def _request(target: Target, body: bytes, key: str) -> bytes:
    place = urlsplit(target.url)
    lines = [
        f"POST {place.path} HTTP/1.1",
        f"Host: {place.netloc}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *target.headers,
    ]
    if key:
        lines.append(f"Authorization: Bearer {key}")
    return "\r\n".join([*lines, "", ""]).encode() + body
