"""A small real OpenAI-compatible server on 127.0.0.1 that does what it is told.

    async with FakeUpstream() as upstream:
        upstream.script(Script(chunks=5, fault=Fault.CUT, after=2), failure(429, retry_after=7))
        upstream.by_model["slow"] = Script(headers_gate=gate)
        … point the node at upstream.base_url …
        assert upstream.calls[0].json["model"] == "fake-model"
        await upstream.calls[0].closed_by_client()

An answer is the next one of `script(...)`, else `by_model[request's model]`, else
`upstream.default` (10 prompt and 5 completion tokens, "one two three"). Nothing here sleeps:
delays are `Gate`s which the test opens. `GET /v1/models` lists the models of `by_model`.
Speaks chat completions (JSON and SSE), completions, embeddings; other dialects by raw bytes.
"""

import asyncio
import contextlib
import gzip
import json
import socket
import ssl
import struct
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from tests.fakes.upstream_script import (
    MODEL,
    Fault,
    Script,
    bad_event,
    closing_events,
    content_events,
    error_event,
    json_body,
)

WAIT_S: Final = 10.0
_REASONS: Final = {200: "OK", 400: "Bad Request", 429: "Too Many Requests"}


@dataclass(slots=True, kw_only=True)
class Call:
    """One request as the upstream saw it, and how its answer ended."""

    method: str
    path: str
    headers: dict[str, str]  # names in lower case
    header_lines: list[tuple[str, str]]  # as sent, duplicates kept
    body: bytes
    connection: int  # numbered from 1: equal numbers mean a reused connection
    events_sent: int = 0
    is_answered: bool = False  # the whole answer was written
    client_left: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def json(self) -> dict[str, object]:
        """The request's body as JSON, {} if it is none."""
        try:
            value = json.loads(self.body or b"{}")
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}

    async def closed_by_client(self) -> None:
        """Wait until the client has closed this call's connection (TimeoutError after 10 s)."""
        async with asyncio.timeout(WAIT_S):
            await self.client_left.wait()


class FakeUpstream:
    """The server; `tls` makes it speak https."""

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        self.calls: list[Call] = []
        self.by_model: dict[str, Script] = {}
        self.default = Script()
        self.connections = 0
        self._queue: deque[Script] = deque()
        self._arrived = asyncio.Condition()
        self._tls = tls
        self._is_stopping = False
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._connection, "127.0.0.1", 0, ssl=self._tls, limit=2**20
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._is_stopping = True
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def base_url(self) -> str:
        """`http://127.0.0.1:<port>/v1`."""
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}/v1"

    def script(self, *answers: Script) -> None:
        """Queue the next answers, used once each, before `by_model` and `default`."""
        self._queue.extend(answers)

    async def called(self, times: int = 1) -> Call:
        """Wait for the `times`-th call since the start and return it (TimeoutError after 10 s)."""
        async with asyncio.timeout(WAIT_S), self._arrived:
            await self._arrived.wait_for(lambda: len(self.calls) >= times)
        return self.calls[times - 1]

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            await self._serve(reader, writer, self.connections)
            writer.close()
            async with asyncio.timeout(1):  # what was written still leaves, then FIN
                await writer.wait_closed()
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError, TimeoutError):
            pass  # the client left between two requests, or does not read
        except asyncio.CancelledError:
            if not self._is_stopping:
                raise
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
    ) -> None:
        first = b""
        while True:
            call = await _read_call(first, reader, number)
            if call is None:
                return
            script = self._script_for(call)
            self.calls.append(call)
            async with self._arrived:
                self._arrived.notify_all()
            answer = asyncio.create_task(_Answer(call, script, writer).send())
            leaving = asyncio.create_task(_next_byte(reader))
            try:
                await asyncio.wait({answer, leaving}, return_when=asyncio.FIRST_COMPLETED)
                if leaving.done() and not leaving.result():
                    call.client_left.set()
                    return
                if not await answer:
                    return
                first = await leaving
                if not first:
                    call.client_left.set()
                    return
            finally:
                for task in (answer, leaving):
                    task.cancel()
                await asyncio.gather(answer, leaving, return_exceptions=True)

    def _script_for(self, call: Call) -> Script:
        if call.method == "GET" and call.path.endswith("/models"):
            names = [MODEL, *self.by_model]
            data = [
                {"id": name, "object": "model", "created": 0, "owned_by": "x"} for name in names
            ]
            return Script(body=json.dumps({"object": "list", "data": data}).encode())
        if self._queue:
            return self._queue.popleft()
        return self.by_model.get(str(call.json.get("model")), self.default)


class _Answer:
    """One script being played to one connection; `send` says whether the connection lives on."""

    def __init__(self, call: Call, script: Script, writer: asyncio.StreamWriter) -> None:
        self._call = call
        self._script = script
        self._writer = writer

    async def send(self) -> bool:
        script = self._script
        if script.headers_gate is not None:
            await script.headers_gate.passage()
        match script.fault:
            case Fault.RESET_BEFORE_HEADERS:
                return self._reset()
            case Fault.CLOSE_BEFORE_HEADERS:
                return self._close()
            case Fault.SILENCE:
                return await self._silence()
            case Fault.HALF_HEADERS:
                await self._write(b"HTTP/1.1 200 OK\r\nContent-Ty")
                return await self._silence()
            case Fault.NOT_HTTP:
                await self._write(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
                return self._close()
        streams = self._call.json.get("stream") is True and script.body is None
        alive = await (self._stream() if streams else self._json())
        self._call.is_answered = alive
        if script.until_close and alive:
            return self._close()
        return alive

    async def _json(self) -> bool:
        script = self._script
        body = json_body(script, self._call.path, self._call.json)
        if script.gzip:
            body = gzip.compress(body)
        promised = len(body) + (script.content_length_extra or 0)
        length = {} if script.until_close else {"Content-Length": str(promised)}
        await self._head({"Content-Type": "application/json", **length})
        if script.gate is not None:
            await script.gate.passage()
        if script.fault in (Fault.CUT, Fault.RESET, Fault.STALL):
            await self._write(body[: len(body) // 2])
            return await self._fault()
        await self._write(body)
        return self._close() if script.content_length_extra else True

    async def _stream(self) -> bool:
        script, request = self._script, self._call.json
        framing = {} if script.until_close else {"Transfer-Encoding": "chunked"}
        await self._head({"Content-Type": "text/event-stream; charset=utf-8", **framing})
        content = content_events(script, request)
        for index in range(len(content) + 1):
            if script.fault is not Fault.NONE and index == min(script.after, len(content)):
                if script.fault is Fault.ERROR_EVENT:
                    await self._event(error_event())
                    break
                if script.fault is not Fault.BAD_EVENT:
                    return await self._fault()
                await self._event(bad_event())
            if index < len(content):
                await self._event(content[index])
                self._call.events_sent += 1
        else:
            for event in closing_events(script, request):
                await self._event(event)
        if not script.until_close:
            await self._write(b"0\r\n\r\n")
        return True

    async def _fault(self) -> bool:
        if self._script.fault_gate is not None:
            await self._script.fault_gate.passage()
        match self._script.fault:
            case Fault.RESET:
                return self._reset()
            case Fault.STALL:
                return await self._silence()
            case Fault.BAD_CHUNKING:
                await self._write(b"zz\r\nnot a chunk\r\n")
                return await self._silence()
        return self._close()

    async def _head(self, framing: Mapping[str, str]) -> None:
        script = self._script
        headers = {
            **framing,
            "openai-processing-ms": "42",
            "openai-organization": "org-operator",
            "Set-Cookie": "session=upstream",
            "x-request-id": "upstream-request-id",
            **script.headers,
        }
        if script.gzip:
            headers["Content-Encoding"] = "gzip"
        if script.retry_after is not None:
            headers["Retry-After"] = script.retry_after
        if script.until_close:
            headers["Connection"] = "close"
        lines = [f"HTTP/1.1 {script.status} {_REASONS.get(script.status, 'Scripted')}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        await self._write("\r\n".join([*lines, "", ""]).encode("latin-1"))

    async def _event(self, event: bytes) -> None:
        script = self._script
        if script.gate is not None:
            await script.gate.passage()
        size = script.slice_bytes or len(event)
        for start in range(0, len(event), size):
            piece = event[start : start + size]
            framed = piece if script.until_close else b"%x\r\n%b\r\n" % (len(piece), piece)
            await self._write(framed)

    async def _write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def _silence(self) -> bool:
        await asyncio.Event().wait()  # ends when the client leaves or the server stops
        return False

    def _close(self) -> bool:
        self._writer.close()
        return False

    def _reset(self) -> bool:
        raw = self._writer.get_extra_info("socket")
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()
        return False


async def _next_byte(reader: asyncio.StreamReader) -> bytes:
    """The first byte of the next request, or b"" when the client is gone."""
    try:
        return await reader.read(1)
    except (ConnectionError, ssl.SSLError):
        return b""


async def _read_call(first: bytes, reader: asyncio.StreamReader, number: int) -> Call | None:
    """One request with a Content-Length, or None at the end of the connection."""
    try:
        head = first + await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    start, *lines = head.decode("latin-1").split("\r\n")[:-2]
    pairs = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    headers = {name.lower(): value for name, value in pairs}
    method, path, _ = start.split(" ", 2)
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Call(
        method=method, path=path, headers=headers, header_lines=pairs, body=body, connection=number
    )
