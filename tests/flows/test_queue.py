"""The queue between meter and connection: bounded, and exact about what was handed out."""

import asyncio

import pytest

from routstr.flows.queue import SEND_BYTES_MAX, Chunk, ChunkQueue


def chunk(data: bytes, text_bytes: int = 0) -> Chunk:
    return Chunk(data=data, text_bytes=text_bytes, output_seen=text_bytes > 0)


def queue(*, chunks_max: int = 64, bytes_max: int = 256 * 1024) -> ChunkQueue:
    return ChunkQueue(chunks_max=chunks_max, bytes_max=bytes_max)


async def test_what_was_put_is_taken_joined_and_counted() -> None:
    tested = queue()
    await tested.put(chunk(b"a", 1))
    await tested.put(chunk(b"b", 2))
    assert (tested.handed_bytes, tested.handed.text_bytes) == (0, 0)
    assert await tested.take(1) == b"ab"
    assert (tested.handed_bytes, tested.handed.text_bytes) == (2, 2)
    tested.finish(b"end")
    assert await tested.take(1) == b"end"
    assert tested.handed.text_bytes == 2
    assert await tested.take(1) is None


async def test_large_chunks_are_not_joined() -> None:
    tested = queue()
    large = b"x" * SEND_BYTES_MAX
    await tested.put(chunk(large, 1))
    await tested.put(chunk(b"b", 2))
    assert await tested.take(1) == large
    assert tested.handed.text_bytes == 1


@pytest.mark.parametrize("bounds", [{"chunks_max": 2}, {"bytes_max": 2}])
async def test_a_full_queue_makes_its_putter_wait(bounds: dict[str, int]) -> None:
    tested = queue(**bounds)
    await tested.put(chunk(b"a"))
    await tested.put(chunk(b"b"))
    putting = asyncio.create_task(tested.put(chunk(b"c")))
    await asyncio.sleep(0)
    assert not putting.done()
    assert await tested.take(1) == b"ab"
    await asyncio.wait_for(putting, 1)
    assert await tested.take(1) == b"c"


async def test_an_abandoned_queue_blocks_nobody_and_hands_out_nothing() -> None:
    tested = queue(chunks_max=1)
    await tested.put(chunk(b"a"))
    putting = asyncio.create_task(tested.put(chunk(b"b")))
    emptied = asyncio.create_task(tested.emptied())
    await asyncio.sleep(0)
    assert not emptied.done()
    tested.abandon()
    await asyncio.wait_for(asyncio.gather(putting, emptied), 1)
    assert await tested.take(1) is None
    assert tested.handed_bytes == 0


async def test_emptied_waits_for_the_last_chunk() -> None:
    tested = queue()
    await tested.put(chunk(b"a"))
    emptied = asyncio.create_task(tested.emptied())
    await asyncio.sleep(0)
    assert not emptied.done()
    await tested.take(1)
    await asyncio.wait_for(emptied, 1)


async def test_silence_is_told_and_loses_nothing() -> None:
    tested = queue()
    with pytest.raises(TimeoutError):
        await tested.take(0.01)
    taking = asyncio.create_task(tested.take(1))
    await asyncio.sleep(0)
    await tested.put(chunk(b"a"))
    assert await taking == b"a"
