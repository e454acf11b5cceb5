"""A node at its limit: who is refused, at once and in the one shape, and who is not."""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import httpx
import pytest
from fastapi import FastAPI

from routstr.web.head import bounded_head
from routstr.web.refusal import Refusal
from tests.fakes.upstream_script import Gate, Script
from tests.harness.shop import PATH, Shop, open_shop, order, serving, until
from tests.harness.till import ON_SQLITE

pytestmark = ON_SQLITE

BODY: Final = b'{"model":"m"}'
PLAIN: Final = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: node\r\nConnection: keep-alive\r\n"
    b"Content-Type: application/json\r\nContent-Length: 13\r\n\r\n" + BODY
)
# Each may be meant in two ways, or needs an answer of its own.
UNUSUAL: Final = {
    "another method": PLAIN.replace(b"POST", b"GET", 1),
    "another path": PLAIN.replace(b"chat/completions", b"balance/topup"),
    "a query": PLAIN.replace(b"completions", b"completions?a=b"),
    "another version": PLAIN.replace(b"1.1", b"1.0", 1),
    "not whole": PLAIN[:-1],
    "more than one": PLAIN + PLAIN,
    "no length": PLAIN.replace(b"Content-Length: 13\r\n", b""),
    "two lengths": PLAIN.replace(b"Host: node", b"Content-Length: 13"),
    "a second length": PLAIN.replace(b"Host: node", b"content-length: +13"),
    "a strange length": PLAIN.replace(b": 13", b": 13, 13"),
    "a space before the colon": PLAIN.replace(b"Host:", b"Host :"),
    "a folded line": PLAIN.replace(b"Host: node", b"Host: node\r\n folded"),
    "a bare line end": PLAIN.replace(b"node\r\n", b"node\n"),
    "a bare carriage return": PLAIN.replace(b"node", b"no\rde"),
    "chunks": PLAIN.replace(b"Host: node", b"Transfer-Encoding: chunked"),
    "a question first": PLAIN.replace(b"Host: node", b"Expect: 100-continue"),
    "the end of the connection": PLAIN.replace(b"keep-alive", b"close"),
    "a browser": PLAIN.replace(b"Host: node", b"origin: https://example.org"),
    "a payment": PLAIN.replace(b"Host: node", b"X-Cashu: cashuBabc"),
}


@pytest.fixture
async def shop(database_url: str) -> AsyncIterator[Shop]:
    async with open_shop(database_url) as shop:
        yield shop


@pytest.fixture
async def full(shop: Shop) -> Shop:
    """Its node has as many requests waiting as it can bear."""
    admission = shop.ctx.admission
    while not admission.is_full:
        admission.enter(str(admission.waiting), shop.ctx.monotonic_s())
    return shop


def empty(shop: Shop) -> None:
    for number in range(shop.ctx.admission.waiting):
        shop.ctx.admission.forget(str(number))


async def test_the_quick_refusal_says_what_the_ordinary_one_does(full: Shop) -> None:
    key = await full.key(10_000)
    protocol = bounded_head(
        bytes_max=10_000, lines_max=50, timeout_s=5, stall_s=lambda: 5, refusal=Refusal(full.app)
    )
    ordinary = await full.http.post(PATH, headers=key.headers, json=order())
    async with (
        serving(full.app, http=protocol) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http,
    ):
        quick = await http.post(PATH, headers=key.headers, json=order())
        assert quick.status_code == ordinary.status_code == 503
        assert quick.headers.keys() == ordinary.headers.keys()
        said = quick.json(), ordinary.json()
        ids = [each.pop("request_id") for each in said]
        assert said[0] == said[1]
        assert said[0]["error"]["code"] == "overloaded"
        assert (quick.headers["retry-after"], quick.headers["x-should-retry"]) == ("5", "true")
        assert ids[0] == quick.headers["x-request-id"] == quick.headers["x-routstr-request-id"]
        assert len(ids[0]) == len(ids[1])
        assert ids[0] != ids[1]
        assert full.ctx.meters.refused["overloaded"] == 2
        assert (await http.get("/health")).status_code == 200  # only what is sold is refused
        assert (await http.get("/v1/balance/info", headers=key.headers)).status_code == 200
        empty(full)
        bought = await http.post(PATH, headers=key.headers, json=order())
        assert bought.status_code == 200  # on the very connection that was refused
    assert (full.ctx.admission.waiting, full.ctx.admission.under_way) == (0, 0)


async def test_what_could_be_meant_in_two_ways_is_read_with_care(full: Shop) -> None:
    refused = [name for name, said in UNUSUAL.items() if Refusal(full.app)(said, ()) is not None]
    assert refused == []
    assert Refusal(full.app)(PLAIN, ()) is not None
    assert Refusal(FastAPI())(PLAIN, ()) is None  # its node is not open yet


async def test_requests_that_come_together_share_the_room_there_is(full: Shop) -> None:
    refusal, admission = Refusal(full.app), full.ctx.admission
    admission.forget("0")
    admission.forget("1")
    answers = [refusal(PLAIN, ()) for _ in range(5)]
    assert [each is None for each in answers] == [True, True, False, False, False]
    await asyncio.sleep(0)  # one turn of the loop: who came in has entered by then
    assert admission.knocking == 0


async def test_a_payment_that_is_refused_comes_back(full: Shop) -> None:
    refused = await full.http.post(PATH, headers={"x-cashu": "cashuBabc"}, json=order())
    assert (refused.status_code, refused.headers["x-cashu"]) == (503, "cashuBabc")


@pytest.mark.parametrize("stream", [False, True])
async def test_who_waits_for_an_upstream_takes_nobodys_place(shop: Shop, stream: bool) -> None:
    key, gate = await shop.key(1_000_000), Gate()
    shop.upstream.default = Script(gate=gate)
    asked = asyncio.create_task(
        shop.http.post(PATH, headers=key.headers, json=order(stream=stream))
    )
    await shop.upstream.called()
    admission = shop.ctx.admission
    assert (admission.waiting, admission.under_way) == (0, 1)
    gate.open_for_ever()
    assert (await asked).status_code == 200
    await until(lambda: admission.under_way == 0)
    assert admission.waiting == 0
