"""Heads that are too long, too slow or too many, sent by hand over a socket."""

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest
from fastapi import FastAPI, Request, Response

from routstr.web.head import PIECE_BYTES, PIPELINED_MAX, Refuse, bounded_head
from tests.harness.process import StartNode
from tests.harness.shop import serving
from tests.test_cli import GOOD

WAIT_S: Final = 5
BYTES_MAX: Final = 100_000
LINES_MAX: Final = 10
SHORT_S: Final = 0.2
MIB: Final = 1024 * 1024

GET: Final = b"GET /first HTTP/1.1\r\nhost: node\r\n\r\n"
CHUNKED: Final = b"POST /size HTTP/1.1\r\nhost: node\r\ntransfer-encoding: chunked\r\n\r\n"


class Wire:
    """A connection, and the requests' gate: `/held` answers once it is opened."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.gate = asyncio.Event()
        self.held = asyncio.Event()
        self.lost = asyncio.Event()  # the node's side

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def answer(self) -> tuple[int, bytes]:
        """The next one: its status and its body."""
        async with asyncio.timeout(WAIT_S):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
            length = re.search(r"content-length: (\d+)", head)
            assert length is not None, head
            body = await self._reader.readexactly(int(length[1]))
        return int(head.split()[1]), body

    async def rest(self) -> bytes:
        """What comes until the node closes the connection."""
        async with asyncio.timeout(WAIT_S):
            try:
                return await self._reader.read()
            except ConnectionError:  # it closed with bytes unread
                return b""


@asynccontextmanager
async def wired(
    *, timeout_s: float = WAIT_S * 2, stall_s: float = WAIT_S * 2, refusal: Refuse | None = None
) -> AsyncIterator[Wire]:
    """A connection to an app that says what it got, behind the protocol with these bounds."""
    app = FastAPI(openapi_url=None)
    protocol = bounded_head(
        bytes_max=BYTES_MAX,
        lines_max=LINES_MAX,
        timeout_s=timeout_s,
        stall_s=lambda: stall_s,
        refusal=refusal,
    )

    class Told(protocol):  # type: ignore[misc, valid-type]  # made just now
        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            wire.lost.set()

    async with serving(app, http=Told) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        wire = Wire(reader, writer)

        @app.get("/long")
        async def long() -> Response:
            return Response(b"a" * (64 * MIB))

        @app.get("/held")
        async def held() -> str:
            wire.held.set()
            await wire.gate.wait()
            return "held"

        @app.post("/size")
        async def size(request: Request) -> list[object]:
            body = await request.body()
            return [len(body), request.headers.get("x-late")]

        @app.get("/headers")
        async def headers(request: Request) -> int:
            return len(request.headers.raw)

        @app.get("/{name}")
        async def named(name: str) -> str:
            return name

        try:
            yield wire
        finally:
            writer.close()


def padded(head_bytes: int) -> bytes:
    """A whole head that long."""
    frame = b"GET /first HTTP/1.1\r\nx-long: \r\n\r\n"
    return frame.replace(b": ", b": " + b"a" * (head_bytes - len(frame)))


# ── length ────────────────────────────────────────────────────────────────────────────────────


async def test_a_head_may_be_as_long_as_the_bound_and_no_longer() -> None:
    async with wired() as wire:
        for _ in range(2):
            wire.send(padded(BYTES_MAX))
            assert await wire.answer() == (200, b'"first"')
        wire.send(padded(BYTES_MAX + 1)[:BYTES_MAX])
        assert (await wire.answer())[0] == 400
        assert await wire.rest() == b""


async def test_a_head_that_begins_behind_a_body_is_bounded_too() -> None:
    body = b"POST /size HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc"
    async with wired() as wire:
        wire.send(body + padded(BYTES_MAX))
        assert await wire.answer() == (200, b"[3,null]")
        assert await wire.answer() == (200, b'"first"')
        wire.send(body + padded(BYTES_MAX + PIECE_BYTES + 1))
        assert b'"first"' not in await wire.rest()


async def test_of_too_many_headers_one_is_kept() -> None:
    async with wired() as wire:
        for count in (LINES_MAX, LINES_MAX + 1, LINES_MAX + 100):
            wire.send(b"GET /headers HTTP/1.1\r\n" + b"a: b\r\n" * count + b"\r\n")
            assert await wire.answer() == (200, b"%d" % min(count, LINES_MAX + 1))


async def test_trailers_are_dropped_and_bounded() -> None:
    last = b"5\r\nhello\r\n0\r\n"
    async with wired() as wire:
        wire.send(CHUNKED + last + b"x-late: yes\r\n\r\n" + GET)
        assert await wire.answer() == (200, b"[5,null]")
        assert await wire.answer() == (200, b'"first"')
        wire.send(CHUNKED + last + b"x-late: " + b"a" * (BYTES_MAX + PIECE_BYTES))
        assert b"200" not in await wire.rest()


async def test_a_long_body_is_not_a_head() -> None:
    async with wired() as wire:
        chunk = b"%x\r\n%b\r\n" % (BYTES_MAX, b"a" * BYTES_MAX)
        wire.send(CHUNKED + chunk * 3 + b"0\r\n\r\n")
        assert await wire.answer() == (200, b"[%d,null]" % (3 * BYTES_MAX))
        wire.send(b"POST /size HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % MIB + b"a" * MIB + GET)
        assert await wire.answer() == (200, b"[%d,null]" % MIB)
        assert await wire.answer() == (200, b'"first"')


# ── time ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("begun", [b"", b"\r\n", GET[:-1]])
async def test_a_connection_without_a_whole_head_is_closed(begun: bytes) -> None:
    async with wired(timeout_s=SHORT_S) as wire:
        wire.send(begun)
        assert await wire.rest() == b""


@pytest.mark.parametrize("begun", [b"\r\n", GET[:-1]])
async def test_so_is_one_that_had_a_whole_head_before(begun: bytes) -> None:
    async with wired(timeout_s=SHORT_S) as wire:
        wire.send(GET)
        assert await wire.answer() == (200, b'"first"')
        wire.send(begun)
        assert await wire.rest() == b""


async def test_more_bytes_give_no_more_time() -> None:
    async with wired(timeout_s=SHORT_S) as wire:
        closing = asyncio.create_task(wire.rest())
        wire.send(GET[:-2])
        async with asyncio.timeout(WAIT_S):
            while not closing.done():
                wire.send(b"a")
                await asyncio.wait([closing], timeout=SHORT_S / 4)
        assert b"200" not in closing.result()


async def test_a_head_behind_a_long_answer_has_its_time_after_it() -> None:
    async with wired(timeout_s=SHORT_S) as wire:
        wire.send(b"GET /held HTTP/1.1\r\n\r\n" + GET[:-1])
        await wire.held.wait()
        await passing(SHORT_S * 1.5)
        wire.gate.set()
        assert await wire.answer() == (200, b'"held"')
        assert await wire.rest() == b""


@pytest.mark.parametrize("more", [b"", b"a"])
async def test_the_rest_of_a_body_that_was_answered_is_not_waited_for_long(more: bytes) -> None:
    async with wired(timeout_s=SHORT_S) as wire:
        wire.send(b"POST /missing HTTP/1.1\r\ncontent-length: 1000\r\n\r\n")
        assert (await wire.answer())[0] == 405
        wire.send(more)
        assert await wire.rest() == b""


async def test_who_reads_nothing_is_not_waited_for_long() -> None:
    async with wired(stall_s=SHORT_S) as wire:
        wire.send(b"GET /long HTTP/1.1\r\n\r\n")  # more than fits between the two
        async with asyncio.timeout(WAIT_S):
            await wire.lost.wait()


async def test_a_pause_between_requests_may_be_longer() -> None:
    async with wired(timeout_s=SHORT_S) as wire:
        for _ in range(2):
            wire.send(GET[:7])
            wire.send(GET[7:])
            assert await wire.answer() == (200, b'"first"')
            await passing(SHORT_S * 1.5)


async def passing(seconds: float) -> None:
    """That time passes on the loop's own clock, which the node's time-out runs on."""
    passed = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, passed.set)
    await passed.wait()


# ── pipelining ────────────────────────────────────────────────────────────────────────────────


async def test_pipelined_requests_are_answered_in_order() -> None:
    names = [b"n%d" % number for number in range(PIPELINED_MAX + 1)]
    async with wired() as wire:
        wire.send(b"".join(b"GET /%b HTTP/1.1\r\n\r\n" % name for name in names))
        for name in names:
            assert await wire.answer() == (200, b'"%b"' % name)


async def test_too_many_of_them_end_the_connection() -> None:
    async with wired() as wire:
        wire.send(b"GET /held HTTP/1.1\r\n\r\n" + GET * (PIPELINED_MAX + 1))
        assert await wire.rest() == b""


async def test_a_refusal_is_not_written_into_another_answer() -> None:
    async with wired() as wire:
        wire.send(b"GET /held HTTP/1.1\r\n\r\n")
        await wire.held.wait()
        wire.send(b"nonsense\r\n\r\n")
        assert await wire.rest() == b""


async def test_refusals_that_nobody_reads_do_not_pile_up() -> None:
    asked, refused = b"GET /first HTTP/1.1\r\nx-again: 1\r\n\r\n", 0

    def refuse(data: bytes, _: object) -> bytes | None:
        nonlocal refused
        refused += data == asked
        return b"HTTP/1.1 503 Busy\r\ncontent-length: %d\r\n\r\n" % MIB + b"a" * MIB

    async with wired(refusal=refuse) as wire:
        for _ in range(200):
            wire.send(asked)
            for _ in range(5):  # a request each in the node's eyes
                await asyncio.sleep(0)
        assert 0 < refused < 50


async def test_a_refusal_that_says_it_is_the_last_is_the_last() -> None:
    said = b"HTTP/1.1 503 Busy\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    async with wired(refusal=lambda *_: said) as wire:
        wire.send(GET)
        assert await wire.rest() == said


# ── the node itself ───────────────────────────────────────────────────────────────────────────


def test_a_node_keeps_neither_long_nor_slow_heads(start_node: StartNode) -> None:
    node = start_node(GOOD | {"HEAD_TIMEOUT_S": "0.5"})
    before = peak_bytes(node.process.pid)
    for begun in (b"GET /health HTTP/1.1\r\nx-long: ", CHUNKED + b"0\r\nx-long: "):
        with connected(node.port) as wire:
            wire.sendall(begun)
            with pytest.raises(ConnectionError):
                wire.sendall(b"a" * (128 * MIB))
    assert peak_bytes(node.process.pid) - before < 64 * MIB  # most of it the start's own jobs
    with connected(node.port) as wire:
        wire.sendall(b"GET /health HTTP/1.1\r\n")
        assert wire.recv(1) == b""
    with connected(node.port) as wire:
        query = b"initial_balance_token=" + b"a" * 65_000
        headers = b"".join(b"x-%d: %b\r\n" % (n, b"a" * 8_000) for n in range(4))
        wire.sendall(b"GET /health?%b HTTP/1.1\r\nhost: node\r\n%b\r\n" % (query, headers))
        assert wire.recv(12) == b"HTTP/1.1 200"


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=WAIT_S)


def peak_bytes(pid: int) -> int:
    """The most memory a process ever had."""
    status = Path(f"/proc/{pid}/status").read_text()
    peak = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert peak is not None
    return int(peak[1]) * 1024
