"""The operator's door: who gets through which of its four leaves, and what everybody else hears."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, Form

from routstr.flows.house.account import make_token
from routstr.flows.house.identity import Peer, log_in
from routstr.web.admin.guard import Confirmed, Reading, Withdrawing, Writing
from routstr.web.pages.forms import PageRoute
from tests.harness.house import PASSWORD, House, app_code, open_house, session_headers
from tests.harness.shop import open_shop
from tests.harness.till import ON_SQLITE

pytestmark = ON_SQLITE

PAGE = {"accept": "text/html,*/*"}

router = APIRouter(route_class=PageRoute)


@router.get("/admin/api/try")
async def read_it(admin: Reading) -> str:
    return admin.name


@router.get("/admin/try")
async def show_it(admin: Reading) -> str:
    return admin.name


@router.post("/admin/api/try/write")
async def write_it(admin: Writing, word: str = Form("")) -> str:
    return admin.name + word


@router.post("/admin/api/try/confirm")
async def confirm_it(admin: Confirmed) -> str:
    return admin.name


@router.post("/admin/api/try/withdraw")
async def withdraw_it(admin: Withdrawing) -> str:
    return admin.name


@pytest.fixture
async def house(database_url: str) -> AsyncIterator[House]:
    async with open_house(database_url) as house:
        house.shop.app.router.routes[:0] = router.routes
        yield house


def refused(answer: httpx.Response) -> tuple[int, str]:
    error: dict[str, Any] = answer.json()["error"]
    return answer.status_code, error["code"]


async def test_a_session_goes_through_every_leaf_as_far_as_it_proves_itself(house: House) -> None:
    admin = house.admin
    assert (await admin.get("/admin/api/try")).json() == "admin"
    assert (await admin.post("/admin/api/try/write")).json() == "admin"
    for leaf in ("confirm", "withdraw"):
        path = f"/admin/api/try/{leaf}"
        assert refused(await admin.post(path)) == (401, "totp_required")
        code = await house.totp()
        wrong = {"x-admin-totp": f"{(int(code) + 1) % 10**6:06}"}
        assert refused(await admin.post(path, headers=wrong)) == (401, "invalid_credentials")
        assert (await admin.post(path, headers={"x-admin-totp": code})).json() == "admin"
        again = await admin.post(path, headers={"x-admin-totp": code})
        assert refused(again) == (401, "invalid_credentials")


async def test_a_form_carries_both_tokens_in_its_fields(house: House) -> None:
    headers = {"cookie": house.admin.headers["cookie"], "origin": house.origin}
    form = {"csrf": house.csrf, "word": "!"}
    path = "/admin/api/try/write"
    assert (await house.http.post(path, headers=headers, data=form)).json() == "admin!"
    form = {"csrf": house.csrf, "totp": await house.totp()}
    path = "/admin/api/try/confirm"
    assert (await house.http.post(path, headers=headers, data=form)).json() == "admin"
    too_long = {"csrf": "x" * 300_000}
    assert (await house.http.post(path, headers=headers, data=too_long)).status_code == 413
    packed = {**headers, "content-type": "multipart/form-data; boundary=x"}
    assert (await house.http.post(path, headers=packed, content=b"--x")).status_code == 415


NOT_OURS: list[dict[str, str | None]] = [
    {"x-csrf-token": None},
    {"x-csrf-token": "0" * 64},
    {"x-csrf-token": "ö"},
    {"origin": None},
    {"origin": "null"},
    {"origin": "https://evil.example"},
    {"origin": "https://127.0.0.1"},
    {"origin": "http://127.0.0.1:1"},
    {"origin": "http://127.0.0.1:{port}.evil.example"},
    {"origin": "http://evil.example", "host": "evil.example"},
]


async def test_a_write_that_no_page_of_ours_sent(house: House) -> None:
    code = await house.totp()
    for changes in NOT_OURS:
        headers = {**session_headers(house.ctx, house.opened, house.origin), **changes}
        sent = [
            (name.encode(), value.replace("{port}", str(house.shop.port)).encode())
            for name, value in {**headers, "x-admin-totp": code}.items()
            if value is not None
        ]
        for leaf in ("write", "confirm"):
            answer = await house.http.post(f"/admin/api/try/{leaf}", headers=sent)
            assert refused(answer) == (403, "csrf_failed"), changes
    # the code was not even looked at
    path = "/admin/api/try/confirm"
    assert (await house.admin.post(path, headers={"x-admin-totp": code})).status_code == 200


async def test_a_csrf_token_is_of_one_session(house: House) -> None:
    opened = await log_in(
        house.ctx, password=PASSWORD, code=await house.totp(), peer=Peer(address="192.0.2.2")
    )
    headers = session_headers(house.ctx, opened, house.origin)
    path = "/admin/api/try/write"
    assert (await house.http.post(path, headers=headers)).status_code == 200
    mixed = {**headers, "x-csrf-token": house.csrf}
    assert refused(await house.http.post(path, headers=mixed)) == (403, "csrf_failed")


async def test_the_public_address_is_an_origin_and_plain_http_is_not(database_url: str) -> None:
    async with open_house(database_url, facts_http_url="https://node.example/x") as house:
        house.shop.app.router.routes[:0] = router.routes
        for origin, host, status in (
            ("https://node.example", "inside", 200),
            ("http://node.example", "node.example", 403),
            ("https://other.example", "other.example", 200),
            ("http://abc.onion", "abc.onion", 200),
            ("http://[::1]:8000", "[::1]:8000", 200),
        ):
            headers = {"origin": origin, "host": host}
            answer = await house.admin.post("/admin/api/try/write", headers=headers)
            assert answer.status_code == status, (origin, host)


async def test_a_token_does_what_its_scopes_say_and_nothing_else(house: House) -> None:
    leaves = {"read": "read", "write": "write", "confirm": "write", "withdraw": "withdraw"}
    for scope in ("read", "write", "withdraw"):
        made = await make_token(house.ctx, house.user_id, name=scope, scopes=[scope], actor="admin")
        bearer = {"authorization": f"Bearer {made.token}"}
        for leaf, needed in leaves.items():
            method, path = ("GET", "") if leaf == "read" else ("POST", f"/{leaf}")
            answer = await house.http.request(method, f"/admin/api/try{path}", headers=bearer)
            if needed == scope:
                assert answer.json() == f"token {scope}"
            else:
                assert refused(answer) == (403, "admin_required")


async def test_a_wrong_bearer_is_not_saved_by_a_cookie(house: House) -> None:
    for shown in (
        f"Bearer rst_{'0' * 64}",
        f"Bearer sk-{'0' * 64}",
        "Bearer",
        f"Bearer {house.token} x",
        f"Bearer {house.opened.token}",
    ):
        answer = await house.admin.get("/admin/api/try", headers={"authorization": shown})
        assert refused(answer) == (403, "admin_required"), shown
    by_proxy = {"authorization": "Basic YTpi"}
    assert (await house.admin.get("/admin/api/try", headers=by_proxy)).json() == "admin"
    answer = await house.http.get("/admin/api/try", headers=by_proxy)
    assert refused(answer) == (403, "admin_required")


async def test_nobody_is_sent_where_he_can_log_in(house: House) -> None:
    nobody = house.http
    for method, path in (("GET", "/admin/api/try"), ("POST", "/admin/api/try/withdraw")):
        answer = await nobody.request(method, path, headers=PAGE)
        assert refused(answer) == (403, "admin_required")
    assert refused(await nobody.get("/admin/try")) == (403, "admin_required")
    answer = await nobody.get("/admin/try?after=a%20b&x=1", headers=PAGE)
    assert answer.status_code == 303
    assert answer.headers["location"] == "/admin/login?next=/admin/try%3Fafter%3Da%2520b%26x%3D1"
    assert answer.headers["cache-control"] == "no-store"
    partly = await nobody.get("/admin/try", headers={**PAGE, "hx-request": "true"})
    assert (partly.status_code, partly.headers["hx-redirect"]) == (403, "/admin/login")
    stale = await nobody.get("/admin/try", headers={**PAGE, "cookie": "__Host-routstr_admin=x"})
    assert stale.headers["location"] == "/admin/login?next=/admin/try"
    for referer, where in (
        (f"{house.origin}/admin/settings/name", "/admin/settings/name"),
        ("https://evil.example/login", "/admin"),
    ):
        late = await nobody.post("/admin/settings/name", headers={**PAGE, "referer": referer})
        assert late.headers["location"] == f"/admin/login?ended=1&next={where}"


async def test_before_the_set_up_a_browser_is_told_of_it(database_url: str) -> None:
    async with open_shop(database_url) as shop:
        shop.app.router.routes[:0] = router.routes
        answer = await shop.http.get("/admin/try", headers=PAGE)
        assert (answer.status_code, answer.headers["location"]) == (303, "/admin/setup")


async def test_what_the_app_shows_next_is_taken_too(house: House) -> None:
    await house.totp()
    code = {"x-admin-totp": await app_code(house.ctx, 1)}
    path = "/admin/api/try/confirm"
    assert (await house.admin.post(path, headers=code)).status_code == 200
    before = {"x-admin-totp": await app_code(house.ctx)}
    assert refused(await house.admin.post(path, headers=before)) == (401, "invalid_credentials")
