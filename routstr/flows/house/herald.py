"""Who watches a live page, and when to tell them: a few listeners, one look for all of them.

Nothing of the page goes through here, only the names of the parts that have changed; who hears one
asks for that part again, as anybody who is logged in. All are told when the node stops.
"""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Final

from routstr.errors import RateLimited

LISTENERS_MAX: Final = 16
LOOK_S: Final = 5.0
LIFETIME_S: Final = 900.0

Look = Callable[[], Awaitable[Mapping[str, str]]]
"""The parts of the page by name, as they are now."""


class Herald:
    """The listeners of this process. `look_s` is how often anybody looks, `lifetime_s` how long one
    is listened to before he has to come again."""

    def __init__(self, *, look_s: float = LOOK_S, lifetime_s: float = LIFETIME_S) -> None:
        """Nobody listens."""
        self.look_s = look_s
        self.lifetime_s = lifetime_s
        self._listeners = 0
        self._is_ended = False
        self._stirred = asyncio.Event()
        self._looking = asyncio.Lock()
        self._seen: Mapping[str, str] = {}
        self._seen_at_s: float | None = None

    def __len__(self) -> int:
        """How many listen."""
        return self._listeners

    def end(self) -> None:
        """The node stops: tell all of them, and take nobody more."""
        self._is_ended = True
        self._stirred.set()

    def wake(self) -> None:
        """Something has changed: look now, not at the end of the period."""
        if not self._is_ended:
            self._seen_at_s = None
            self._stirred.set()
            self._stirred = asyncio.Event()

    async def changes(
        self, look: Look, goes_on: Callable[[], Awaitable[bool]]
    ) -> AsyncGenerator[tuple[str, ...]]:
        """The names of the parts that have changed, every `look_s`, and at once when woken.

        No name is a heartbeat.
        It ends with the node, with its lifetime, and when `goes_on` says no. Raises RateLimited
        when too many listen.
        """
        if self._listeners >= LISTENERS_MAX:
            raise RateLimited("Too many pages are open; close one.", retry_after_s=60)
        self._listeners += 1
        try:
            known = await self._look(look)
            yield ()
            until_s = asyncio.get_running_loop().time() + self.lifetime_s
            while not await self._is_over() and asyncio.get_running_loop().time() < until_s:
                if not await goes_on():
                    return
                seen = await self._look(look)
                yield tuple(name for name in seen if seen[name] != known.get(name))
                known = seen
        finally:
            self._listeners -= 1

    async def _look(self, look: Look) -> Mapping[str, str]:
        """What was seen less than half a period ago, by whomever, else what is seen now."""
        async with self._looking:
            now_s = asyncio.get_running_loop().time()
            if self._seen_at_s is None or now_s - self._seen_at_s >= self.look_s / 2:
                parts = await look()
                self._seen = {
                    name: hashlib.sha256(text.encode()).hexdigest() for name, text in parts.items()
                }
                self._seen_at_s = asyncio.get_running_loop().time()
            return self._seen

    async def _is_over(self) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(self.look_s):
                await self._stirred.wait()
        return self._is_ended
