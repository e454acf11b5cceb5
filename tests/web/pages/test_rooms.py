"""The operator's rooms as he walks through them: every page whole, every form without a script."""

import asyncio
import re

import httpx

from routstr.flows.house.jobs import runs_of
from routstr.web.pages.shell import ROOMS
from tests.harness.house import House, open_house
from tests.harness.shop import PATH, order
from tests.harness.till import ON_SQLITE, WAIT_S

HTML = {"accept": "text/html"}


async def post(house: House, path: str, **fields: str) -> httpx.Response:
    """A form of the page, as a browser without a script sends it."""
    return await house.admin.post(
        path, data={"csrf": house.csrf, **fields}, headers={**HTML, "x-csrf-token": ""}
    )


async def said_after(house: House, answer: httpx.Response) -> str:
    """The sentence on the page that an action leads to, and that it is not there twice."""
    assert answer.status_code == 303, answer.text
    cookie = answer.headers["set-cookie"].partition(";")[0]
    mine = house.admin.headers["cookie"]
    page = await house.admin.get(
        answer.headers["location"], headers={**HTML, "cookie": f"{mine}; {cookie}"}
    )
    assert 'routstr_said=""; expires' in page.headers["set-cookie"]
    [said] = re.findall(r"data-toast>([^<]+)<", page.text)
    return str(said)


async def ended(house: House) -> None:
    """Wait until what was started has ended."""
    async with asyncio.timeout(WAIT_S):
        while any(run.finished_at is None for run in await runs_of(house.ctx)):
            await asyncio.gather(*house.ctx.tasks._tasks)


@ON_SQLITE
async def test_a_check_and_a_job_are_run_from_their_pages(database_url: str) -> None:
    async with open_house(database_url) as house:
        page = await house.admin.get("/admin/audit", headers=HTML)
        assert "Not checked yet" in page.text
        for fields in ({"full": "1"}, {}):
            assert await said_after(house, await post(house, "/admin/audit", **fields)) == (
                "The check has started."
            )
            await ended(house)
        page = await house.admin.get("/admin/audit", headers=HTML)
        assert "Every msat adds up." in page.text
        started = await post(house, "/admin/jobs/expire-keys/run", dry_run="1")
        assert await said_after(house, started) == "Looking what expire-keys would do."
        await ended(house)
        page = await house.admin.get("/admin/jobs/expire-keys", headers=HTML)
        assert "dry run" in page.text
        page = await house.admin.get("/admin/actions", headers=HTML)
        assert page.text.count("audit run") == 2
        assert "job run" in page.text


@ON_SQLITE
async def test_a_person_reads_a_sentence_and_a_program_the_envelope(database_url: str) -> None:
    async with open_house(database_url) as house:
        lost = await house.admin.get("/admin/jobs/nothing", headers=HTML)
        assert (lost.status_code, "There is no job nothing." in lost.text) == (404, True)
        assert "default-src 'none'" in lost.headers["content-security-policy"]
        assert (await house.admin.get("/admin/jobs/nothing")).json()["error"]["code"] == "not_found"
        refused = await house.admin.post(
            "/admin/audit",
            data={"csrf": "wrong"},
            headers={**HTML, "x-csrf-token": "", "referer": "http://x/admin/audit?y=1"},
        )
        assert refused.headers["location"] == "/admin/audit?y=1"
        assert await said_after(house, refused)


@ON_SQLITE
async def test_every_room_is_there_for_who_has_a_session(database_url: str) -> None:
    async with open_house(database_url) as house:
        for room in ROOMS:
            sent = await house.http.get(room.path, headers=HTML)
            assert (sent.status_code, sent.headers["location"].partition("?")[0]) == (
                303,
                "/admin/login",
            )
            page = await house.admin.get(room.path, headers=HTML)
            assert page.status_code == 200, room.path
            assert f'href="{room.path}" aria-current="page"' in page.text
        for odd in ("keys?search=a%00", "withdrawals?search=%00", f"actions?before={10**20}",
                    "jobs/audit?before=0001-01-01T00:00:00%2B23:59",
                    "api/transactions?search=%00"):  # fmt: skip
            page = await house.admin.get(f"/admin/{odd}", headers=HTML)
            assert page.status_code == 400, odd


@ON_SQLITE
async def test_a_request_is_followed_from_its_id(database_url: str) -> None:
    async with open_house(database_url) as house:
        key = await house.shop.key()
        bought = await house.http.post(PATH, headers=key.headers, json=order())
        request_id = bought.headers["x-request-id"]
        page = await house.admin.get(f"/admin/logs/{request_id}", headers=HTML)
        for said in (request_id, key.id, "settled", "usage", "completed"):
            assert said in page.text
        assert (await house.admin.get("/admin/logs/req_0", headers=HTML)).status_code == 404
        for query in ("level=error", "level=nonsense", "search=nothing+has+this", "before=1"):
            assert (await house.admin.get(f"/admin/logs?{query}", headers=HTML)).status_code == 200
