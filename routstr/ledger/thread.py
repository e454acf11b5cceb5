"""A thread that works for one event loop: a call for each hand-over, and one to come back.

The loop's own thread pool costs two futures, a lock and a condition for every call; on SQLite that
is a good part of a small batch.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Generic, TypeVar, cast

ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class _Job(Generic[ResultT]):
    work: Callable[[], ResultT]
    future: "asyncio.Future[ResultT]"
    loop: asyncio.AbstractEventLoop


class WorkThread:
    """Does one thing after the other. It begins with the first, and ends with `stop`."""

    def __init__(self, name: str) -> None:
        """Nothing is started yet."""
        self._name = name
        self._jobs: SimpleQueue[_Job[Any] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    async def run(self, work: Callable[[], ResultT]) -> ResultT:
        """The result of `work`, or what it raises. Being cancelled stops the waiting alone."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[ResultT] = loop.create_future()
        if self._thread is None:
            # A process that ends waits for no transaction: what is not committed is not there.
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        self._jobs.put(_Job(work, future, loop))
        return await future

    def stop(self) -> None:
        """End once all is done that was asked for."""
        self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            error: BaseException | None = None
            result = None
            try:
                result = job.work()
            except BaseException as raised:  # noqa: BLE001 - whoever waits decides what it means
                error = raised
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                job.loop.call_soon_threadsafe(_answer, job.future, result, error)
            del job, result, error  # nothing of it is kept while the thread waits


def _answer(
    future: "asyncio.Future[ResultT]", result: ResultT | None, error: BaseException | None
) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(cast(ResultT, result))
