"""The real clock, put forward by hand: whoever sleeps long enough in the moved time wakes."""

import asyncio
import time
from datetime import UTC, datetime, timedelta


class MovableClock:
    """The node's clock, plus what a test has added to it with `advance`."""

    def __init__(self) -> None:
        self._wall_s = 0.0
        self._monotonic_s = 0.0
        self._moved = asyncio.Event()

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self._wall_s)

    def monotonic(self) -> float:
        return time.monotonic() + self._monotonic_s

    async def sleep(self, seconds: float) -> None:
        until_s = self.monotonic() + seconds
        while (left_s := until_s - self.monotonic()) > 0:
            moved = self._moved
            try:
                async with asyncio.timeout(left_s):
                    await moved.wait()
            except TimeoutError:
                return

    def advance(self, seconds: float, *, wall: bool = True) -> None:
        """Put it forward; without `wall` only what measures durations."""
        self._monotonic_s += seconds
        self._wall_s += seconds if wall else 0.0
        self._moved.set()
        self._moved = asyncio.Event()
