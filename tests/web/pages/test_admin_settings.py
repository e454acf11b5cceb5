"""`/admin/settings`: a change holds at once, is in its history, and can be taken back."""

import re

from demo.process import ROOT
from routstr.flows.house.editable import EDITABLE
from routstr.flows.house.fixed import FIXED
from tests.harness.house import House, open_house
from tests.harness.till import ON_SQLITE

PAGE = {"accept": "text/html"}
EVIL = "<img src=x onerror=alert(1)>"


async def save(house: House, name: str, **form: str) -> tuple[int, str]:
    there = f"/admin/settings/{name}"
    answer = await house.admin.post(there, data=form, headers=PAGE)
    return answer.status_code, answer.text


def payout_to(house: House) -> str | None:
    """Where profit goes now."""
    return house.ctx.limits.payout_to


@ON_SQLITE
async def test_a_setting_is_changed_shown_with_its_history_and_taken_back(
    database_url: str,
) -> None:
    async with open_house(database_url) as house:
        assert (await save(house, "name", value=EVIL))[0] == 303
        assert house.ctx.facts.name == EVIL
        for path in ("/admin/settings", "/admin/settings/name"):
            page = (await house.admin.get(path, headers=PAGE)).text
            assert EVIL not in page
            assert "&lt;img src=x" in page
            assert "by admin" in page
        status, page = await save(house, "payout_floor_sats", value="nothing")
        assert (status, 'value="nothing"' in page) == (400, True)
        assert (await save(house, "name", reset="1"))[0] == 303
        assert house.ctx.facts.name == "Shop"
        page = (await house.admin.get("/admin/settings/name", headers=PAGE)).text
        assert "taken back" in page


@ON_SQLITE
async def test_a_switch_says_what_it_stops_and_stops_it(database_url: str) -> None:
    async with open_house(database_url) as house:
        status, _ = await save(house, "spending", value="false", from_list="1")
        assert (status, house.ctx.switches.spending) == (303, False)
        page = (await house.admin.get("/admin/settings", headers=PAGE)).text
        assert "No request is served." in page
        assert "Start again" in page


@ON_SQLITE
async def test_where_money_goes_takes_a_code_and_every_form_its_token(database_url: str) -> None:
    async with open_house(database_url) as house:
        bare = {"cookie": house.admin.headers["cookie"], "origin": house.origin, **PAGE}
        there = "/admin/settings/payout_to"
        for path in ("/admin/settings/name", f"{there}/confirmed"):
            answer = await house.http.post(path, data={"value": "x"}, headers=bare)
            assert answer.status_code == 403
        form = {"value": "eve@example.com"}
        assert (await save(house, "payout_to", **form))[0] == 400
        assert (await house.admin.post(f"{there}/confirmed", data=form, headers=PAGE)).is_error
        assert payout_to(house) is None
        code = {"totp": await house.totp()}
        done = await house.admin.post(f"{there}/confirmed", data={**form, **code}, headers=PAGE)
        assert done.status_code == 303
        assert payout_to(house) == "eve@example.com"
        missing = await house.admin.get("/admin/settings/secret_key", headers=PAGE)
        assert missing.status_code == 404


def test_the_words_of_what_a_start_reads_are_those_of_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([A-Z0-9_]+)` \| .*? \| (.+) \|$", readme, re.MULTILINE)
    told = {name.lower(): meaning.replace("`", "") for name, meaning in rows}
    assert {name: told.get(name) for name in FIXED} == FIXED
    assert not FIXED.keys() & EDITABLE.keys()
