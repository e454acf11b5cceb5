"""The operator's first page: whole on a node that sells and on an empty one, and live."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from routstr.flows.house.account import revoke_token, tokens
from routstr.flows.house.herald import LISTENERS_MAX, Herald
from routstr.flows.house.identity import log_out, session_of
from routstr.web.pages.overview_view import PARTS
from tests.harness.house import House, open_house
from tests.harness.shop import PATH, order
from tests.harness.till import ON_SQLITE, WAIT_S

HTML = {"accept": "text/html"}


@asynccontextmanager
async def listening(house: House) -> AsyncIterator[AsyncIterator[str]]:
    """The lines of the stream of events that say something."""
    async with house.admin.stream("GET", "/admin/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield (line async for line in answer.aiter_lines() if line)


async def test_the_page_is_whole_and_its_equation_adds_up(database_url: str) -> None:
    async with open_house(database_url) as house:
        page = (await house.admin.get("/admin", headers=HTML)).text
        assert "Nothing in this time" in page
        key = await house.shop.key(5_000_000)
        for _ in range(3):
            await house.http.post(PATH, headers=key.headers, json=order())
        page = (await house.admin.get("/admin?span=1h", headers=HTML)).text
        money = page[page.index('id="money"') : page.index('id="figures"')]
        wallet, users, in_flight, yours = (
            int(each) for each in re.findall(r'title="(-?\d+) msat"', money)
        )
        assert wallet == users + in_flight + yours
        assert 0 < users < 5_000_000
        assert '"values": [' in page.replace("&#34;", '"')
        for name in PARTS:
            part = await house.admin.get(f"/admin/parts/{name}?span=30d")
            assert f'id="{name}"' in part.text


@ON_SQLITE
async def test_who_watches_is_told_what_has_changed(database_url: str) -> None:
    async with open_house(database_url) as house:
        house.ctx.herald.look_s = 0.01
        async with asyncio.timeout(WAIT_S), listening(house) as lines:
            assert await anext(lines) == ": here"
            key = await house.shop.key(5_000_000)
            await house.http.post(PATH, headers=key.headers, json=order())
            async for line in lines:
                if line.startswith("data: ") and "money" in line:
                    break
            house.ctx.herald.end()
            async for _ in lines:
                pass


@ON_SQLITE
async def test_nobody_watches_beyond_his_session(database_url: str) -> None:
    async with open_house(database_url) as house:
        house.ctx.herald.look_s = 0.01
        async with asyncio.timeout(WAIT_S), listening(house) as lines:
            assert await anext(lines) == ": here"
            session = await session_of(house.ctx, house.opened.token)
            assert session is not None
            await log_out(house.ctx, session)
            async for _ in lines:
                pass
        assert len(house.ctx.herald) == 0
        assert (await house.admin.get("/admin/events")).status_code == 403


@ON_SQLITE
async def test_a_program_watches_for_as_long_as_its_token_is_good(database_url: str) -> None:
    async with open_house(database_url) as house:
        house.ctx.herald.look_s = 0.01
        [token] = await tokens(house.ctx)
        watched = house.http.stream("GET", "/admin/events", headers=house.bearer)
        async with asyncio.timeout(WAIT_S), watched as answer:
            lines = (line async for line in answer.aiter_lines() if line)
            assert await anext(lines) == ": here"
            await anext(lines)  # and it goes on
            await revoke_token(house.ctx, house.user_id, token.id, actor="admin")
            async for _ in lines:
                pass


@ON_SQLITE
async def test_few_may_watch_at_once(database_url: str) -> None:
    async with open_house(database_url) as house:
        house.ctx.herald._listeners = LISTENERS_MAX
        assert (await house.admin.get("/admin/events")).status_code == 429
        house.ctx.herald._listeners = 0


async def test_one_look_serves_all_who_watch() -> None:
    herald, looks = Herald(look_s=60), []

    async def look() -> dict[str, str]:
        looks.append("look")
        return {"money": "0"}

    async def goes_on() -> bool:
        return True

    watching = [herald.changes(look, goes_on) for _ in range(3)]
    assert [await anext(each) for each in watching] == [(), (), ()]
    assert (len(herald), looks) == (3, ["look"])
    herald.end()
    for each in watching:
        with pytest.raises(StopAsyncIteration):
            await anext(each)
    assert len(herald) == 0
