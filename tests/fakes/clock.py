"""A clock that stands still until a test moves it."""

import asyncio


class FakeClock:
    """`monotonic` and `sleep` in seconds; `advance` wakes whoever has slept long enough."""

    def __init__(self) -> None:
        self._now = 1_000.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def monotonic(self) -> float:
        return self._now

    async def sleep(self, delay_s: float) -> None:
        woken = asyncio.get_running_loop().create_future()
        sleeper = (self._now + delay_s, woken)
        self._sleepers.append(sleeper)
        try:
            await woken
        finally:
            self._sleepers.remove(sleeper)

    async def advance(self, delay_s: float) -> None:
        """Move on, wake the sleepers that are due, and let everything run that can."""
        self._now += delay_s
        for due, woken in self._sleepers:
            if due <= self._now and not woken.done():
                woken.set_result(None)
        await settle()

    @property
    def sleeping_s(self) -> list[float]:
        """How long each sleeper still sleeps."""
        return [due - self._now for due, woken in self._sleepers if not woken.done()]


async def settle() -> None:
    """Let every task run until it waits for something outside."""
    for _ in range(20):
        await asyncio.sleep(0)
