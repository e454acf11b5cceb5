"""`/admin/api/login` and what follows: the cookie, tokens for programs, the password."""

from collections.abc import AsyncIterator
from http.cookies import SimpleCookie

import httpx
import pytest

from tests.harness.house import PASSWORD, House, open_house
from tests.harness.shop import open_shop
from tests.harness.till import ON_SQLITE
from tests.web.admin.test_guard import refused

pytestmark = ON_SQLITE

API = "/admin/api"


@pytest.fixture
async def house(database_url: str) -> AsyncIterator[House]:
    async with open_house(database_url) as house:
        yield house


def cookies(answer: httpx.Response) -> dict[str, SimpleCookie]:
    """Each cookie that was set, by its name."""
    found = {}
    for line in answer.headers.get_list("set-cookie"):
        cookie = SimpleCookie(line)
        found.update(dict.fromkeys(cookie, cookie))
    return found


async def test_a_log_in_and_its_end(house: House) -> None:
    http, body = house.http, {"password": PASSWORD}
    assert refused(await http.post(f"{API}/login", json=body)) == (401, "totp_required")
    body["totp"] = await house.totp()
    wrong = await http.post(f"{API}/login", json={**body, "password": "wrong"})
    assert refused(wrong) == (401, "invalid_credentials")
    assert "set-cookie" not in wrong.headers
    answer = await http.post(f"{API}/login", json=body)
    assert answer.status_code == 200, answer.text
    assert {**answer.json(), "token": ""} == {"ok": True, "token": "", "expires_in": 12 * 3600}
    assert answer.headers["cache-control"] == "no-store"
    assert set(cookies(answer)) == {"__Host-routstr_admin", "__Host-routstr_device"}
    for line in answer.headers.get_list("set-cookie"):
        attributes = {part.strip().lower() for part in line.split(";")[1:]}
        assert {"secure", "httponly", "samesite=strict", "path=/"} <= attributes
        assert not any(each.startswith("domain") for each in attributes)
    cookie = cookies(answer)["__Host-routstr_admin"]["__Host-routstr_admin"].value
    assert cookie not in answer.text
    again = await http.post(f"{API}/login", json=body)
    assert refused(again) == (401, "invalid_credentials")

    headers = {"cookie": f"__Host-routstr_admin={cookie}", "origin": house.origin}
    headers["x-csrf-token"] = answer.json()["token"]
    assert (await http.get(f"{API}/cli-tokens", headers=headers)).status_code == 200
    left = await http.post(f"{API}/logout", headers=headers)
    assert left.json() == {"ok": True}
    assert "__Host-routstr_admin" in cookies(left)
    assert refused(await http.get(f"{API}/cli-tokens", headers=headers)) == (403, "admin_required")
    assert (await house.admin.get(f"{API}/cli-tokens")).status_code == 200


async def test_no_other_site_logs_anybody_in(house: House) -> None:
    body = {"password": PASSWORD, "totp": await house.totp()}
    evil = {"origin": "https://evil.example"}
    assert refused(await house.http.post(f"{API}/login", json=body, headers=evil)) == (
        403,
        "csrf_failed",
    )
    as_form = await house.http.post(f"{API}/login", data=body)
    assert refused(as_form) == (415, "unsupported_media_type")
    ours = {"origin": house.origin}
    answer = await house.http.post(f"{API}/login", json=body, headers=ours)
    assert answer.status_code == 200
    assert "access-control-allow-origin" not in answer.headers


async def test_too_many_tries_are_told_when_to_come_back(house: House) -> None:
    body = {"password": "wrong", "totp": "123456"}
    heard = [await house.http.post(f"{API}/login", json=body) for _ in range(6)]
    assert [each.status_code for each in heard] == [401] * 5 + [429]
    assert int(heard[-1].headers["retry-after"]) >= 1
    body = {"password": PASSWORD, "totp": await house.totp()}
    right = await house.http.post(f"{API}/login", json=body)
    assert refused(right) == (429, "rate_limit_exceeded")
    assert (await house.admin.get(f"{API}/cli-tokens")).status_code == 200


async def test_before_the_set_up_nobody_logs_in(database_url: str) -> None:
    async with open_shop(database_url) as shop:
        answer = await shop.http.post(f"{API}/login", json={"password": PASSWORD, "totp": "1"})
        assert refused(answer) == (401, "invalid_credentials")


async def test_tokens_are_made_by_a_session_with_a_code(house: House) -> None:
    wish = {"name": "cron", "scopes": ["read", "withdraw"], "expires_in_days": 7}
    path = f"{API}/cli-tokens"
    assert refused(await house.admin.post(path, json=wish)) == (401, "totp_required")
    by_token = await house.http.post(path, json=wish, headers=house.bearer)
    assert refused(by_token) == (403, "admin_required")
    code = {"x-admin-totp": await house.totp()}
    bad = await house.admin.post(path, json={**wish, "scopes": ["root"]}, headers=code)
    assert refused(bad) == (400, "invalid_parameter")
    code = {"x-admin-totp": await house.totp()}
    made = (await house.admin.post(path, json=wish, headers=code)).json()
    assert made["token"].startswith("rst_")
    assert made["token_preview"] == f"{made['token'][:8]}…{made['token'][-4:]}"
    assert made["expires_at"] - made["created_at"] == 7 * 86_400
    listed = await house.admin.get(path)
    assert (listed.json()["total"], made["token"] in listed.text) == (2, False)
    bearer = {"authorization": f"Bearer {made['token']}"}
    assert (await house.http.get(path, headers=bearer)).status_code == 200
    assert (await house.admin.delete(f"{path}/{made['id']}")).json() == {"ok": True}
    assert refused(await house.http.get(path, headers=bearer)) == (403, "admin_required")
    assert refused(await house.admin.delete(f"{path}/{made['id']}")) == (404, "not_found")


async def test_another_password_ends_every_session(house: House) -> None:
    path, body = f"{API}/password", {"current_password": PASSWORD, "new_password": "n" * 12}
    by_token = await house.http.patch(path, json=body, headers=house.bearer)
    assert refused(by_token) == (403, "admin_required")
    code = {"x-admin-totp": await house.totp()}
    wrong = await house.admin.patch(path, json={**body, "current_password": "x"}, headers=code)
    assert refused(wrong) == (401, "invalid_credentials")
    code = {"x-admin-totp": await house.totp()}
    assert (await house.admin.patch(path, json=body, headers=code)).json() == {"ok": True}
    assert refused(await house.admin.get(f"{API}/cli-tokens")) == (403, "admin_required")
    tokens = await house.http.get(f"{API}/cli-tokens", headers=house.bearer)
    assert tokens.status_code == 200
