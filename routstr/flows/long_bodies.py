"""Work on a long body, beside the event loop: nobody else waits for it.

A body of many small values takes a tenth of a second to read, which is a hundred requests' time.
One thread does that, one body after the other: more of them would only fight for the interpreter.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from routstr.errors import Overloaded

ResultT = TypeVar("ResultT")

LONG_BYTES: Final = 16 * 1024  # what is shorter is read faster than it is handed over
HUGE_BYTES: Final = 1024 * 1024
VALUES_MAX: Final = 4_000  # strings, arrays and objects that are read in a few milliseconds
COMMAS_PER_VALUE: Final = 8  # numbers are read faster, and prose has commas, too
WAITING_MAX: Final = 32


def takes_long(body: bytes) -> bool:
    """Whether reading it would hold the loop up, as far as a glance can tell."""
    if len(body) < LONG_BYTES:
        return False
    values = body.count(b'"') + body.count(b"[") + body.count(b"{")
    values += body.count(b",") // COMMAS_PER_VALUE
    return len(body) > HUGE_BYTES or values > VALUES_MAX


class LongBodies:
    """The thread, and who waits for it."""

    def __init__(self) -> None:
        """No thread runs before there is something to do."""
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="long bodies")
        self.waiting = 0

    async def run(self, work: Callable[[], ResultT]) -> ResultT:
        """What the work comes to, or raises. Raises Overloaded if too much waits already."""
        if self.waiting >= WAITING_MAX:
            raise Overloaded
        self.waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        finally:
            self.waiting -= 1
