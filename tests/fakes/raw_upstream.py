"""An upstream that says exactly the bytes it is given, whatever they mean.

    async with RawUpstream() as upstream:
        upstream.say(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok")
        upstream.say(b"HTTP/1.1 200 O", then=Then.RESET)

One answer for each request, in the order they were given; the last one is repeated.
"""

import asyncio
import contextlib
import socket
import ssl
import struct
from enum import Enum
from types import TracebackType
from typing import Self


class Then(Enum):
    """What follows an answer's bytes."""

    LISTEN = "listen"  # for the next request
    END = "end"  # FIN
    RESET = "reset"  # RST


class RawUpstream:
    """The server; `requests` are those that came whole, with the number of their connection."""

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[tuple[int, bytes]] = []
        self.connections = 0
        self.open_connections = 0
        self.bytes_sent = 0
        self._answers: list[tuple[bytes, Then]] = []
        self._tls = tls
        self._is_stopping = False
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
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

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    def say(self, *answers: bytes, then: Then = Then.LISTEN) -> None:
        """Forget what was not said yet, and say these from now on."""
        self._answers = [(answer, then) for answer in answers]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.open_connections += 1
        number = self.connections
        try:
            while True:
                self.requests.append((number, await _request(reader)))
                answer, then = self._answers[0]
                if len(self._answers) > 1:
                    self._answers.pop(0)
                for start in range(0, len(answer), 65_536):
                    writer.write(answer[start : start + 65_536])
                    await writer.drain()
                    self.bytes_sent = min(start + 65_536, len(answer))
                if then is Then.RESET:
                    with contextlib.suppress(OSError):
                        raw = writer.get_extra_info("socket")
                        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                if then is not Then.LISTEN:
                    return
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass  # the client left
        except asyncio.CancelledError:
            if not self._is_stopping:
                raise
        finally:
            self.open_connections -= 1
            self._tasks.discard(task)
            if self._is_stopping:
                writer.transport.abort()
            else:
                writer.close()


async def _request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
    return head + await reader.readexactly(int(length or b"0"))
