"""The bounded queue between the task that meters a stream and the connection that sends it.

Laws: a full queue pauses the upstream, never the memory; what was taken from it was handed to the
client, what was not was not, and estimates count only the former; a client that left blocks nobody.
"""

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Final

SEND_BYTES_MAX: Final = 16 * 1024  # chunks are joined up to this, to write once per send


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Whole events for the client, and what has been handed out once they are.

    `text_bytes` counts the output's UTF-8 text from the start, this chunk included.
    """

    data: bytes
    text_bytes: int = 0
    output_seen: bool = False


NOTHING: Final = Chunk(data=b"")


class ChunkQueue:
    """One task puts, one takes. Bounds: `chunks_max` and `bytes_max`, a last chunk apart."""

    def __init__(self, *, chunks_max: int, bytes_max: int) -> None:
        """Empty."""
        self._chunks_max = chunks_max
        self._bytes_max = bytes_max
        self._chunks: deque[Chunk] = deque()
        self._bytes = 0
        self._filled: asyncio.Future[bool] | None = None  # the taker's, while it waits
        self._taken: asyncio.Event | None = None  # from the first wait for room on
        self._is_finished = False
        self.is_abandoned = False
        self.handed = NOTHING
        self.handed_bytes = 0

    # ── the metering side ─────────────────────────────────────────────────────────────────────

    async def put(self, chunk: Chunk) -> None:
        """Add it once there is room; once the client is gone it is dropped instead."""
        while self._is_full and not self.is_abandoned:
            await self._until_taken()
        self._add(chunk)

    def finish(self, data: bytes) -> None:
        """Add the last bytes without waiting; nothing follows."""
        if data:
            last = self._chunks[-1] if self._chunks else self.handed
            self._add(Chunk(data=data, text_bytes=last.text_bytes, output_seen=last.output_seen))
        self._is_finished = True
        self._tell_taker()

    async def emptied(self) -> None:
        """Wait until everything was handed out, or the client is gone."""
        while self._chunks and not self.is_abandoned:
            await self._until_taken()

    async def _until_taken(self) -> None:
        if self._taken is None:
            self._taken = asyncio.Event()
        self._taken.clear()
        await self._taken.wait()

    # ── the sending side ──────────────────────────────────────────────────────────────────────

    async def take(self, silence_s: float) -> bytes | None:
        """The next bytes, to be passed to `send` at once; None at the end.

        Raises TimeoutError after `silence_s` without any.
        """
        if not self._chunks and not self._is_over and not await self._filled_within(silence_s):
            raise TimeoutError
        return self._handed_out() if self._chunks else None

    def abandon(self) -> None:
        """The client is gone: nothing more is handed out."""
        self.is_abandoned = True
        self._chunks.clear()
        self._bytes = 0
        self._tell_taker()
        self._tell_putter()

    async def _filled_within(self, silence_s: float) -> bool:
        """Wait for something to take, or for the end; False if neither comes within that."""
        loop = asyncio.get_running_loop()
        filled: asyncio.Future[bool] = loop.create_future()
        self._filled = filled
        silence = loop.call_later(silence_s, _settle, filled, False)
        try:
            return await filled
        finally:
            silence.cancel()
            self._filled = None

    def _handed_out(self) -> bytes:
        self.handed = self._chunks.popleft()
        data = self.handed.data
        if self._chunks:
            data = self._joined(bytearray(data))
        self._bytes -= len(data)
        self.handed_bytes += len(data)
        self._tell_putter()
        return data

    def _joined(self, data: bytearray) -> bytes:
        while self._chunks and len(data) + len(self._chunks[0].data) < SEND_BYTES_MAX:
            self.handed = self._chunks.popleft()
            data += self.handed.data
        return bytes(data)

    def _add(self, chunk: Chunk) -> None:
        if not self.is_abandoned:
            self._chunks.append(chunk)
            self._bytes += len(chunk.data)
            self._tell_taker()

    def _tell_taker(self) -> None:
        if self._filled is not None:
            _settle(self._filled, True)

    def _tell_putter(self) -> None:
        if self._taken is not None:
            self._taken.set()

    @property
    def _is_full(self) -> bool:
        return len(self._chunks) >= self._chunks_max or self._bytes >= self._bytes_max

    @property
    def _is_over(self) -> bool:
        return self._is_finished or self.is_abandoned


def _settle(waited_for: "asyncio.Future[bool]", is_filled: bool) -> None:
    if not waited_for.done():
        waited_for.set_result(is_filled)
