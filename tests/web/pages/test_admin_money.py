"""`/admin/mints`, `/admin/withdrawals`, payouts and invites: said before it is done, done once."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from routstr.flows.bring import bring
from routstr.flows.house.actions import actions
from routstr.flows.house.identity import csrf_token
from routstr.flows.payout import profit_msat
from tests.fakes.mint import FakeMint
from tests.harness.desk import Desk, open_desk
from tests.harness.house import fresh_code, move_in, open_house, session_headers
from tests.harness.till import ON_SQLITE, worth

ORIGIN = "http://localhost"
PAGE = {"accept": "text/html"}
EVIL = "<svg onload=alert(1)>"
PAYOUT = "/admin/withdrawals/payout"
LISTS = (
    "/admin/withdrawals",
    *(f"/admin/withdrawals?list={name}" for name in ("invoices", "operations")),
)


@pytest.fixture
async def mint() -> AsyncIterator[FakeMint]:
    async with FakeMint(units=("sat",)) as mint:
        yield mint


@pytest.fixture
async def desk(sqlite_url: str, mint: FakeMint, tmp_path: Path) -> AsyncIterator[Desk]:
    """A whole node whose operator is logged in and has a profit of 2 000 sat."""
    async with open_desk(sqlite_url, mint, tmp_path / "data", payout_keep_sats=100) as desk:
        await bring(desk.ctx, mint.issue(2_100))
        opened, _ = await move_in(desk.ctx)
        desk.http.headers.update(
            {**session_headers(desk.ctx, opened, ORIGIN), **PAGE, "host": "localhost"}
        )
        yield desk


async def code(desk: Desk) -> dict[str, str]:
    return {"totp": await fresh_code(desk.ctx)}


async def post(desk: Desk, path: str, **form: str) -> httpx.Response:
    return await desk.http.post(path, data=form)


@ON_SQLITE
async def test_an_empty_node_says_what_will_stand_there(database_url: str) -> None:
    async with open_house(database_url) as house:
        said = [
            *("No mint yet", "Nothing waits to be claimed", "No Lightning invoice yet"),
            *("Nothing is under way", "There is nothing to take out yet", "No invite yet"),
        ]
        for path, words in zip(
            ("/admin/mints", *LISTS, PAYOUT, "/admin/invites"), said, strict=True
        ):
            page = await house.admin.get(path, headers=PAGE)
            assert (page.status_code, words in page.text) == (200, True), path
        bare = {"cookie": house.admin.headers["cookie"], "origin": house.origin, **PAGE}
        for path in ("/admin/mints/add", "/admin/mints/remove", f"{PAYOUT}/look", PAYOUT,
                     f"{PAYOUT}/x/token", "/admin/invites", "/admin/invites/x/end"):  # fmt: skip
            assert (await house.http.post(path, data={}, headers=bare)).status_code == 403


@ON_SQLITE
async def test_what_another_sites_page_filled_in_is_never_shown(database_url: str) -> None:
    form = {"way": "lightning", "to": "thief@evil.example", "amount": "21", "fee": "1"}
    async with open_house(database_url) as house:
        for origin in ("https://evil.example", "null"):
            headers = {**PAGE, "origin": origin}
            for path in (PAYOUT, f"{PAYOUT}/look"):
                answer = await house.admin.post(path, data=form, headers=headers)
                assert (answer.status_code, "thief" in answer.text) == (403, False)
        answer = await house.admin.post(PAYOUT, data=form, headers=PAGE)
        assert (answer.status_code, "thief" in answer.text) == (401, True)
        # nor does a cookie that a neighbouring host has set take the pages away
        cookie = house.admin.headers["cookie"]
        for said in ("[[],1]", "[{},1]", "[" * 3_000, '["ok",[]]', "7"):
            headers = {**PAGE, "cookie": f"{cookie}; routstr_said={quote(said)}"}
            assert (await house.admin.get("/admin/invites", headers=headers)).status_code == 200


async def test_a_payout_is_said_then_made_then_shown_again(desk: Desk, mint: FakeMint) -> None:
    before_msat = await profit_msat(desk.ctx)
    form = {"way": "token", "mint_url": mint.url, "amount": "37"}
    plan = await post(desk, f"{PAYOUT}/look", **form)
    assert "Pay out 37 sat" in plan.text
    assert await profit_msat(desk.ctx) == before_msat  # a plan moves nothing
    hidden = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', plan.text))
    form = {name: hidden[name] for name in ("way", "to", "mint_url", "amount", "fee", "once")}
    refused = await post(desk, PAYOUT, **form, totp="000000")
    assert (refused.status_code, "Nothing was paid." in refused.text) == (401, True)
    assert "Pay out 37 sat" in refused.text  # the plan is not lost
    paid = await post(desk, PAYOUT, **form, **await code(desk))
    twice = await post(desk, PAYOUT, **form, **await code(desk))
    assert (paid.status_code, twice.status_code) == (200, 200)
    [token] = re.findall(r"cashuB[\w=-]+(?=</div>)", paid.text)
    assert worth(token) == 37
    assert token in twice.text  # the same one again
    assert await profit_msat(desk.ctx) == before_msat - 37_000
    [noted] = await actions(desk.ctx, limit=1)
    assert (noted.action, token in str(noted)) == ("profit.withdraw", False)
    page = (await desk.http.get(PAYOUT)).text
    assert token not in page
    again = await post(desk, f"{PAYOUT}/{noted.target}/token", **await code(desk))
    assert token in again.text
    listed = (await desk.http.get("/admin/withdrawals")).text
    assert "your payout" in listed
    assert token not in listed


async def test_a_payout_beyond_the_profit_is_refused_before_the_button(
    desk: Desk, mint: FakeMint
) -> None:
    form = {"way": "token", "mint_url": mint.url}
    plan = await post(desk, f"{PAYOUT}/look", **form)  # all there is
    assert "Pay out 2\u2009000 sat" in plan.text
    for amount in ("2001", "0", "much"):
        answer = await post(desk, f"{PAYOUT}/look", **form, amount=amount)
        assert answer.status_code == 400
        assert f'value="{amount}"' in answer.text
    nowhere = await post(desk, f"{PAYOUT}/look", way="lightning", to="lnbc1nothing")
    assert (nowhere.status_code, "lnbc1nothing" in nowhere.text) == (400, True)


async def test_mints_are_shown_added_and_taken_off_with_a_code(desk: Desk, mint: FakeMint) -> None:
    page = (await desk.http.get("/admin/mints")).text
    assert mint.url.removeprefix("http://") in page
    assert "Against the float" in page
    other = FakeMint(fee_ppk=100)  # whose keyset is another one
    async with other:
        assert (await post(desk, "/admin/mints/add", mint_url=other.url)).status_code == 401
        form = {"mint_url": other.url, **await code(desk)}
        added = await post(desk, "/admin/mints/add", **form)
        assert added.status_code == 303, re.findall(r"<strong>.*", added.text)
        assert desk.ctx.facts.mints == (mint.url, other.url)
        form = {"mint_url": other.url, **await code(desk)}
        assert (await post(desk, "/admin/mints/remove", **form)).status_code == 303
    form = {"mint_url": mint.url, **await code(desk)}
    last = await post(desk, "/admin/mints/remove", **form)
    assert last.status_code == 400
    assert "add another one first" in last.text


@ON_SQLITE
async def test_an_invite_is_shown_once_and_ended(database_url: str) -> None:
    async with open_house(database_url) as house:
        assert csrf_token(house.ctx, house.opened.session_id) == house.csrf
        form = {"uses": "3", "note": EVIL, "expires_at": "2030-01-01T00:00"}
        wrong = await house.admin.post("/admin/invites", data={**form, "uses": "0"}, headers=PAGE)
        assert (wrong.status_code, 'value="2030-01-01T00:00"' in wrong.text) == (400, True)
        made = await house.admin.post("/admin/invites", data=form, headers=PAGE)
        [secret] = re.findall(r'class="secret long"[^>]*>([^<]+)<', made.text)
        page = (await house.admin.get("/admin/invites", headers=PAGE)).text
        assert secret not in page
        assert EVIL not in page
        assert "&lt;svg onload" in page
        [ended] = re.findall(r'action="(/admin/invites/[^"]+/end)"', page)
        assert (await house.admin.post(ended, headers=PAGE)).status_code == 303
        page = (await house.admin.get("/admin/invites", headers=PAGE)).text
        assert "/end" not in page
