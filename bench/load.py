"""Load for a node, from a process of its own: as fast as it answers, or as fast as told.

    python -m bench.load --port 8000 --key sk-… --seconds 10 --connections 64
    python -m bench.load … --rate 500                  each second so many, on those connections
    python -m bench.load … --rate 5000 --new           … each on a connection of its own

Prints one JSON object: how many answers of each status came, how many requests were never
answered, and the median and the 99th percentile of the time to an answer with 200, in ms.
"""

import argparse
import asyncio
import json
import re
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

import uvloop

from demo.process import ROOT

LENGTH: Final = re.compile(rb"content-length: *([0-9]+)", re.IGNORECASE)
TICK_S: Final = 0.01
REST_S: Final = 5.0  # how long after the last request an answer may come
OPEN_MAX: Final = 8_000
SPARE_S: Final = 60

BODY: Final = (
    b'{"model":"demo/small","messages":[{"role":"user","content":"Say hello to everybody in this '
    b'room, please."}],"max_tokens":64}'
)


@dataclass(slots=True)
class Told:
    """What came of it."""

    statuses: Counter[int] = field(default_factory=Counter)
    times_s: list[float] = field(default_factory=list)
    refused_s: list[float] = field(default_factory=list)
    sent: int = 0


class Caller(asyncio.Protocol):
    """One connection: a request, its answer, and then `idle` is told."""

    def __init__(self, load: "Load") -> None:
        self._load = load
        self._read = b""
        self._since_s: float | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's own is no subclass
        self._load.idle(self)

    def ask(self, since_s: float) -> None:
        """Send the request, due at `since_s`."""
        assert self.transport is not None
        self._load.told.sent += 1
        self._since_s = since_s
        self.transport.write(self._load.request)

    def data_received(self, data: bytes) -> None:
        self._read += data
        end = self._read.find(b"\r\n\r\n")
        if end < 0:
            return
        found = LENGTH.search(self._read, 0, end)
        if found is None or len(self._read) < end + 4 + int(found[1]):
            return
        assert self._since_s is not None
        took_s = self._load.loop.time() - self._since_s
        status = int(self._read[9:12])
        self._load.told.statuses[status] += 1
        (self._load.told.times_s if status == 200 else self._load.told.refused_s).append(took_s)
        self._read, self._since_s = b"", None
        self._load.idle(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.lost(self)


class Load:
    """All of it."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.loop = asyncio.get_running_loop()
        self.told = Told()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: node\r\nAuthorization: Bearer "
            f"{options.key}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(BODY)}\r\n\r\n"
        )
        self.request = head.encode() + BODY
        self._port = options.port
        self._rate = options.rate
        self._is_new = options.new
        self._connections = options.connections
        self._free: deque[Caller] = deque()
        self._due: deque[float] = deque()
        self._open: set[Caller] = set()
        self._opening: set[asyncio.Task[Any]] = set()
        self._until_s = self.loop.time() + options.seconds
        self.unopened = 0

    async def run(self) -> None:
        if not self._is_new:
            await asyncio.gather(*(self._connect() for _ in range(self._connections)))
        begun_s, due = self.loop.time(), 0
        while (now_s := self.loop.time()) < self._until_s:
            if self._rate:
                wanted = int((now_s - begun_s) * self._rate)
                for number in range(due, wanted):
                    self._one_due(begun_s + number / self._rate)
                due = wanted
            await asyncio.sleep(TICK_S)
        for _ in range(int(REST_S / TICK_S)):
            if self.told.sent <= self.told.statuses.total():
                return
            await asyncio.sleep(TICK_S)

    def _one_due(self, at_s: float) -> None:
        if self._is_new:
            if len(self._open) + len(self._opening) >= OPEN_MAX:
                self.unopened += 1
                return
            self._due.append(at_s)
            task = self.loop.create_task(self._connect())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)
        elif self._free:
            self._free.popleft().ask(at_s)
        else:
            self._due.append(at_s)

    async def _connect(self) -> None:
        try:
            await self.loop.create_connection(lambda: Caller(self), "127.0.0.1", self._port)
        except OSError:
            self.unopened += 1

    def idle(self, caller: Caller) -> None:
        """It has no request under way."""
        is_first = caller not in self._open
        self._open.add(caller)
        now_s = self.loop.time()
        if self._is_new and not is_first:
            assert caller.transport is not None
            caller.transport.close()
        elif now_s >= self._until_s:
            return
        elif not self._rate:
            caller.ask(now_s)
        elif self._due:
            caller.ask(self._due.popleft())
        else:
            self._free.append(caller)

    def lost(self, caller: Caller) -> None:
        """Its connection is gone."""
        self._open.discard(caller)
        if caller in self._free:
            self._free.remove(caller)
        if not self._is_new and self.loop.time() < self._until_s:
            self._opening.add(self.loop.create_task(self._connect()))


def _at(times_s: Sequence[float], share: float) -> float | None:
    ordered = sorted(times_s)
    return round(1_000 * ordered[int(share * (len(ordered) - 1))], 1) if ordered else None


async def _main(options: argparse.Namespace) -> dict[str, Any]:
    load = Load(options)
    await load.run()
    told = load.told
    return {
        "statuses": {str(status): count for status, count in told.statuses.items()},
        "unanswered": told.sent - told.statuses.total() + load.unopened,
        "per_s": round(told.statuses[200] / options.seconds, 1),
        "p50_ms": _at(told.times_s, 0.5),
        "p99_ms": _at(told.times_s, 0.99),
        "refused_p50_ms": _at(told.refused_s, 0.5),
        "refused_p99_ms": _at(told.refused_s, 0.99),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Came:
    """What a load came to, as its process told."""

    statuses: dict[str, int]
    unanswered: int
    per_s: float
    p50_ms: float | None
    p99_ms: float | None
    refused_p50_ms: float | None
    refused_p99_ms: float | None

    @property
    def refused(self) -> int:
        """How many got 429 or 503."""
        return self.statuses.get("429", 0) + self.statuses.get("503", 0)

    @property
    def other(self) -> int:
        """How many came to anything that is neither an answer nor a refusal."""
        return sum(self.statuses.values()) - self.statuses.get("200", 0) - self.refused


def load(
    port: int,
    key: str,
    *,
    seconds: float,
    connections: int = 64,
    rate: int = 0,
    new: bool = False,
) -> Came:
    """Load a node from another process and wait for the end."""
    argv = [
        sys.executable, "-m", "bench.load", "--port", str(port), "--key", key,
        "--seconds", str(seconds), "--connections", str(connections), "--rate", str(rate),
        *(["--new"] if new else []),
    ]  # fmt: skip
    done = subprocess.run(
        argv, cwd=ROOT, capture_output=True, text=True, timeout=seconds + SPARE_S, check=True
    )
    return Came(**json.loads(done.stdout))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--rate", type=int, default=0)
    parser.add_argument("--new", action="store_true")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(_main(parser.parse_args()))))
