"""The exchange: one head, one stop, and an end that always comes."""

import pytest

from routstr.core.outcome import Ending
from routstr.errors import RoutstrError, UpstreamTimeout
from routstr.flows.exchange import Answer, Exchange
from routstr.flows.queue import Chunk, ChunkQueue


def exchange() -> Exchange:
    return Exchange(
        request_id="req_1", request_sha256="", queue=ChunkQueue(chunks_max=4, bytes_max=100)
    )


STREAM = Answer(status=200, headers={}, body=None)


async def test_the_first_stop_counts_and_wakes_once() -> None:
    tested, woken = exchange(), list[Ending | None]()
    tested.when_stopped(lambda: woken.append(tested.stopped))
    tested.stop()
    tested.client_left()
    assert woken == [Ending.NODE_STOPPED]
    assert tested.queue.is_abandoned


async def test_a_stop_that_came_before_wakes_at_once() -> None:
    tested, woken = exchange(), list[Ending | None]()
    tested.client_left()
    tested.when_stopped(lambda: woken.append(tested.stopped))
    assert woken == [Ending.CLIENT_LEFT]


async def test_what_has_ended_cannot_be_stopped() -> None:
    tested = exchange()
    tested.answer_with(STREAM)
    tested.finish(b"end")
    tested.stop()
    assert tested.stopped is None
    assert await tested.queue.take(1) == b"end"


async def test_a_task_that_broke_before_the_head_is_an_error() -> None:
    tested = exchange()
    tested.close()
    with pytest.raises(RoutstrError) as said:
        await tested.answer()
    assert said.value.code == "internal_error"


async def test_a_task_that_broke_in_a_stream_ends_it_with_an_error() -> None:
    tested = exchange()
    tested.answer_with(STREAM)
    await tested.queue.put(Chunk(data=b"a"))
    tested.close()
    assert await tested.answer() is STREAM
    assert await tested.queue.take(1) == b"a"
    assert await tested.queue.take(1) is None
    assert tested.error is not None


async def test_closing_after_an_end_changes_nothing() -> None:
    tested = exchange()
    tested.refuse(UpstreamTimeout())
    tested.close()
    with pytest.raises(UpstreamTimeout):
        await tested.answer()
