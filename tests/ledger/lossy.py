"""A line to PostgreSQL that a test can cut: at once, or after the server has done its COMMIT."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from sqlalchemy import make_url

COMMIT = b"COMMIT;"


class LossyLine:
    """Passes bytes through until told otherwise; `url` is the database behind it."""

    def __init__(self, url: str) -> None:
        self._behind = make_url(url)
        self._lines: set[asyncio.StreamWriter] = set()
        self.commits_to_lose = 0
        self.commits_lost = 0
        self.is_down = False
        self.url = ""

    async def start(self) -> asyncio.Server:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        behind = self._behind.set(host="127.0.0.1", port=port)
        self.url = behind.render_as_string(hide_password=False)
        return server

    def cut(self) -> None:
        """Drop every connection there is."""
        for line in self._lines:
            line.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.is_down:
            writer.transport.abort()
            return
        up_reader, up_writer = await asyncio.open_connection(self._behind.host, self._behind.port)
        self._lines |= {writer, up_writer}
        losing = asyncio.Event()
        with suppress(ConnectionError, OSError):
            await asyncio.gather(
                self._ask(reader, up_writer, losing), self._answer(up_reader, writer, losing)
            )
        for line in (writer, up_writer):
            line.transport.abort()
        self._lines -= {writer, up_writer}

    async def _ask(
        self, reader: asyncio.StreamReader, up: asyncio.StreamWriter, losing: asyncio.Event
    ) -> None:
        while chunk := await reader.read(65536):
            if COMMIT in chunk and self.commits_to_lose:
                self.commits_to_lose -= 1
                losing.set()
            up.write(chunk)
            await up.drain()
        up.close()

    async def _answer(
        self, up: asyncio.StreamReader, writer: asyncio.StreamWriter, losing: asyncio.Event
    ) -> None:
        while chunk := await up.read(65536):
            if losing.is_set():  # the server has answered, so it has committed
                self.commits_lost += 1
                self.cut()
                return
            writer.write(chunk)
            await writer.drain()
        writer.close()


@asynccontextmanager
async def lossy_line(url: str) -> AsyncIterator[LossyLine]:
    line = LossyLine(url)
    server = await line.start()
    try:
        yield line
    finally:
        line.cut()
        server.close()
        await server.wait_closed()
