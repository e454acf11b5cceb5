"""A pooler in front of PostgreSQL that gives sessions to many in turn, as far as LISTEN goes.

Everything passes but notices: whoever listens is answered, and never hears anything. Connections
must not ask for TLS.
"""

import asyncio
from types import TracebackType
from typing import Final, Self

NOTICE: Final = b"A"  # NotificationResponse
HEAD_BYTES: Final = 5  # a type, then a length that counts itself


class Pooler:
    """`swallowed` counts the notices that nobody got."""

    def __init__(self, host: str, port: int) -> None:
        self._server_at = (host, port)
        self.port = 0
        self.swallowed = 0
        self.stirred = asyncio.Event()
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def __aenter__(self) -> Self:
        self._door = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._door.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._door.close()
        for client in self._open.values():
            client.transport.abort()
        await asyncio.gather(*list(self._open))

    async def _serve(self, asks: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        serving = asyncio.current_task()
        assert serving is not None
        self._open[serving] = answers
        server, to_server = await asyncio.open_connection(*self._server_at)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(_pass_on(asks, to_server))
                both.create_task(self._filtered(server, answers))
        except* (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            del self._open[serving]
            for each in (answers, to_server):
                each.close()

    async def _filtered(self, server: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        while True:
            head = await server.readexactly(HEAD_BYTES)
            rest = await server.readexactly(int.from_bytes(head[1:]) - HEAD_BYTES + 1)
            if head[:1] == NOTICE:
                self.swallowed += 1
                self.stirred.set()
                continue
            client.write(head + rest)
            await client.drain()


async def _pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while data := await source.read(65_536):
        target.write(data)
        await target.drain()
    raise ConnectionResetError
