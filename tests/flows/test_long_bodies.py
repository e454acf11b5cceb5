"""Long bodies are read beside the loop, one after the other, and only so many wait for that."""

import asyncio
import threading
from collections.abc import Callable

import pytest

from routstr.errors import Overloaded
from routstr.flows.long_bodies import WAITING_MAX, LongBodies, takes_long
from tests.harness.shop import PATH, open_shop, order
from tests.harness.till import ON_SQLITE


def test_what_takes_long_is_long_or_of_many_parts() -> None:
    prose = b'{"a":"' + b"As she said, and so it was. " * 14_000 + b'"}'
    assert not takes_long(prose)
    assert not takes_long(b"[" * 8_000)  # read before it could be handed over
    assert takes_long(b"[" + b"[]," * 100_000 + b"1]")
    assert takes_long(b"[" + b"1," * 100_000 + b"1]")
    assert takes_long(prose * 3)


async def test_the_loop_goes_on_and_the_line_is_bounded() -> None:
    bodies, ready, go_on = LongBodies(), asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def work() -> str:
        loop.call_soon_threadsafe(ready.set)
        go_on.wait()
        return threading.current_thread().name

    works: list[Callable[[], str]] = [work] * WAITING_MAX
    running = [asyncio.create_task(bodies.run(each)) for each in works]
    await ready.wait()  # here the loop turns while the thread is busy
    with pytest.raises(Overloaded):
        await bodies.run(work)
    go_on.set()
    assert len(set(await asyncio.gather(*running))) == 1
    assert bodies.waiting == 0


@ON_SQLITE
async def test_a_body_of_many_parts_is_bought_as_any_other(database_url: str) -> None:
    async with open_shop(database_url) as shop:
        key = await shop.key(10_000_000)
        body = order() | {"stop": ["a"] * 4, "metadata": {str(n): "" for n in range(3_000)}}
        bought = await shop.http.post(PATH, headers=key.headers, json=body)
        assert bought.status_code == 200, bought.text
