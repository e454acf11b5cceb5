"""Routes that are sold by the request: bytes pass unread, and only a whole answer costs."""

import asyncio
import http.client
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from routstr.core.pricing import Price
from routstr.errors import InvalidParameter
from routstr.flows.catalog import Route
from routstr.flows.refresh import refresh
from routstr.flows.upstreams import RouteWish, set_route
from routstr.gateways.upstream_config import BUILT_IN
from tests.fakes.upstream_script import Fault, Gate, Script, failure
from tests.harness.funding import assert_books_are_clean, balance_msat, told, usage_rows
from tests.harness.shop import Shop, open_shop
from tests.harness.till import ON_SQLITE

FUNDS_MSAT = 100_000
PRICE_MSAT = 2_500
EVENTS = [b"id: 1\r\ndata: one\r\n\r\n", b"data: half", b" an event\n\n", b"data: last"]

pytestmark = ON_SQLITE


def route(method: str, path: str, upstream_path: str, request_msat: int = PRICE_MSAT) -> Route:
    price = Price(
        version="r1", input_msat_per_mtok=0, output_msat_per_mtok=0, request_msat=request_msat
    )
    return Route(
        id=f"{method} {path}", method=method, path=path, upstream_id=BUILT_IN,
        upstream_path=upstream_path, price=price,
    )  # fmt: skip


ROUTES = [
    route("GET", "/v1/weather", "/data/2.5/weather"),
    route("POST", "/v1/weather", "/data/report"),
    route("DELETE", "/v1/weather", "/data/report"),
    route("PUT", "/tools/store", "/store"),
    route("POST", "/v1/free", "/free", 0),
]


@pytest.fixture
async def shop(database_url: str) -> AsyncIterator[Shop]:
    async with open_shop(
        database_url, upstream_idle_timeout_s=0.3, upstream_connect_timeout_s=0.3,
        keep_alive_after_s=0.01, drain_timeout_s=0.2,
    ) as shop:  # fmt: skip
        catalog = shop.ctx.catalog
        by_path = {(each.method, each.path): each for each in ROUTES}
        catalog.replace(replace(catalog.picture, routes=by_path))
        yield shop


async def charged(shop: Shop, key: Any) -> tuple[str, int]:
    """The outcome of the key's last request, and what it cost."""
    await shop.quiet()
    await assert_books_are_clean(shop.ctx)
    row = (await usage_rows(shop.ctx, key))[0]
    assert "city" not in str(row)
    return str(told(row)["outcome"]), -row.amount_msat


async def test_a_whole_answer_costs_the_request(shop: Shop) -> None:
    key = await shop.key(FUNDS_MSAT)
    picture = bytes(range(256)) * 40
    shop.upstream.script(Script(status=201, body=picture, headers={"Content-Type": "image/png"}))
    got = await shop.http.get(
        "/v1/weather?city=K%C3%B6ln&units=%2e%2e%2f",
        headers={
            **key.headers,
            "accept-language": "de",
            "x-forwarded-for": "::1",
            "cookie": "a",
        },
    )
    assert (got.status_code, got.content) == (201, picture)
    assert got.headers["content-type"] == "image/png"
    assert got.headers["x-routstr-cost-msats"] == got.headers["x-routstr-max-cost-msats"] == "2500"
    [call] = shop.upstream.calls
    assert (call.method, call.path) == (
        "GET", "/v1/data/2.5/weather?city=K%C3%B6ln&units=%2e%2e%2f",
    )  # fmt: skip
    assert call.headers["accept-language"] == "de"
    assert not {"cookie", "x-forwarded-for", "content-type"} & call.headers.keys()
    assert await charged(shop, key) == ("completed", PRICE_MSAT)
    [row] = await usage_rows(shop.ctx, key)
    assert row.description == "GET /v1/weather"


@pytest.mark.parametrize(
    ("method", "path", "sent_to"),
    [
        ("POST", "/v1/weather", "/v1/data/report"),
        ("POST", "/weather", "/v1/data/report"),
        ("DELETE", "/v1/weather", "/v1/data/report"),
        ("PUT", "/tools/store", "/v1/store"),
        ("PUT", "/v1/tools/store", "/v1/store"),
    ],
)
async def test_bytes_pass_unread(shop: Shop, method: str, path: str, sent_to: str) -> None:
    key = await shop.key(FUNDS_MSAT)
    body = b'{"a":1, "a":NaN}\xff\x00'
    answer = b'{"usage":{"cost":9}}'
    shop.upstream.script(Script(body=answer))
    headers = {**key.headers, "content-type": "text/x-own"}
    got = await shop.http.request(method, path, headers=headers, content=body)
    assert got.content == answer
    [call] = shop.upstream.calls
    assert (call.method, call.path, call.body) == (method, sent_to, body)
    assert call.headers["content-type"] == "text/x-own"
    assert await charged(shop, key) == ("completed", PRICE_MSAT)


async def test_an_answer_without_content_is_one(shop: Shop) -> None:
    key = await shop.key(FUNDS_MSAT)
    shop.upstream.script(Script(status=204, body=b"", until_close=True))
    got = await shop.http.delete("/v1/weather", headers=key.headers)
    assert (got.status_code, "content-length" in got.headers) == (204, False)
    assert await charged(shop, key) == ("completed", PRICE_MSAT)


async def test_what_is_not_a_whole_2xx_is_free(shop: Shop, subtests: pytest.Subtests) -> None:
    for script, outcome, status in (
        (failure(404), "upstream_rejected", 404),
        (failure(401), "upstream_rejected", 424),
        (failure(500), "upstream_failed", 424),
        (Script(status=302, body=b""), "upstream_failed", 424),
        (Script(body=b"half", content_length_extra=4), "cut_after_output", 502),
        (Script(body=b"half a body", fault=Fault.STALL), "stalled", 424),
    ):
        with subtests.test(outcome, status=status):
            key = await shop.key(FUNDS_MSAT)
            before = len(shop.upstream.calls)
            shop.upstream.script(script)
            got = await shop.http.post("/v1/weather", headers=key.headers, content=b"x")
            assert got.status_code == status
            assert await charged(shop, key) == (outcome, 0)
            assert len(shop.upstream.calls) == before + 1  # nobody knows what twice would do


async def test_what_a_kept_connection_lost_is_not_sent_again(shop: Shop) -> None:
    key = await shop.key(FUNDS_MSAT)
    shop.upstream.script(Script(body=b"{}"), Script(fault=Fault.CLOSE_BEFORE_HEADERS))
    await shop.http.get("/v1/weather", headers=key.headers)
    lost = await shop.http.get("/v1/weather", headers=key.headers)
    assert lost.status_code == 424
    assert [call.connection for call in shop.upstream.calls] == [1, 1]
    assert await charged(shop, key) == ("upstream_failed", 0)


def streamed(**more: Any) -> Script:
    return Script(events=EVENTS, **more)


async def test_events_pass_as_they_come(shop: Shop) -> None:
    key, gate = await shop.key(FUNDS_MSAT), Gate()
    shop.upstream.script(streamed(gate=gate))
    body = {"stream": True}
    async with shop.http.stream("POST", "/v1/weather", headers=key.headers, json=body) as got:
        pieces = got.aiter_raw()
        for event in EVENTS:
            coming = asyncio.ensure_future(anext(pieces))
            await asyncio.wait({coming}, timeout=0.05)  # a silence, in which nothing is put
            gate.open()
            assert await coming == event
        assert [piece async for piece in pieces] == []
    assert await charged(shop, key) == ("completed", PRICE_MSAT)


@pytest.mark.parametrize("fault", [Fault.CUT, Fault.RESET, Fault.STALL])
async def test_a_stream_that_breaks_off_is_free_and_never_ends(shop: Shop, fault: Fault) -> None:
    key = await shop.key(FUNDS_MSAT)
    shop.upstream.script(streamed(fault=fault, after=3))
    with pytest.raises(httpx.RemoteProtocolError):
        await shop.http.post("/v1/weather", headers=key.headers, json={"stream": True})
    outcome, cost_msat = await charged(shop, key)
    assert (outcome in ("cut_after_output", "cut_before_output", "stalled"), cost_msat) == (True, 0)


async def test_who_leaves_a_stream_pays_if_it_ends_soon(shop: Shop) -> None:
    for events_before, outcome in ((2, ("client_left", 0)), (4, ("client_left", PRICE_MSAT))):
        key, gate = await shop.key(FUNDS_MSAT), Gate()
        shop.upstream.script(streamed(gate=gate))
        body = {"stream": True}
        async with shop.http.stream("POST", "/v1/weather", headers=key.headers, json=body) as got:
            pieces = got.aiter_raw()
            gate.open()
            await anext(pieces)
        gate.open(events_before - 1)
        assert await charged(shop, key) == outcome


async def test_without_money_it_says_what_it_costs(shop: Shop) -> None:
    got = await shop.http.get("/v1/weather?city=x")
    assert (got.status_code, got.json()["error"]["code"]) == (402, "payment_required")
    assert got.json()["error"]["details"]["amount_required_msat"] == PRICE_MSAT
    assert got.headers["x-cashu"].startswith("creqA")
    assert (await shop.http.post("/v1/free")).status_code == 401
    key = await shop.key(PRICE_MSAT - 1)
    poor = await shop.http.get("/v1/weather", headers=key.headers)
    assert (poor.status_code, poor.json()["error"]["code"]) == (402, "insufficient_balance")
    assert await balance_msat(shop.ctx, key) == PRICE_MSAT - 1
    assert shop.upstream.calls == []


async def test_a_repeat_is_bought_once_and_its_query_belongs_to_it(shop: Shop) -> None:
    key = await shop.key(FUNDS_MSAT)
    shop.upstream.default = Script(body=b'{"degrees":7}')
    headers = {**key.headers, "idempotency-key": "one"}
    first = await shop.http.get("/v1/weather?city=a", headers=headers)
    again = await shop.http.get("/v1/weather?city=a", headers=headers)
    other = await shop.http.get("/v1/weather?city=b", headers=headers)
    elsewhere = await shop.http.post("/v1/weather?city=a", headers=headers)
    assert again.headers["idempotent-replayed"] == "true"
    assert first.content == again.content
    assert (other.status_code, elsewhere.status_code) == (422, 200)
    assert await balance_msat(shop.ctx, key) == FUNDS_MSAT - 2 * PRICE_MSAT
    assert len(shop.upstream.calls) == 2


async def test_what_the_operator_sells_is_on_sale(shop: Shop) -> None:
    await set_route(shop.ctx, RouteWish(path="/v1/tides", upstream_path="/sea", price_msat=7_000))
    await refresh(shop.ctx)
    key = await shop.key(FUNDS_MSAT)
    shop.upstream.script(Script(body=b"high"))
    assert (await shop.http.post("/tides", headers=key.headers)).content == b"high"
    assert await charged(shop, key) == ("completed", 7_000)
    for path in ("/v1/chat/completions", "/embeddings", "/a%62", "/a/../b", "/v1/v1/b", "/v1", "a"):
        with pytest.raises(InvalidParameter):
            await set_route(shop.ctx, RouteWish(path=path, price_msat=1))


# ── nothing else reaches an upstream ──────────────────────────────────────────────────────────

ATTACKS = [
    "/v1/weather/", "/v1//weather", "//v1/weather", "/v1/weather/..", "/v1/weather/../admin",
    "/v1/weather/%2e%2e/admin", "/v1/weather%2f..%2fadmin", "/v1/weather%2F", "/v1/weather%00",
    "/v1/weather%0d%0aHost:x", "/v1/weather;x=1", "/v1/./weather", "/v1/x/../weather",
    "/v1/%2e/weather", "/v1/weather%20", "/v1/WEATHER", "/v1/weather.json", "/v1/v1/weather",
    "/V1/weather", "/v1/data/2.5/weather", "/data/2.5/weather", "/v1/weather\\..\\admin", "/v1/",
    "/v1/%77eather%2f", "/v1/weather%252f..", "/v1/weath\u00e9r", "/v1/weather%3fcity=x",
    "/v1/weather%23", "/store", "/v1/store", "/tools/store/",
]  # fmt: skip


async def test_no_other_path_reaches_the_upstream(shop: Shop, subtests: pytest.Subtests) -> None:
    key = await shop.key(FUNDS_MSAT)
    for path in ATTACKS:
        for method in ("GET", "POST", "PUT", "DELETE"):
            with subtests.test(f"{method} {path}"):
                status = await asyncio.to_thread(raw_status, shop.port, method, path, key.text)
                assert status in (307, 400, 404, 405)
    assert shop.upstream.calls == []
    assert await balance_msat(shop.ctx, key) == FUNDS_MSAT


def raw_status(port: int, method: str, path: str, key: str) -> int:
    """The status of a request whose path nobody has tidied up."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.putrequest(method, "/", skip_host=True)
        connection._buffer[0] = f"{method} {path} HTTP/1.1".encode()  # type: ignore[attr-defined]  # as it stands
        connection.putheader("Host", "127.0.0.1")
        connection.putheader("Authorization", f"Bearer {key}")
        connection.putheader("Content-Length", "0")
        connection.endheaders()
        return connection.getresponse().status
    finally:
        connection.close()


async def test_an_encoded_letter_is_the_same_path(shop: Shop) -> None:
    key = await shop.key(FUNDS_MSAT)
    shop.upstream.default = Script(body=b"{}")
    assert (await shop.http.get("/v1/%77eather", headers=key.headers)).status_code == 200
    assert shop.upstream.calls[0].path == "/v1/data/2.5/weather"


@pytest.mark.parametrize("query", ["a=\u00e9", "a=<b>", 'a="b"', "x" * 9_000])
async def test_a_query_that_no_url_carries_is_refused(shop: Shop, query: str) -> None:
    key = await shop.key(FUNDS_MSAT)
    path = f"/v1/weather?{query}"
    status = await asyncio.to_thread(raw_status, shop.port, "GET", path, key.text)
    assert status in (400, 414, 431)
    assert shop.upstream.calls == []


async def test_methods_are_their_own(shop: Shop) -> None:
    key = await shop.key(FUNDS_MSAT)
    got = await shop.http.put("/v1/weather", headers=key.headers)
    assert got.status_code in (404, 405)
    assert shop.upstream.calls == []
