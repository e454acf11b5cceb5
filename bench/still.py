"""An upstream that costs nearly nothing: it answers at once, or begins to, or keeps silent.

    python -m bench.still --port 9000

Below `/whole/v1` every request gets the same JSON answer, below `/first/v1` a stream whose first
event comes at once and whose second never does, and below `/silent/v1` nothing at all.
"""

import argparse
import asyncio
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Final, cast

import uvloop

from demo.process import ROOT, Server
from demo.servers import PATH

LENGTH: Final = re.compile(rb"content-length: *([0-9]+)", re.IGNORECASE)
BACKLOG: Final = 16_384

ANSWER: Final = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"demo/small",'
    b'"choices":[{"index":0,"message":{"role":"assistant","content":"Hello to you all."},'
    b'"finish_reason":"stop"}],"usage":{"prompt_tokens":12,"completion_tokens":5,"total_tokens":17}}'
)
EVENT: Final = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,'
    b'"model":"demo/small","choices":[{"index":0,"delta":{"content":"Hello"},'
    b'"finish_reason":null}]}\n\n'
)
STATS: Final = b"GET /stats"
NOTHING: Final = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"  # it lists no models

WHOLE: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(ANSWER)
) + ANSWER
FIRST: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"%x\r\n%b\r\n" % (len(EVENT), EVENT)
)
ANSWERS: Final[Mapping[bytes, bytes]] = {b"/whole": WHOLE, b"/first": FIRST, b"/silent": b""}


class StillUpstream(Server):
    """The program below as a process."""

    ready_path = "/stats"

    def api_url(self, way: str) -> str:
        """What a node is given as UPSTREAM_BASE_URL; `way` is whole, first or silent."""
        return f"{self.url}/{way}/v1"

    def argv(self) -> Sequence[str]:
        return [sys.executable, "-m", "bench.still", "--port", str(self.port)]

    def environment(self) -> Mapping[str, str]:
        return {"PATH": PATH, "HOME": str(self.directory), "PYTHONPATH": str(ROOT)}


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._read = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own is no subclass

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        self._read += data
        while (end := self._read.find(b"\r\n\r\n")) >= 0:
            head = self._read[:end]
            found = LENGTH.search(head)
            end += 4 + (int(found[1]) if found else 0)
            if len(self._read) < end:
                return
            self._read = self._read[end:]
            way = b"/" + head.partition(b" /")[2].partition(b"/")[0]
            if head.startswith(b"GET"):
                self._transport.write(WHOLE if head.startswith(STATS) else NOTHING)
            else:
                self._transport.write(ANSWERS.get(way, WHOLE))


async def _serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Connection, "127.0.0.1", port, backlog=BACKLOG)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(parser.parse_args().port))
