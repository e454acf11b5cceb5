"""The lane to one mint, with a clock that only the test moves."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from routstr.gateways.mint_failure import MintLimited, MintUnknown
from routstr.gateways.mint_limits import Lane, LaneLimits, Priority
from tests.fakes.clock import FakeClock, settle

FREE = LaneLimits(rate_per_minute=10**9, burst=10**6)


class Crowd:
    """Callers of one lane, who stay in their call until the test lets them go."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.order: list[str] = []
        self.refused: list[MintUnknown] = []
        self._leave: dict[str, asyncio.Event] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def send(self, name: str, priority: Priority = Priority.RECEIVE) -> asyncio.Task[None]:
        self._leave[name] = asyncio.Event()
        task = asyncio.create_task(self._call(name, priority))
        self._tasks.add(task)
        await settle()
        return task

    async def leave(self, *names: str) -> None:
        for name in names:
            self._leave[name].set()
            await settle()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _call(self, name: str, priority: Priority) -> None:
        try:
            await self.lane.acquire(priority)
        except MintUnknown as error:
            self.refused.append(error)
            return
        self.order.append(name)
        try:
            await self._leave[name].wait()
        finally:
            self.lane.release()


@asynccontextmanager
async def crowd(limits: LaneLimits, clock: FakeClock) -> AsyncIterator[Crowd]:
    people = Crowd(Lane(clock, limits))
    yield people
    await people.stop()


async def pass_through(lane: Lane) -> None:
    await lane.acquire(Priority.RECEIVE)
    lane.release()


async def test_four_at_once_and_the_most_urgent_next() -> None:
    async with crowd(FREE, FakeClock()) as people:
        for name in "abcd":
            await people.send(name, Priority.FLOAT)
        await people.send("float", Priority.FLOAT)
        await people.send("redeem", Priority.REDEEM)
        await people.send("issue", Priority.ISSUE)
        await people.send("receive 1", Priority.RECEIVE)
        await people.send("receive 2", Priority.RECEIVE)
        await people.send("recovery", Priority.RECOVERY)
        assert people.order == ["a", "b", "c", "d"]
        await people.leave("a", "b", "c", "d", "recovery", "receive 1")
        assert people.order[4:] == [
            "recovery", "receive 1", "receive 2", "issue", "redeem", "float",
        ]  # fmt: skip


async def test_a_caller_who_gives_up_leaves_its_place_and_its_turn() -> None:
    async with crowd(LaneLimits(calls_max=1, rate_per_minute=10**9), FakeClock()) as people:
        running = await people.send("running")
        waiting = await people.send("waiting")
        await people.send("next")
        waiting.cancel()
        await settle()
        running.cancel()
        await settle()
        assert people.order == ["running", "next"]


async def test_the_bucket_allows_a_burst_and_then_the_rate() -> None:
    clock = FakeClock()
    async with crowd(LaneLimits(rate_per_minute=60, burst=3), clock) as people:
        for name in "abcde":
            await people.send(name)
            await people.leave(name)
        assert people.order == ["a", "b", "c"]
        assert clock.sleeping_s == [pytest.approx(1.0)]
        await clock.advance(1.0)
        assert people.order == ["a", "b", "c", "d"]
        await clock.advance(0.5)
        assert people.order == ["a", "b", "c", "d"]
        await clock.advance(0.5)
        assert people.order == ["a", "b", "c", "d", "e"]


async def test_an_urgent_caller_overtakes_one_who_waits_for_the_bucket() -> None:
    clock = FakeClock()
    async with crowd(LaneLimits(rate_per_minute=60, burst=1), clock) as people:
        await people.send("first")
        await people.send("float", Priority.FLOAT)
        await people.send("recovery", Priority.RECOVERY)
        await clock.advance(1.0)
        assert people.order == ["first", "recovery"]
        await clock.advance(1.0)
        assert people.order == ["first", "recovery", "float"]


async def test_a_429_pauses_and_halves_and_pauses_longer() -> None:
    clock = FakeClock()
    limits = LaneLimits(rate_per_minute=64, burst=10, wait_s=100)
    lane = Lane(clock, limits)
    pauses = []
    for _ in range(9):
        await clock.advance(60)  # the bucket has a token again: only the pause is left to wait for
        lane.limited(1)
        lane.limited(1)  # another answer from before the pause changes nothing
        waiting = asyncio.create_task(pass_through(lane))
        await settle()
        [pause_s] = clock.sleeping_s
        pauses.append(round(pause_s))
        await clock.advance(pause_s)
        await waiting
    assert pauses == [1, 4, 16, 60, 60, 60, 60, 60, 60]


@pytest.mark.parametrize(("limited", "interval_s"), [(0, 1), (1, 2), (2, 4), (9, 30)])
async def test_each_429_halves_the_rate_down_to_a_floor(limited: int, interval_s: int) -> None:
    clock = FakeClock()
    lane = Lane(clock, LaneLimits(rate_per_minute=60, burst=1, wait_s=100))
    for _ in range(limited):
        lane.limited(1)
        await clock.advance(60)
    await pass_through(lane)
    waiting = asyncio.create_task(pass_through(lane))
    await settle()
    assert clock.sleeping_s == [pytest.approx(interval_s)]
    await clock.advance(interval_s)
    await waiting


async def test_after_a_429_nothing_is_left_of_the_burst() -> None:
    clock = FakeClock()
    lane = Lane(clock, LaneLimits(rate_per_minute=60, burst=20))
    lane.limited(1)
    await clock.advance(1.0)
    await pass_through(lane)
    waiting = asyncio.create_task(pass_through(lane))
    await settle()
    assert clock.sleeping_s == [pytest.approx(1.0)]
    await clock.advance(1.0)
    await waiting


async def test_the_mints_own_retry_after_is_heard_and_bounded() -> None:
    clock = FakeClock()
    lane = Lane(clock, LaneLimits(rate_per_minute=6_000, burst=10, wait_s=100))
    for asked_s, paused_s in ((7, 7), (3_600, 60)):
        lane.limited(asked_s)
        waiting = asyncio.create_task(pass_through(lane))
        await settle()
        assert clock.sleeping_s == [pytest.approx(paused_s)]
        await clock.advance(paused_s)
        await waiting
        lane.succeeded()


async def test_success_gives_the_rate_back_slowly() -> None:
    clock = FakeClock()
    lane = Lane(clock, LaneLimits(rate_per_minute=60, burst=1))
    lane.limited(1)
    for _ in range(15):  # 30 a minute, and one more with each success
        lane.succeeded()
    await clock.advance(10.0)
    await pass_through(lane)
    waiting = asyncio.create_task(pass_through(lane))
    await settle()
    assert clock.sleeping_s == [pytest.approx(60 / 45)]
    await clock.advance(60 / 45)
    await waiting


async def test_a_pause_longer_than_anyone_waits_is_answered_at_once() -> None:
    clock = FakeClock()
    lane = Lane(clock, LaneLimits(wait_s=30))
    lane.limited(45)
    with pytest.raises(MintLimited) as caught:
        await lane.acquire(Priority.RECOVERY)
    assert not caught.value.was_sent
    assert caught.value.retry_after_s == 45


async def test_a_full_queue_is_answered_at_once() -> None:
    limits = LaneLimits(calls_max=1, waiting_max=2, rate_per_minute=10**9)
    async with crowd(limits, FakeClock()) as people:
        for name in "abcd":
            await people.send(name)
        [refused] = people.refused
        assert isinstance(refused, MintLimited)
        assert not refused.was_sent


async def test_five_failures_close_the_lane_and_one_probe_opens_it() -> None:
    clock = FakeClock()
    async with crowd(FREE, clock) as people:
        for _ in range(4):
            people.lane.failed()
        await people.send("still open")
        people.lane.failed()
        await people.leave("still open")
        await people.send("closed")
        await clock.advance(9.9)
        await people.send("closed")
        assert [error.was_sent for error in people.refused] == [False, False]
        await clock.advance(0.1)
        await people.send("probe")
        await people.send("closed")
        assert people.order == ["still open", "probe"]
        people.lane.failed()
        await people.leave("probe")
        await people.send("closed")
        assert len(people.refused) == 4
        await clock.advance(10)
        await people.send("second probe")
        people.lane.succeeded()
        await people.leave("second probe")
        await people.send("open")
        assert people.order[2:] == ["second probe", "open"]


async def test_a_probe_that_gives_up_makes_room_for_another() -> None:
    clock = FakeClock()
    async with crowd(FREE, clock) as people:
        for _ in range(5):
            people.lane.failed()
        await clock.advance(10)
        probe = await people.send("probe")
        probe.cancel()
        await settle()
        await people.send("another")
        assert people.order == ["probe", "another"]


async def test_callers_in_the_queue_hear_that_the_lane_closed() -> None:
    async with crowd(LaneLimits(calls_max=1, rate_per_minute=10**9), FakeClock()) as people:
        await people.send("running")
        await people.send("waiting 1")
        await people.send("waiting 2")
        for _ in range(5):
            people.lane.failed()
        await people.leave("running")
        assert people.order == ["running"]
        assert len(people.refused) == 2


async def test_a_success_forgets_the_failures_before_it() -> None:
    lane = Lane(FakeClock(), FREE)
    for _ in range(3):
        for _ in range(4):
            lane.failed()
        lane.succeeded()
    await pass_through(lane)
