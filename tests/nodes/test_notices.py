"""What one process changes is in force in the other: heard at once, else found by looking."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from sqlalchemy import make_url

from routstr.flows.hear import HEARD_LOOK_S, follow, hear
from routstr.flows.house.settings import change_settings
from routstr.ledger.notices import (
    CATALOG,
    CHANNEL,
    NAME,
    SESSIONS,
    SETTINGS,
    TOPICS,
    Notice,
    Notices,
)
from tests.fakes.mint import FakeMint
from tests.fakes.pooler import Pooler
from tests.harness.postgres import Postgres, database_name, installed_programs
from tests.harness.till import open_till
from tests.nodes.conftest import WAIT_S, until


async def next_notice(notices: Notices, topic: str) -> Notice:
    async with asyncio.timeout(WAIT_S):
        while True:
            for notice in await notices.heard():
                if notice.topic == topic:
                    return notice


@pytest.fixture
async def pair(postgres_url: str) -> AsyncIterator[tuple[Notices, Notices]]:
    both = Notices(make_url(postgres_url)), Notices(make_url(postgres_url))
    running = [asyncio.create_task(each.run()) for each in both]
    for each in both:
        missed = await each.heard()  # of the time before: everything
        assert {notice.topic for notice in missed} == set(TOPICS)
        assert each.is_heard
    yield both
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


async def test_what_is_told_is_heard_by_all(pair: tuple[Notices, Notices]) -> None:
    one, other = pair
    for number in range(1, 50):  # faster than they are sent: the newest is what matters
        one.tell(SETTINGS, number)
    assert await next_notice(other, SETTINGS) == Notice(topic=SETTINGS, version=49)
    assert await next_notice(one, SETTINGS) == Notice(topic=SETTINGS, version=49)


async def test_a_program_that_ends_tells_by_itself(
    pair: tuple[Notices, Notices], postgres_url: str
) -> None:
    program = Notices(make_url(postgres_url))
    program.tell(CATALOG)
    await program.flush()
    assert (await next_notice(pair[1], CATALOG)).topic == CATALOG


async def test_after_a_lost_connection_everything_counts_as_changed(
    pair: tuple[Notices, Notices], postgres_url: str, postgres_server: Postgres
) -> None:
    one, other = pair
    postgres_server.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        f" WHERE application_name = '{NAME}' AND datname = '{database_name(postgres_url)}'"
    )
    assert (await next_notice(other, CATALOG)).version == 0
    assert other.is_heard
    await next_notice(one, CATALOG)
    one.tell(SETTINGS, 7)
    assert (await next_notice(other, SETTINGS)).version == 7


async def test_whatever_anybody_says_is_only_a_reason_to_look(
    pair: tuple[Notices, Notices], postgres_url: str
) -> None:
    said = ["settings 8", "settings 7", "nonsense 1", "jobs", "catalog x", "sessions 1"]
    said.append(f"catalog {'9' * 5_000}")
    Postgres(postgres_url, installed_programs()).execute(
        f"SELECT pg_notify('{CHANNEL}', each) FROM unnest(ARRAY{said}) AS each"
    )
    async with asyncio.timeout(WAIT_S):
        heard = await pair[1].heard()
    # Of two changes the last may be one that is known here, so that its number says nothing.
    assert heard == {Notice(topic=SETTINGS), Notice(topic=SESSIONS, version=1)}


async def test_a_pooler_that_swallows_notices_is_found(postgres_url: str) -> None:
    url = make_url(postgres_url)
    assert url.host is not None
    assert url.port is not None
    async with Pooler(url.host, url.port) as pooler:
        behind = url.set(port=pooler.port).update_query_dict({"ssl": "disable"})
        notices = Notices(behind, answer_s=0.5)
        running = asyncio.create_task(notices.run())
        async with asyncio.timeout(WAIT_S):
            for _ in range(2):  # it listened, tried, heard nothing, and tries again
                pooler.stirred.clear()
                await pooler.stirred.wait()
                assert not notices.is_heard
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_who_hears_looks_seldom_and_who_does_not_looks_each_time(
    postgres_url: str, mint: FakeMint
) -> None:
    async with open_till(postgres_url, mint) as one, open_till(postgres_url, mint) as other:
        notices = Notices(make_url(postgres_url))
        ctx = replace(other.ctx, notices=notices)

        async def change(name: str) -> None:
            await change_settings(one.ctx, {"name": name}, changed_by="ann")

        await change("deaf")
        assert await follow(ctx)
        await change("deaf still")
        assert await follow(ctx)
        notices.is_heard = True
        await change("lost on its way")
        assert not await follow(ctx)
        other.clock.advance(HEARD_LOOK_S)
        assert await follow(ctx)
        assert ctx.facts.name == "lost on its way"


async def test_what_is_heard_is_in_force(
    pair: tuple[Notices, Notices], postgres_url: str, mint: FakeMint
) -> None:
    async with open_till(postgres_url, mint) as one, open_till(postgres_url, mint) as other:
        changing, hearing = (
            replace(each.ctx, notices=notices)
            for each, notices in zip((one, other), pair, strict=True)
        )
        looking = asyncio.create_task(hear(hearing))
        await change_settings(changing, {"spending": False}, changed_by="ann")
        await until(lambda: not hearing.switches.spending, "the switch is off everywhere")
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
