"""Everything that is refused for nothing: in the one envelope, before any hold or upstream call."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import httpx
import pytest

from tests.harness.funding import FundedKey, fund, usage_rows
from tests.harness.shop import PATH, Shop, open_shop, order, until

BODY_BYTES_MAX = 20_000
STRANGER = f"sk-{'0' * 64}"


@pytest.fixture
async def shop(database_url: str) -> AsyncIterator[Shop]:
    async with open_shop(
        database_url,
        facts_body_bytes_max=BODY_BYTES_MAX,
        bodies_bytes_max=2 * BODY_BYTES_MAX,
        body_timeout_s=0.3,
    ) as shop:
        yield shop


@dataclass(frozen=True, kw_only=True)
class Case:
    status: int
    code: str
    body: bytes = field(default_factory=lambda: json.dumps(order()).encode())
    param: str | None = None
    path: str = PATH
    headers: dict[str, str] = field(default_factory=dict)
    with_key: bool = True
    message: str | None = None


def given(raw: str, code: str, param: str | None = None) -> Case:
    """A body with `raw` among its members."""
    text = json.dumps(order(max_tokens=None))[:-1] + f",{raw}}}"
    return Case(status=400, code=code, body=text.encode(), param=param)


def without_key(code: str, message: str | None = None, **headers: str) -> Case:
    return Case(status=401, code=code, with_key=False, headers=headers, message=message)


BODIES = [
    Case(status=400, code="invalid_json", body=b""),
    Case(status=400, code="invalid_json", body=b"{"),
    Case(status=400, code="invalid_json", body=b"[]"),
    Case(status=400, code="invalid_json", body=b'{"model":"\xff"}'),
    Case(status=400, code="invalid_json", body=b'{"a":' + b"[" * 100 + b"]" * 100 + b"}"),
    given('"stream":false,"stream":true', "invalid_json"),
    given('"temperature":NaN', "invalid_json"),
    given('"temperature":1e999', "invalid_json"),
    given('"seed":9007199254740993', "invalid_json"),
    given('"max_tokens":-1', "invalid_parameter", "max_tokens"),
    given('"max_tokens":0', "invalid_parameter", "max_tokens"),
    given('"max_tokens":"10"', "invalid_parameter", "max_tokens"),
    given('"max_tokens":1.5', "invalid_parameter", "max_tokens"),
    given('"max_tokens":true', "invalid_parameter", "max_tokens"),
    given('"max_tokens":9007199254740991', "invalid_parameter", "max_tokens"),
    given('"max_completion_tokens":2001', "invalid_parameter", "max_completion_tokens"),
    given('"n":0', "invalid_parameter", "n"),
    given('"n":129', "invalid_parameter", "n"),
    given('"stream":"yes"', "invalid_parameter", "stream"),
    given('"service_tier":"priority"', "unsupported_parameter", "service_tier"),
    given('"background":true', "unsupported_parameter", "background"),
    given('"web_search_options":{}', "unsupported_parameter", "web_search_options"),
    Case(
        status=400, code="invalid_model", param="model", body=json.dumps(order(model="x")).encode()
    ),
    Case(
        status=400,
        code="invalid_parameter",
        param="messages",
        body=json.dumps(order(messages=[])).encode(),
    ),
    Case(status=413, code="request_too_large", body=b" " * (BODY_BYTES_MAX + 1)),
]
HEADS = [
    Case(status=404, code="route_not_priced", path="/v1/unknown"),
    Case(status=404, code="route_not_priced", path="/fine_tuning/jobs"),
    Case(status=404, code="route_not_priced", path="/v1/chat/completions/"),
    Case(status=415, code="unsupported_media_type", headers={"content-type": "text/plain"}),
    Case(
        status=415,
        code="unsupported_media_type",
        headers={"content-type": "application/json; charset=utf-16"},
    ),
    Case(status=415, code="unsupported_media_type", headers={"content-encoding": "gzip"}),
    Case(status=400, code="invalid_parameter", param="accept", headers={"accept": "x" * 2_000}),
    Case(status=413, code="request_too_large", headers={"x-long": "x" * 33_000}),
    Case(status=413, code="request_too_large", headers={f"x-{n}": "1" for n in range(100)}),
]
CREDENTIALS = [
    Case(status=402, code="payment_required", with_key=False),
    Case(
        status=402,
        code="payment_required",
        with_key=False,
        headers={"authorization": "Bearer"},
    ),
    Case(
        status=402,
        code="payment_required",
        with_key=False,
        headers={"authorization": "Basic YTpi"},
    ),
    without_key("invalid_api_key", "Key not found", authorization=f"Bearer {STRANGER}"),
    without_key("invalid_api_key", "Key not found", **{"x-api-key": STRANGER}),
    without_key("invalid_api_key", "Key not found", authorization="Bearer sk-123"),
    without_key("invalid_api_key", "Key not found", authorization=f"Bearer {STRANGER.upper()}"),
    without_key("invalid_api_key", "Key not found", authorization=f"Bearer {STRANGER}0"),
    Case(status=400, code="invalid_cashu_token", headers={"x-cashu": "cashuBx"}),
    Case(
        status=400,
        code="invalid_cashu_token",
        with_key=False,
        headers={"authorization": "Bearer cashuBabc"},
    ),
]


async def test_bad_requests_are_refused_in_the_one_envelope(
    shop: Shop, subtests: pytest.Subtests
) -> None:
    key = await shop.key()
    for number, case in enumerate([*BODIES, *HEADS, *CREDENTIALS]):
        with subtests.test(number=number, code=case.code):
            assert_refused(await ask(shop, key, case), case)
    assert shop.upstream.calls == []
    assert await usage_rows(shop.ctx, key) == []
    assert "forward.reserved" not in shop.marks.passed


async def ask(shop: Shop, key: FundedKey, case: Case) -> httpx.Response:
    headers = {"content-type": "application/json"} | (key.headers if case.with_key else {})
    return await shop.http.post(case.path, content=case.body, headers=headers | case.headers)


def assert_refused(answer: httpx.Response, case: Case) -> None:
    assert answer.status_code == case.status, answer.text
    body = answer.json()
    assert body.keys() == {"error", "request_id"}
    error = body["error"]
    assert (error["code"], error["param"]) == (case.code, case.param)
    assert error["message"]
    if case.message is not None:
        assert error["message"] == case.message
    assert body["request_id"] == answer.headers["x-request-id"]
    assert answer.headers["x-should-retry"] == "false"
    assert answer.headers["content-type"] == "application/json"


async def test_the_cheapest_refusal_comes_first(shop: Shop) -> None:
    worst = Case(
        status=404,
        code="route_not_priced",
        path="/v1/x",
        headers={"content-type": "a/b"},
        body=b"{",
    )
    key = await shop.key()
    assert_refused(await ask(shop, key, worst), worst)
    headers = {"content-type": "application/json"}
    unnamed = await shop.http.post(PATH, content=b"{", headers=headers)
    assert unnamed.json()["error"]["code"] == "invalid_json"


async def test_a_body_that_stays_away_is_timed_out(shop: Shop) -> None:
    key = await shop.key()
    reader, writer = await asyncio.open_connection("127.0.0.1", shop.port)
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    head += f"Authorization: Bearer {key.text}\r\nContent-Length: 100\r\n\r\n"
    writer.write(head.encode() + b"{")
    async with asyncio.timeout(5):
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"x-should-retry: true\r\n" in answer.lower()
    assert b'"code":"request_timeout"' in answer
    writer.close()
    await writer.wait_closed()


async def test_bodies_in_flight_are_limited_together(shop: Shop) -> None:
    key = await shop.key()
    endpoint = shop.app.router.routes[-1].app  # type: ignore[attr-defined]  # the ProxyEndpoint
    writers = []
    for _ in range(2):
        _, writer = await asyncio.open_connection("127.0.0.1", shop.port)
        head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {BODY_BYTES_MAX}\r\n\r\n".encode())
        writer.write(b" " * (BODY_BYTES_MAX - 1))
        writers.append(writer)
    await until(lambda: endpoint._bodies.in_flight_bytes >= 2 * BODY_BYTES_MAX - 2)
    refused = await shop.http.post(PATH, headers=key.headers, json=order())
    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "overloaded"
    for writer in writers:
        writer.close()
    await until(lambda: endpoint._bodies.in_flight_bytes == 0)
    assert (await shop.http.post(PATH, headers=key.headers, json=order())).status_code == 200


async def test_other_methods_and_unknown_pages_are_not_found(shop: Shop) -> None:
    wrong = await shop.http.get(PATH)
    assert wrong.status_code == 405
    assert wrong.headers["allow"] == "POST"
    assert wrong.json()["error"]["type"] == "not_found_error"
    missing = await shop.http.get("/v1/nothing")
    assert missing.status_code == 404
    assert missing.json()["error"]["code"] == "not_found"


async def test_a_key_is_found_again_once_it_has_money(shop: Shop) -> None:
    key = await shop.key(0)
    assert (await shop.http.post(PATH, headers=key.headers, json=order())).status_code == 402
    await fund(shop.ctx, key.id, 10_000)
    assert (await shop.http.post(PATH, headers=key.headers, json=order())).status_code == 200
