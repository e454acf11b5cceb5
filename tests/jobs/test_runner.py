"""When jobs run: each in its time, once among all processes, and whatever befalls the others."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from routstr.flows.context import Context
from routstr.flows.house.works import Result
from routstr.jobs.runner import JobRunner
from routstr.jobs.schedule import Job, jobs
from routstr.ledger.reads import last_job
from tests.fakes.mint import FakeMint
from tests.harness.till import Till, default_limits, open_till

WAIT_S = 10


class Work:
    """Counts its runs, and lets the test hold or break them."""

    def __init__(self, *, fails: bool = False, ok: bool = True) -> None:
        self.runs = 0
        self.ran = asyncio.Condition()
        self.gate: asyncio.Event | None = None
        self.fails = fails
        self.ok = ok

    async def __call__(self, ctx: Context) -> tuple[bool, Result]:
        self.runs += 1
        async with self.ran:
            self.ran.notify_all()
        if self.gate is not None:
            await self.gate.wait()
        if self.fails:
            raise OSError("a bad day")
        return self.ok, {"runs": self.runs}

    async def until(self, runs: int) -> None:
        async with asyncio.timeout(WAIT_S), self.ran:
            await self.ran.wait_for(lambda: self.runs >= runs)


def job(name: str, work: Work, *, shared: bool = True, every_s: float = 0.01) -> Job:
    return Job(name=name, every_s=every_s, run=work, is_shared=shared)


@pytest.fixture
async def mint() -> AsyncIterator[FakeMint]:
    async with FakeMint() as mint:
        yield mint


@pytest.fixture
async def till(database_url: str, mint: FakeMint) -> AsyncIterator[Till]:
    async with open_till(database_url, mint) as till:
        yield till


async def test_jobs_run_again_and_again_until_they_are_stopped(till: Till) -> None:
    works = [Work(), Work(fails=True), Work(ok=False), Work()]
    runner = JobRunner(
        till.ctx,
        (
            job("a", works[0]),
            job("fails", works[1]),
            job("not ok", works[2]),
            job("own", works[3], shared=False),
        ),
    )
    running = asyncio.create_task(runner.run())
    for work in works:
        await work.until(3)
    runner.stop()
    async with asyncio.timeout(WAIT_S):
        await running
    runs = [work.runs for work in works]
    await till.ctx.clock.sleep(0.05)
    assert [work.runs for work in works] == runs


async def test_what_came_of_it_is_written_down(till: Till) -> None:
    async def said(name: str) -> object:
        async with till.ctx.database.reading() as connection:
            view = await last_job(connection, name)
        assert view is not None
        return view.ok, view.result

    runner = JobRunner(till.ctx, ())
    assert await runner.run_once(job("good", Work()))
    assert await runner.run_once(job("bad", Work(ok=False)))
    with pytest.raises(OSError, match="a bad day"):
        await runner.run_once(job("broken", Work(fails=True)))
    assert await said("good") == (True, {"runs": 1})
    assert await said("bad") == (False, {"runs": 1})
    assert await said("broken") == (False, {})


async def test_a_shared_job_runs_in_one_process_at_a_time(
    postgres_url: str, mint: FakeMint
) -> None:
    async with (
        open_till(postgres_url, mint, owner="one") as one,
        open_till(postgres_url, mint, owner="two") as two,
    ):
        work = Work()
        work.gate = asyncio.Event()
        shared = job("shared", work, every_s=10)
        first = asyncio.create_task(JobRunner(one.ctx, ()).run_once(shared))
        await work.until(1)
        assert not await JobRunner(two.ctx, ()).run_once(shared)
        work.gate.set()
        assert await first
        assert not await JobRunner(two.ctx, ()).run_once(shared)  # not due yet
        await two.later(6)
        assert await JobRunner(two.ctx, ()).run_once(shared)
        assert work.runs == 2


async def test_a_rare_job_runs_once_in_its_time_however_often_it_is_looked_at(till: Till) -> None:
    """A process that never lives for a whole period runs it all the same."""
    work = Work()
    daily = Job(name="daily", every_s=86_400, run=work, look_s=600)
    assert (daily.looks_every_s, daily.due_again_s) == (600, 86_400)
    runner = JobRunner(till.ctx, ())
    ran = []
    for wait_s in (0, 600, 85_000, 1_000):
        await till.later(wait_s)
        ran.append(await runner.run_once(daily))
    assert ran == [True, False, False, True]
    assert job("frequent", work, every_s=10).due_again_s == 5


async def test_a_dead_processs_job_is_taken_over(postgres_url: str, mint: FakeMint) -> None:
    async with open_till(postgres_url, mint, owner="two") as two:
        work = Work()
        work.gate = asyncio.Event()
        shared = job("shared", work)
        async with open_till(postgres_url, mint, owner="one", is_sound_at_end=False) as one:
            dying = asyncio.create_task(JobRunner(one.ctx, ()).run_once(shared))
            await work.until(1)
            await one.die()
            while not dying.done():  # it wants to write down how it ended, and nobody listens
                dying.cancel()
                await asyncio.wait([dying], timeout=0.01)
        work.gate.set()
        assert not await JobRunner(two.ctx, ()).run_once(shared)
        await two.later(shared.lease_s + 1)
        assert await JobRunner(two.ctx, ()).run_once(shared)


async def test_every_job_of_the_node_does_its_work(till: Till) -> None:
    await till.create(till.mint.issue(1))
    runner = JobRunner(till.ctx, ())
    every = jobs(till.ctx.limits)
    assert {each.name for each in every} == {
        "renew",
        "expire",
        "resume",
        "invoices",
        "payout",
        "redeem",
        "prune",
        "forget",
        "audit",
        "reconcile",
        "refill",
        "refresh",
        "follow",
        "backup",
        "withdrawals",
        "expire-keys",
        "rollup",
        "delete-keys",
        "reset-limits",
        "vacuum",
    }
    for each in every:
        assert await runner.run_once(each), each.name
    async with till.ctx.database.reading() as connection:
        audit = await last_job(connection, "audit")
    assert audit is not None
    assert audit.ok


def test_a_dead_nodes_holds_wait_no_longer_than_the_audit_does() -> None:
    """Guarantees, I-9: no hold is held 60 s past its deadline."""
    expiring = next(each for each in jobs(default_limits()) if each.name == "expire")
    assert expiring.lease_s + 2 * expiring.every_s <= 60
