"""Clients that leave, early, late or without reading, and a node that stops, over real HTTP."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import httpx
import pytest

from routstr.errors import RateLimited
from routstr.flows.early import count_with_others
from routstr.flows.rations import EarlyLeaves
from tests.fakes.upstream_script import Gate, Script
from tests.harness.funding import FundedKey, balance_msat, told, usage_rows
from tests.harness.shop import PATH, Shop, open_shop, order

FUNDS_MSAT = 1_000_000
EXACT = 145
ESTIMATE = 100 + 4 * 2 + 4 * 5
TWO_PIECES = 100 + 4 * 2 + 3 * 5


@pytest.fixture
async def shop(database_url: str) -> AsyncIterator[Shop]:
    async with open_shop(database_url, early_leaves_max=2, drain_timeout_s=0.5) as shop:
        yield shop


async def assert_ended(
    shop: Shop, key: FundedKey, outcome: str, evidence: str, charged_msat: int
) -> None:
    await shop.quiet()
    row = (await usage_rows(shop.ctx, key))[0]
    assert (told(row)["outcome"], told(row)["evidence"]) == (outcome, evidence)
    assert row.amount_msat == -charged_msat


async def read_until(stream: httpx.Response, text: bytes) -> bytes:
    """What arrives until `text` was in it."""
    seen = b""
    async for piece in stream.aiter_raw():
        seen += piece
        if text in seen:
            return seen
    raise AssertionError(f"{text!r} never came, but {seen!r}")


@asynccontextmanager
async def streaming(
    shop: Shop, key: FundedKey, *, blanks: int = 0
) -> AsyncIterator[httpx.Response]:
    body = json.dumps(order(stream=True)).encode() + b" " * blanks
    headers = {**key.headers, "content-type": "application/json"}
    async with shop.http.stream("POST", PATH, headers=headers, content=body) as stream:
        assert stream.status_code == 200
        yield stream


# ── gone ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("blanks", [0, 300_000])  # so many, that reading paused meanwhile
async def test_a_client_that_leaves_pays_what_was_delivered(shop: Shop, blanks: int) -> None:
    key, gate = await shop.key(FUNDS_MSAT), Gate()
    shop.upstream.default = Script(gate=gate)
    gate.open(2)
    async with streaming(shop, key, blanks=blanks) as stream:
        await read_until(stream, b"wo th")
    call = await shop.upstream.called()
    await call.closed_by_client()
    await assert_ended(shop, key, "client_left", "estimated", TWO_PIECES)
    assert call.events_sent == 2


@pytest.mark.parametrize("has_usage", [True, False])
async def test_after_the_finish_reason_usage_is_waited_for(shop: Shop, has_usage: bool) -> None:
    key, gate = await shop.key(FUNDS_MSAT), Gate()
    said = b'data: {"choices":[{"index":0,"delta":{"content":"one two three"}}]}\n\n'
    finish = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":10,"completion_tokens":5}}\n\n'
    shop.upstream.default = Script(gate=gate, events=[said + finish, usage + b"data: [DONE]\n\n"])
    gate.open(1)
    async with streaming(shop, key) as stream:
        await read_until(stream, b"three")
    await shop.noticed_leave()
    if has_usage:
        gate.open_for_ever()
        await assert_ended(shop, key, "client_left", "exact", EXACT)
    else:
        await (await shop.upstream.called()).closed_by_client()
        await assert_ended(shop, key, "client_left", "estimated", ESTIMATE)


@pytest.mark.parametrize("stream", [False, True])
async def test_leaving_before_the_first_byte_is_free_but_rationed(shop: Shop, stream: bool) -> None:
    key, gate = await shop.key(FUNDS_MSAT), Gate()
    shop.upstream.default = Script(headers_gate=gate)
    for times in (1, 2):
        leaving = asyncio.create_task(
            shop.http.post(PATH, headers=key.headers, json=order(stream=stream))
        )
        call = await shop.upstream.called(times)
        leaving.cancel()
        await call.closed_by_client()
        await assert_ended(shop, key, "client_left_early", "none", 0)
    gate.open_for_ever()
    refused = await shop.http.post(PATH, headers=key.headers, json=order(stream=stream))
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert 590 <= int(refused.headers["retry-after"]) <= 601
    assert refused.headers["x-should-retry"] == "true"
    assert len(shop.upstream.calls) == 2
    assert await balance_msat(shop.ctx, key) == FUNDS_MSAT
    other = await shop.key()
    assert (await shop.http.post(PATH, headers=other.headers, json=order())).status_code == 200


async def test_what_was_left_early_elsewhere_counts_once_a_process_looks(shop: Shop) -> None:
    key, gate = await shop.key(FUNDS_MSAT), Gate()
    shop.upstream.default = Script(headers_gate=gate)
    for times in (1, 2):
        leaving = asyncio.create_task(shop.http.post(PATH, headers=key.headers, json=order()))
        call = await shop.upstream.called(times)
        leaving.cancel()
        await call.closed_by_client()
        await assert_ended(shop, key, "client_left_early", "none", 0)
    here = EarlyLeaves(events_max=2, window_s=600, now_s=shop.ctx.monotonic_s)
    ctx = replace(shop.ctx, early_leaves=here)  # of another process, which has seen none of them
    await count_with_others(ctx, "somebody else", key_id=key.id, spender_id="key_child")
    here.check("somebody else")
    here.check("the key")
    await count_with_others(ctx, "the key", key_id=key.id, spender_id=None)
    with pytest.raises(RateLimited):
        here.check("the key")


@pytest.mark.parametrize("comes", [True, False])
async def test_a_body_that_began_is_charged_if_its_rest_comes_within_the_drain(
    database_url: str, comes: bool
) -> None:
    rest = asyncio.Event()
    async with (
        half_a_body(rest) as url,
        open_shop(database_url, base_url=url, drain_timeout_s=0.5) as shop,
    ):
        key = await shop.key(FUNDS_MSAT)
        leaving = asyncio.create_task(shop.http.post(PATH, headers=key.headers, json=order()))
        await shop.marks.reached("forward.answered")
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        await shop.noticed_leave()
        if comes:
            rest.set()
            await assert_ended(shop, key, "client_left", "exact", EXACT)
        else:
            await assert_ended(shop, key, "client_left", "none", 0)


@asynccontextmanager
async def half_a_body(rest: asyncio.Event) -> AsyncIterator[str]:
    """An upstream whose head and first bytes come at once, and the others with `rest`."""
    body = json.dumps(
        {
            "choices": [{"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 5},
        }
    ).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}]")
        writer.write(head.encode() + b"\r\n\r\n" + body[:20])
        going = asyncio.create_task(reader.read())
        coming = asyncio.create_task(rest.wait())
        await asyncio.wait({going, coming}, return_when=asyncio.FIRST_COMPLETED)
        writer.write(body[20:] if rest.is_set() else b"")
        coming.cancel()
        await asyncio.gather(going, return_exceptions=True)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


async def test_a_client_that_reads_nothing_is_gone(database_url: str) -> None:
    async with open_shop(database_url, client_stall_timeout_s=0.5) as shop:
        key = await shop.key(FUNDS_MSAT)
        shop.upstream.default = Script(text="x" * 20_000_000, chunks=10_000, usage=None)
        with DeafClient(shop, key):
            call = await shop.upstream.called()
            await call.closed_by_client()
            await shop.quiet()
        [row] = await usage_rows(shop.ctx, key)
        assert (told(row)["outcome"], told(row)["evidence"]) == ("client_left", "estimated")
        assert -row.amount_msat > 0
        assert call.events_sent < 9_000, "a full queue must pause the upstream"


class DeafClient:
    """A socket that asks for a stream and never reads."""

    def __init__(self, shop: Shop, key: FundedKey) -> None:
        body = json.dumps(order(stream=True)).encode()
        self._request = (
            f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {key.text}\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode() + body
        self._port = shop.port
        self._socket = socket.socket()

    def __enter__(self) -> None:
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._socket.connect(("127.0.0.1", self._port))
        self._socket.sendall(self._request)

    def __exit__(self, *_: object) -> None:
        self._socket.close()


# ── stopped ───────────────────────────────────────────────────────────────────────────────────


async def test_a_stopping_node_ends_a_stream_with_an_error_and_a_charge(shop: Shop) -> None:
    key, gate = await shop.key(FUNDS_MSAT), Gate()
    shop.upstream.default = Script(gate=gate)
    gate.open(2)
    async with streaming(shop, key) as stream:
        text = b""
        async for piece in stream.aiter_raw():
            text += piece
            if b"wo th" in piece:
                shop.ctx.holds.stop()
    *_, comment, error, rest = text.split(b"\n\n")
    assert comment.startswith(b": routstr ")
    said = json.loads(error.removeprefix(b"data: "))["error"]
    assert (said["type"], said["code"]) == ("service_unavailable", "not_ready")
    assert rest == b""
    await assert_ended(shop, key, "node_stopped", "estimated", TWO_PIECES)


@pytest.mark.parametrize("script", [Script(headers_gate=Gate()), Script(gate=Gate())])
async def test_a_stopping_node_refuses_what_it_could_not_answer(shop: Shop, script: Script) -> None:
    key = await shop.key(FUNDS_MSAT)
    shop.upstream.default = script
    asking = asyncio.create_task(shop.http.post(PATH, headers=key.headers, json=order()))
    await shop.upstream.called()
    shop.ctx.holds.stop()
    answer = await asking
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "not_ready"
    await assert_ended(shop, key, "node_stopped", "none", 0)


# ── silent ────────────────────────────────────────────────────────────────────────────────────


async def test_a_silent_stream_is_kept_alive_by_comments(database_url: str) -> None:
    async with open_shop(database_url, keep_alive_after_s=0.05) as shop:
        key, gate = await shop.key(FUNDS_MSAT), Gate()
        shop.upstream.default = Script(gate=gate)
        gate.open(1)
        async with streaming(shop, key) as stream:
            text = b""
            async for piece in stream.aiter_raw():
                text += piece
                if text.endswith(b"\n\n: keep-alive\n\n"):
                    gate.open_for_ever()
        assert text.endswith(b"data: [DONE]\n\n")
        await assert_ended(shop, key, "completed", "exact", EXACT)
