"""What every answer carries and no request may, around an app of the test's own."""

from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.types import Message

from routstr.web.middleware import EXPOSED
from tests.harness.shop import Shop, open_shop

ORIGIN = {"origin": "https://wallet.example"}


@pytest.fixture
async def shop(sqlite_url: str) -> AsyncIterator[Shop]:
    async with open_shop(sqlite_url) as shop:
        routes = list(shop.app.router.routes)
        shop.app.router.routes.clear()
        for path in ("/page", "/v1/balance/info", "/v2/lightning/x", "/admin/api/settings"):
            shop.app.get(path)(_page)
        shop.app.get("/bug")(_bug)
        shop.app.router.routes.extend(routes)
        yield shop


def _page() -> dict[str, str]:
    return {}


def _bug() -> None:
    raise ValueError("secret")


async def test_every_answer_has_an_id_of_its_own(shop: Shop) -> None:
    seen = set()
    for path in ("/page", "/page", "/missing", "/bug"):
        headers = (await shop.http.get(path)).headers
        request_id = headers["x-request-id"]
        assert headers["x-routstr-request-id"] == request_id
        assert len(request_id) == 36
        assert request_id.startswith("req_")
        seen.add(request_id)
    assert len(seen) == 4


async def test_any_site_may_read_answers_but_not_with_cookies(shop: Shop) -> None:
    headers = (await shop.http.get("/page", headers=ORIGIN)).headers
    assert headers["access-control-allow-origin"] == "*"
    assert headers["access-control-expose-headers"] == ", ".join(EXPOSED)
    assert "access-control-allow-credentials" not in headers
    refused = (await shop.http.post("/v1/x", headers=ORIGIN)).headers
    assert refused["access-control-allow-origin"] == "*"


async def test_a_preflight_is_answered(shop: Shop) -> None:
    asked = {
        **ORIGIN,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization, idempotency-key",
    }
    for path in ("/v1/chat/completions", "/v1/balance/info"):
        answer = await shop.http.options(path, headers=asked)
        assert answer.status_code == 204
        assert answer.headers["access-control-allow-origin"] == "*"
        assert answer.headers["access-control-allow-headers"] == "authorization, idempotency-key"
        assert "POST" in answer.headers["access-control-allow-methods"]


async def test_the_admin_is_for_its_own_site_alone(shop: Shop) -> None:
    path = "/admin/api/settings"
    assert "access-control-allow-origin" not in (await shop.http.get(path, headers=ORIGIN)).headers
    asked = {**ORIGIN, "access-control-request-method": "GET"}
    answer = await shop.http.options(path, headers=asked)
    assert answer.status_code == 405
    assert "access-control-allow-origin" not in answer.headers


async def test_what_is_somebodys_own_is_not_stored(shop: Shop) -> None:
    money = ("/v1/balance/info", "/v2/lightning/x", "/v1/wallet/missing")
    for path in (*money, "/admin/api/settings", "/admin/api/temporary-balances", "/metrics"):
        assert (await shop.http.get(path)).headers.get_list("cache-control") == ["no-store"]
    assert "cache-control" not in (await shop.http.get("/page")).headers


async def test_an_exception_that_escapes_is_enveloped(shop: Shop) -> None:
    answer = await shop.http.get("/bug")
    assert answer.status_code == 500
    body = answer.json()
    assert body["error"]["code"] == "internal_error"
    assert body["request_id"] == answer.headers["x-request-id"]
    assert "secret" not in answer.text


@pytest.mark.parametrize("count", [99, 100])
async def test_too_many_headers_are_refused(shop: Shop, count: int) -> None:
    own = len(shop.http.build_request("GET", "/page").headers)
    headers = {f"x-{n}": "1" for n in range(count - own + 1)}
    status = (await shop.http.get("/page", headers=headers)).status_code
    assert status == (200 if count == 99 else 413)


@pytest.mark.parametrize(
    ("path", "query", "value"),
    [
        ("/page\r\nx: y", b"", b"a"),
        ("/page\x00", b"", b"a"),
        ("/page", b"a\nb", b"a"),
        ("/page", b"", b"a\r\nb: c"),
        ("/page", b"", b"a\x00"),
    ],
)
async def test_control_characters_are_refused(
    shop: Shop, path: str, query: bytes, value: bytes
) -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "query_string": query,
        "headers": [(b"x-any", value)],
    }
    await shop.app(scope, receive, send)
    assert sent[0]["status"] == 400


async def test_a_failure_after_the_first_byte_just_ends(shop: Shop) -> None:
    async def broken(scope: object, receive: object, send: object) -> None:
        assert callable(send)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ValueError("late")

    shop.app.mount("/broken", broken)
    shop.app.router.routes.insert(0, shop.app.router.routes.pop())
    with pytest.raises(httpx.RemoteProtocolError):
        await shop.http.get("/broken/")
