"""A job that somebody asks for: one run among all processes, looked at first, remembered after."""

import asyncio
from contextlib import suppress

import pytest

from routstr.errors import InvalidParameter, NotFound, Pending
from routstr.flows.context import Context
from routstr.flows.house.jobs import jobs_shown, preview, run_job, runs_of, start_job
from routstr.flows.house.works import WORKS, Result
from routstr.flows.operate import take_job
from routstr.jobs.runner import JobRunner
from routstr.jobs.schedule import Job
from routstr.ledger.job_runs import PruneHistory
from routstr.ledger.reads_jobs import job_rows
from tests.fakes.mint import FakeMint
from tests.harness.till import ON_SQLITE, WAIT_S, Till, open_till


class _Death(BaseException):
    """What no handler of the node catches."""


def _die() -> None:
    raise _Death


async def ended(till: Till, run_id: str) -> None:
    """Wait for the run's end."""
    async with asyncio.timeout(WAIT_S):
        while any(run.id == run_id and run.finished_at is None for run in await runs_of(till.ctx)):
            await asyncio.gather(*till.ctx.tasks._tasks)


async def test_a_run_that_was_asked_for_is_remembered(till: Till) -> None:
    run_id = await start_job(till.ctx, "expire", dry_run=False, asked_by="ada")
    await ended(till, run_id)
    (run,) = await runs_of(till.ctx, "expire")
    assert (run.id, run.asked_by, run.ok, run.result) == (run_id, "ada", True, {"ended": 0})
    (shown,) = [job for job in await jobs_shown(till.ctx) if job.name == "expire"]
    assert (shown.is_running, shown.ok, shown.result) == (False, True, {"ended": 0})
    assert shown.next_run_at is not None
    assert await runs_of(till.ctx, "audit") == []
    assert await run_job(till.ctx, "resume", asked_by="ada") == (True, {"driven": 0})
    assert [run.name for run in await runs_of(till.ctx)] == ["resume", "expire"]


@ON_SQLITE
async def test_what_there_is_not_cannot_be_run(till: Till) -> None:
    for name in ("nothing", ""):
        with pytest.raises(NotFound):
            await start_job(till.ctx, name, dry_run=False, asked_by="ada")
        with pytest.raises(NotFound):
            await runs_of(till.ctx, name)
    with pytest.raises(InvalidParameter):
        await start_job(till.ctx, "renew", dry_run=True, asked_by="ada")
    with pytest.raises(InvalidParameter):
        await preview(till.ctx, "renew")
    assert await runs_of(till.ctx) == []


async def test_a_dry_run_changes_nothing_but_its_own_line(till: Till) -> None:
    key = await till.create(till.mint.issue(21))
    await till.withdraw(key, 5)
    await till.later(40 * 86_400)
    before = await till.dump()
    for work in WORKS:
        if work.preview is not None:
            assert await preview(till.ctx, work.name) or work.name == "audit", work.name
    assert await till.dump() == before
    await ended(till, await start_job(till.ctx, "reconcile", dry_run=True, asked_by="ada"))
    (run,) = await runs_of(till.ctx)
    assert run.is_dry
    assert run.result == {"ask": 1, "ask_msat": 5_000, "reclaim": 1, "reclaim_msat": 5_000}
    after = await till.dump()
    assert {name for name, rows in after.items() if rows != before[name]} == {"job_history"}


async def test_of_two_who_ask_one_runs_it(postgres_url: str, mint: FakeMint) -> None:
    async with (
        open_till(postgres_url, mint, owner="one") as one,
        open_till(postgres_url, mint, owner="two") as two,
    ):
        assert await take_job(one.ctx, "expire", lease_s=30)
        with pytest.raises(Pending):
            await start_job(two.ctx, "expire", dry_run=False, asked_by="ada")
        assert await runs_of(two.ctx) == []
        await two.later(31)  # whoever had it is dead
        assert await run_job(two.ctx, "expire", asked_by="ada") == (True, {"ended": 0})


async def test_a_run_whose_process_died_is_called_cut_short(
    database_url: str, mint: FakeMint
) -> None:
    async with open_till(database_url, mint, is_sound_at_end=False) as till:
        till.marks.at["job.begun"] = _die
        with pytest.raises(_Death):
            await run_job(till.ctx, "expire", asked_by="ada")
        await till.die()
    async with open_till(database_url, mint) as till:
        (run,) = await runs_of(till.ctx)
        assert run.finished_at is None
        await till.later(31)
        await run_job(till.ctx, "expire", asked_by="ada")
        newest, dead = await runs_of(till.ctx)
        assert (newest.ok, dead.ok, dead.result) == (True, False, {"error": "cut short"})


async def test_the_schedules_runs_are_kept_when_they_tell_something(till: Till) -> None:
    told: list[tuple[bool, Result]] = [(True, {"n": 0}), (True, {"n": 3}), (False, {"n": 0})]

    async def work(_: Context) -> tuple[bool, Result]:
        return told.pop(0)

    for _ in range(3):
        job = Job(name="some", every_s=10, run=work, changes=("n",))
        assert await JobRunner(till.ctx, ()).run_once(job)
        await till.later(10)
    runs = await runs_of(till.ctx)
    assert [(run.ok, run.result, run.asked_by) for run in runs] == [
        (False, {"n": 0}, None),
        (True, {"n": 3}, None),
    ]
    before = runs[0].started_at
    assert await till.ctx.ledger.submit(PruneHistory(before=before, keep_max=9)) == 1
    assert await till.ctx.ledger.submit(PruneHistory(before=before, keep_max=0)) == 1
    assert await runs_of(till.ctx) == []


async def test_an_accident_lifts_no_verdict_and_gives_none(till: Till) -> None:
    """Withdrawals hang on what the last audit found, not on whether the last one came to an end."""
    told: list[tuple[bool, Result] | None] = [(True, {"n": 1}), None, (False, {"n": 2}), None]

    async def work(_: Context) -> tuple[bool, Result]:
        found = told.pop(0)
        if found is None:
            raise OSError
        return found

    verdicts = []
    for _ in range(4):
        await till.later(10)
        with suppress(OSError):
            await JobRunner(till.ctx, ()).run_once(Job(name="audit", every_s=10, run=work))
        async with till.ctx.database.reading() as connection:
            row = (await job_rows(connection))["audit"]
        verdicts.append((row.ok, row.result, row.lease_until))
    assert verdicts == [(True, {"n": 1}, None)] * 2 + [(False, {"n": 2}, None)] * 2
    newest, broken, accident = await runs_of(till.ctx, "audit")
    assert newest.result == accident.result == {"error": "broke off"}
    assert broken.result == {"n": 2}
    (shown,) = [job for job in await jobs_shown(till.ctx) if job.name == "audit"]
    assert (shown.ok, shown.result) == (False, newest.result)


@ON_SQLITE
async def test_whoever_is_alone_takes_a_dead_nodes_job(till: Till) -> None:
    assert await take_job(till.ctx, "expire", lease_s=900)
    with pytest.raises(Pending):
        await start_job(till.ctx, "expire", dry_run=False, asked_by="ada")
    assert await run_job(till.ctx, "expire", asked_by="ada") == (True, {"ended": 0})
