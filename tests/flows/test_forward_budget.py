"""The rolling hold of a stream, over the whole road: held by the slice, extended ahead."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from routstr.ledger.book import KeyRef
from routstr.ledger.reads import KeyView, find_key
from routstr.ledger.teams import RevokeChild
from tests.fakes.upstream_script import Gate, Script
from tests.harness.funding import FundedKey, balance_msat, child_of, fund, told, usage_rows
from tests.harness.shop import PATH, Shop, open_shop, order
from tests.harness.till import ON_SQLITE

SLICE_TOKENS = 20
PROMPT_BYTES = 111  # of `order(stream=True, max_tokens=1000)` as serialised again
FIRST_HOLD_MSAT = 100 + 2 * PROMPT_BYTES + 5 * SLICE_TOKENS
TEXT = "0123456789abcdef" * 25  # 400 bytes: 100 tokens by our count, in pieces of 4 tokens
PIECES = 25
LONG = {"text": TEXT, "chunks": PIECES, "completion_tokens": 100}


@pytest.fixture
async def shop(database_url: str) -> AsyncIterator[Shop]:
    async with open_shop(database_url, output_slice_tokens=SLICE_TOKENS) as shop:
        yield shop


@asynccontextmanager
async def streaming(shop: Shop, key: FundedKey, **more: object) -> AsyncIterator[httpx.Response]:
    body = order(stream=True, max_tokens=1_000, **more)
    async with shop.http.stream("POST", PATH, headers=key.headers, json=body) as stream:
        assert stream.status_code == 200
        yield stream


async def view(shop: Shop, key: FundedKey) -> KeyView:
    async with shop.ctx.database.reading() as connection:
        found = await find_key(connection, KeyRef(id=key.id))
    assert found is not None
    return found


async def drip(pieces: AsyncIterator[bytes], gate: Gate, *, seen: bytes) -> bytes:
    """All of the stream after `seen`, one event sent for each that arrived, but the last ones."""
    gate.open()
    async for piece in pieces:
        seen += piece
        if seen.count(b"data: ") < PIECES:
            gate.open(piece.count(b"data: "))
        else:
            gate.open_for_ever()
    return seen


async def test_a_rich_request_holds_one_slice_at_first(shop: Shop) -> None:
    key, gate = await shop.key(10_000), Gate()
    shop.upstream.default = Script(gate=gate, **LONG)  # type: ignore[arg-type]  # by name
    gate.open(1)
    async with streaming(shop, key) as stream:
        pieces = stream.aiter_raw()
        seen = await anext(pieces)
        assert (await view(shop, key)).reserved_msat == FIRST_HOLD_MSAT
        assert int(stream.headers["x-routstr-max-cost-msats"]) == 100 + 2 * PROMPT_BYTES + 5_000
        seen = await drip(pieces, gate, seen=seen)
    assert seen.endswith(b"data: [DONE]\n\n")
    assert shop.marks.passed.count("extend.after") >= 3
    await shop.quiet()
    [row] = await usage_rows(shop.ctx, key)
    assert told(row)["outcome"] == "completed"
    assert row.amount_msat == -(100 + 20 + 500)


async def test_the_hold_is_extended_before_it_is_used_up(shop: Shop) -> None:
    key, gate = await shop.key(10_000), Gate()
    shop.upstream.default = Script(gate=gate, **LONG)  # type: ignore[arg-type]  # by name
    gate.open(4)  # 16 of 20 tokens: past three quarters, within the slice
    async with streaming(shop, key) as stream:
        pieces, seen = stream.aiter_raw(), b""
        while seen.count(b"data: ") < 4:
            seen += await anext(pieces)
        await shop.marks.reached("extend.after")
        wider = FIRST_HOLD_MSAT + 5 * SLICE_TOKENS
        assert (await view(shop, key)).reserved_msat == wider
        await drip(pieces, gate, seen=seen)


async def test_a_hold_never_grows_beyond_the_quote(shop: Shop) -> None:
    key = await shop.key(10_000)
    shop.upstream.default = Script(text="x" * 40_000, chunks=100, completion_tokens=1_000)
    body = order(stream=True, max_tokens=100)
    answer = await shop.http.post(PATH, headers=key.headers, json=body)
    quote_msat = int(answer.headers["x-routstr-max-cost-msats"])
    await shop.quiet()
    [row] = await usage_rows(shop.ctx, key)
    assert -row.amount_msat == quote_msat
    assert told(row)["absorbed_msat"] == 100 + 20 + 5_000 - quote_msat
    assert answer.text.endswith("data: [DONE]\n\n"), "a paid quote is never cut short"


@pytest.mark.parametrize("asked", [True, False])
async def test_when_the_money_ends_the_stream_ends_cleanly(shop: Shop, asked: bool) -> None:
    key, gate = await shop.key(10_000), Gate()
    shop.upstream.default = Script(gate=gate, **LONG)  # type: ignore[arg-type]  # by name
    gate.open(1)
    options = {"stream_options": {"include_usage": True}} if asked else {}
    async with streaming(shop, key, **options) as stream:
        pieces = stream.aiter_raw()
        text = await anext(pieces)
        held_msat = (await view(shop, key)).reserved_msat
        await fund(shop.ctx, key.id, held_msat - 10_000)  # all but the hold goes elsewhere
        text = await drip(pieces, gate, seen=text)
    call = await shop.upstream.called()
    await call.closed_by_client()
    await shop.quiet()
    [row] = await usage_rows(shop.ctx, key)
    assert (told(row)["outcome"], told(row)["evidence"]) == ("budget_exhausted", "estimated")
    assert 0 < -row.amount_msat <= held_msat
    assert await balance_msat(shop.ctx, key) == held_msat + row.amount_msat
    assert call.events_sent < PIECES
    assert_clean_end(text, -row.amount_msat, asked)


@ON_SQLITE
async def test_hidden_output_told_at_the_end_is_charged_as_far_as_it_can_be(shop: Shop) -> None:
    key, gate = await shop.key(10_000), Gate()
    head = '{"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":'
    used = '"usage":{"prompt_tokens":10,"completion_tokens":900,"total_tokens":910}}'
    said = [
        f'data: {head}[{{"index":0,"delta":{{"content":"four"}},"finish_reason":null}}]}}\n\n',
        f'data: {head}[{{"index":0,"delta":{{}},"finish_reason":"stop"}}]}}\n\n',
        f"data: {head}[],{used}\n\n",
        f":{' ' * 300_000}\n\n",  # so that what follows is read later
        "data: [DONE]\n\n",
    ]
    shop.upstream.default = Script(events=[event.encode() for event in said], gate=gate)
    gate.open(1)
    async with streaming(shop, key) as stream:
        pieces = stream.aiter_raw()
        text = await anext(pieces)
        held_msat = (await view(shop, key)).reserved_msat
        await fund(shop.ctx, key.id, held_msat - 10_000)  # all but the hold goes elsewhere
        gate.open_for_ever()
        text += b"".join([piece async for piece in pieces])
    await shop.quiet()
    [row] = await usage_rows(shop.ctx, key)
    assert (told(row)["outcome"], told(row)["evidence"]) == ("over_reserve", "exact")
    assert -row.amount_msat == held_msat
    assert text.count(b'"finish_reason":"stop"') == 1
    assert b'"length"' not in text


@ON_SQLITE
async def test_a_revoked_childs_stream_ends_on_what_it_holds(shop: Shop) -> None:
    parent, gate = await shop.key(10_000), Gate()
    child = await child_of(shop.ctx, parent)
    shop.upstream.default = Script(gate=gate, **LONG)  # type: ignore[arg-type]  # by name
    gate.open(1)
    async with streaming(shop, child) as stream:
        pieces = stream.aiter_raw()
        text = await anext(pieces)
        held_msat = (await view(shop, child)).held_msat
        assert (await view(shop, parent)).reserved_msat == held_msat
        revoke = RevokeChild(parent=KeyRef(id=parent.id), child=KeyRef(id=child.id))
        await shop.ctx.ledger.submit(revoke)
        text = await drip(pieces, gate, seen=text)
    await shop.quiet()
    [row] = await usage_rows(shop.ctx, parent)
    assert told(row)["outcome"] == "budget_exhausted"
    assert 0 < -row.amount_msat <= held_msat
    assert_clean_end(text, -row.amount_msat, asked=False)


def assert_clean_end(text: bytes, charged_msat: int, asked: bool) -> None:
    *events, comment, done, rest = text.split(b"\n\n")
    assert (done, rest) == (b"data: [DONE]", b"")
    assert comment.startswith(b": routstr ")
    last = [json.loads(event.removeprefix(b"data: ")) for event in events[-2:]]
    finish, usage = (last[0], last[1]) if asked else (last[1], last[1])
    assert finish["choices"] == [{"index": 0, "delta": {}, "finish_reason": "length"}]
    assert usage["usage"]["cost"]["total_msats"] == charged_msat
    assert usage["usage"]["cost"]["estimated"] is True
    assert (usage["choices"] == []) is asked


async def test_money_that_comes_back_in_time_lets_the_stream_go_on(shop: Shop) -> None:
    key, gate = await shop.key(10_000), Gate()
    shop.upstream.default = Script(gate=gate, **LONG)  # type: ignore[arg-type]  # by name
    gate.open(1)
    async with streaming(shop, key) as stream:
        pieces = stream.aiter_raw()
        seen = await anext(pieces)
        held_msat = (await view(shop, key)).reserved_msat
        await fund(shop.ctx, key.id, held_msat - 10_000)
        gate.open(3)  # 16 of 20 tokens: an extension is asked for, and refused
        while seen.count(b"data: ") < 4:
            seen += await anext(pieces)
        await shop.marks.reached("extend.before")
        await fund(shop.ctx, key.id, 10_000)
        seen = await drip(pieces, gate, seen=seen)
    assert b'"finish_reason": "stop"' in seen
    await shop.quiet()
    [row] = await usage_rows(shop.ctx, key)
    assert told(row)["outcome"] == "completed"
