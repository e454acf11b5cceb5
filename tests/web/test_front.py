"""The door in front of FastAPI: it answers what the road's routes would, and without them."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Final

import pytest
from fastapi import FastAPI
from starlette.types import ASGIApp, Message

from routstr.core.dialects import DIALECTS
from tests.fakes.upstream_script import Script
from tests.harness.shop import PATH, Shop, open_shop, order
from tests.harness.till import ON_SQLITE
from tests.web.test_routes import ROUTES

pytestmark = ON_SQLITE

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "OPTIONS")
DIALECT_PATHS: Final = [f"{prefix}{path}" for path in DIALECTS for prefix in ("", "/v1")]
PATHS: Final = (
    PATH,
    "/v1/weather", "/weather", "/tools/store", "/v1/tools/store", "/v1/free",
    "/", "", "*", "//", "/v1", "/v1/", "/v1x", "/v1x/y", "/v1//weather", "//v1/weather",
    "/v1/v1/weather", f"/v1{PATH}", f"{PATH}/", "/v1/Chat/completions", "/V1/weather",
    "/missing", "/v1/missing", "/weather/", "/we\nather", "/w\u00e9ather",
    "/health", "/v1/models", "/v1/balance/info", "/v1/wallet/x", "/lightning/x", "/v2/x", "/admin",
    "/v1/admin", "/v1/quote", "/quote", "/metrics", "/v1/metrics", "/static/x", "/v1/receipts",
    "/v1/key", "/key", "/openapi.json", "/docs", "/ready",
)  # fmt: skip
HEADS: Final[tuple[Mapping[str, str], ...]] = (
    {"origin": "https://wallet.example", "access-control-request-method": "POST"},
    {"content-type": "text/plain", "x-cashu": "cashuBnothing"},
    {f"x-{n}": "1" for n in range(101)},
)
OWN: Final = (b"x-request-id", b"x-routstr-request-id", b"x-cashu")  # each answer's own


@pytest.fixture
async def shop(database_url: str) -> AsyncIterator[Shop]:
    async with open_shop(database_url) as shop:
        catalog = shop.ctx.catalog
        by_path = {(each.method, each.path): each for each in ROUTES}
        catalog.replace(replace(catalog.picture, routes=by_path))
        yield shop


async def test_it_answers_what_the_routes_would(shop: Shop) -> None:
    asked: list[tuple[str, str, Mapping[str, str]]] = [
        *((method, path, {}) for path in DIALECT_PATHS for method in ("GET", "POST")),
        *((method, path, {}) for path in PATHS for method in METHODS),
        *((method, path, head) for path in PATHS[:2] for method in METHODS for head in HEADS),
    ]
    routed = _routed(shop.app)
    for each in asked:
        assert await answer_to(shop.app, *each) == await answer_to(routed, *each), each


async def test_what_is_sold_never_meets_the_router(shop: Shop) -> None:
    shop.app.router.routes.clear()
    shop.app.middleware_stack = _nobody
    shop.upstream.default = Script()
    key = await shop.key()
    for path in (PATH, PATH.removeprefix("/v1")):
        got = await shop.http.post(path, headers=key.headers, json=order())
        assert got.status_code == 200
    assert (await shop.http.get("/v1/weather", headers=key.headers)).status_code == 200
    with pytest.raises(AssertionError):
        await answer_to(shop.app, "GET", "/health", {})


def _routed(app: FastAPI) -> ASGIApp:
    """The same app without what is in front of it."""

    async def routed(*asked: object) -> None:
        await FastAPI.__call__(app, *asked)  # type: ignore[arg-type]  # as a server calls it

    return routed


async def _nobody(*_: object) -> None:
    raise AssertionError("the router was asked")


async def answer_to(
    app: ASGIApp, method: str, path: str, head: Mapping[str, str]
) -> tuple[object, ...]:
    """Status, headers and body, without what is each request's own."""
    sent: list[Message] = []
    asked: list[Message] = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Message:
        return asked.pop() if asked else await asyncio.Future()

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(name.encode(), value.encode()) for name, value in head.items()]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method,
        "scheme": "http", "path": path, "raw_path": path.encode(), "query_string": b"",
        "root_path": "", "headers": headers, "server": ("node", 80), "client": ("192.0.2.1", 1),
    }  # fmt: skip
    await app(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent[1:])
    if sent[0]["status"] >= 400 and b'"request_id"' in body:
        error = json.loads(body)["error"]
        body = f"{error['code']}: {error['message']}".encode()
    kept = sorted(pair for pair in sent[0]["headers"] if pair[0] not in OWN)
    return sent[0]["status"], kept, body
