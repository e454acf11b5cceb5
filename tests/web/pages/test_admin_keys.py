"""`/admin/keys`: found by what is known of them, never by a text in an address; bound and ended."""

from routstr.flows.house.actions import actions
from routstr.flows.house.keys import key_shown
from tests.harness.funding import FundedKey
from tests.harness.house import House, open_house
from tests.harness.shop import PATH, order
from tests.harness.till import ON_SQLITE

pytestmark = ON_SQLITE

PAGE = {"accept": "text/html"}


async def find(house: House, text: str) -> str:
    """Where a search leads, or what it says."""
    answer = await house.admin.post("/admin/keys/search", data={"search": text}, headers=PAGE)
    return answer.headers.get("location", "") or answer.text


async def bind(house: House, key: FundedKey, **form: str) -> tuple[int, str]:
    there = f"/admin/keys/{key.id}/limits"
    answer = await house.admin.post(there, data=form, headers=PAGE)
    return answer.status_code, answer.text


async def test_an_empty_node_says_where_keys_come_from(database_url: str) -> None:
    async with open_house(database_url) as house:
        page = await house.admin.get("/admin/keys", headers=PAGE)
        assert (page.status_code, "No keys yet" in page.text) == (200, True)
        assert (await house.admin.get("/admin/keys/key_none", headers=PAGE)).status_code == 404


async def test_a_key_is_found_and_its_text_is_in_no_address(database_url: str) -> None:
    async with open_house(database_url) as house:
        key = await house.shop.key(21_500)
        there = f"/admin/keys/{key.id}"
        assert await find(house, key.text) == there
        assert await find(house, key.id) == f"/admin/keys?search={key.id}"
        assert "No key of this node" in await find(house, f"sk-{'0' * 64}")
        assert "That is a token" in await find(house, "cashuBo2F0gaJhaUg")
        listed = await house.admin.get(f"/admin/keys?search={key.id}", headers=PAGE)
        assert there in listed.text
        typed = await house.admin.get(f"/admin/keys?search={key.text}", headers=PAGE)
        assert key.text not in typed.text
        none = await house.admin.get("/admin/keys?shown=revoked", headers=PAGE)
        assert "No key fits" in none.text


async def test_a_key_shows_its_rows_and_the_requests_behind_them(database_url: str) -> None:
    async with open_house(database_url) as house:
        key = await house.shop.key(1_000_000)
        answer = await house.http.post(PATH, headers=key.headers, json=order())
        request_id = answer.headers["x-request-id"]
        await house.shop.quiet()
        page = (await house.admin.get(f"/admin/keys/{key.id}", headers=PAGE)).text
        assert f"/admin/logs/{request_id}" in page
        assert key.text not in page
        first = await house.admin.get(f"/admin/keys/{key.id}?before=2", headers=PAGE)
        assert request_id not in first.text
        assert "Paid in" in first.text


async def test_terms_are_kept_or_come_back_as_they_were_typed(database_url: str) -> None:
    async with open_house(database_url) as house:
        key = await house.shop.key(5_000)
        status, page = await bind(house, key, balance_limit_msat="1.5", concurrent_max="many")
        assert (status, 'value="1.5"' in page, "A whole number" in page) == (400, True, True)
        terms = {"balance_limit_msat": "1 500.5", "limit_reset": "daily", "concurrent_max": "3"}
        status, _ = await bind(house, key, **terms, expires_at="2030-12-31T10:00")
        assert status == 303
        bound = (await key_shown(house.ctx, key.id)).key.key
        assert (bound.balance_limit_msat, bound.limit_reset) == (1_500_500, "daily")
        assert bound.rates["concurrent_max"] == 3
        page = (await house.admin.get(f"/admin/keys/{key.id}", headers=PAGE)).text
        assert 'value="2030-12-31T10:00"' in page
        await bind(house, key)
        assert (await key_shown(house.ctx, key.id)).key.key.balance_limit_msat is None


async def test_a_revoked_key_serves_nothing_and_keeps_its_money(database_url: str) -> None:
    async with open_house(database_url) as house:
        key = await house.shop.key(500_000)
        there = f"/admin/keys/{key.id}"
        bare = {"cookie": house.admin.headers["cookie"], "origin": house.origin, **PAGE}
        for path in ("revoke", "revive", "limits"):
            assert (await house.http.post(f"{there}/{path}", headers=bare)).status_code == 403
        assert (await house.admin.post(f"{there}/revoke", headers=PAGE)).status_code == 303
        refused = await house.http.post(PATH, headers=key.headers, json=order())
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "key_revoked")
        page = (await house.admin.get(there, headers=PAGE)).text
        assert "This key is revoked" in page
        assert (await key_shown(house.ctx, key.id)).key.key.balance_msat == 500_000
        assert (await house.admin.post(f"{there}/revive", headers=PAGE)).status_code == 303
        served = await house.http.post(PATH, headers=key.headers, json=order())
        assert served.status_code == 200
        noted = [(each.action, each.detail) for each in await actions(house.ctx, limit=2)]
        assert noted == [("key.change", {"revoked": False}), ("key.change", {"revoked": True})]
