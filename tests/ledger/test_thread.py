"""The thread that works for the loop: nothing that was asked for is lost with who asked."""

import asyncio
import threading

import pytest

from routstr.ledger.thread import WorkThread


async def test_what_is_raised_there_is_raised_here_and_the_thread_goes_on() -> None:
    thread = WorkThread("test")
    with pytest.raises(ValueError, match="nothing"):
        await thread.run(lambda: int("nothing"))
    assert await thread.run(threading.get_ident) != threading.get_ident()
    thread.stop()


async def test_who_goes_away_stops_no_work() -> None:
    thread, gate, done = WorkThread("test"), threading.Event(), list[str]()

    def work() -> None:
        assert gate.wait(10)
        done.append("first")

    first = asyncio.create_task(thread.run(work))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    gate.set()
    assert await thread.run(done.copy) == ["first"]
    thread.stop()
