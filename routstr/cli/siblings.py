"""What the workers of one node tell each other: what each of them has counted.

A Unix socket for each worker, in a directory that only this user enters. Whoever connects gets the
whole of it, and the end; nothing is ever asked in words, and nothing is changed by it.
"""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

ANSWER_S: Final = 1.0
ANSWER_BYTES_MAX: Final = 4 * 2**20


class Siblings:
    """One worker's place among `count`, numbered from 1."""

    def __init__(self, directory: Path, *, number: int, count: int) -> None:
        """Nothing is opened yet; `directory` is there."""
        self.number = number
        self.count = count
        self._directory = directory

    async def serve(self, say: Callable[[], bytes]) -> asyncio.Server:
        """Tell whoever asks, until the server is closed."""

        async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(say())
            writer.write_eof()
            await writer.drain()
            writer.close()

        path = self._socket(self.number)
        path.unlink(missing_ok=True)  # of the worker that had this place before
        return await asyncio.start_unix_server(answer, path)

    async def ask(self) -> Mapping[int, bytes]:
        """What the others say, by their number; who does not answer in time is left out."""
        others = [number for number in range(1, self.count + 1) if number != self.number]
        said = await asyncio.gather(*map(self._ask, others))
        return {number: text for number, text in zip(others, said, strict=True) if text is not None}

    async def _ask(self, number: int) -> bytes | None:
        try:
            async with asyncio.timeout(ANSWER_S):
                reader, writer = await asyncio.open_unix_connection(
                    self._socket(number), limit=ANSWER_BYTES_MAX
                )
                try:
                    return await reader.read(-1)
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return None

    def _socket(self, number: int) -> Path:
        return self._directory / str(number)
