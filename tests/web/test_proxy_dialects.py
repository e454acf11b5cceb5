"""The paid road in dialects other than chat, over real HTTP: bytes, events, and what it cost."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from routstr.ledger.book import KeyRef
from routstr.ledger.reads import find_key
from tests.fakes.upstream_script import Fault, Gate, Script, failure
from tests.harness.funding import FundedKey, balance_msat, fund, told, usage_rows
from tests.harness.shop import Shop, open_shop
from tests.harness.till import ON_SQLITE
from tests.web.voices import (
    ESTIMATE,
    EXACT,
    FUNDS_MSAT,
    MESSAGES,
    RESPONSES,
    TWO_PIECES,
    Voice,
    assert_charged,
    comment_in,
    events_in,
)

SLICE_TOKENS = 20
DONE = b"data: [DONE]\n\n"
LONG = {"text": "0123456789abcdef" * 25, "chunks": 25, "usage": (10, 100)}

pytestmark = ON_SQLITE
VOICES = pytest.mark.parametrize("voice", [MESSAGES, RESPONSES], ids=lambda voice: voice.path)


@pytest.fixture
async def shop(database_url: str) -> AsyncIterator[Shop]:
    async with open_shop(
        database_url, output_slice_tokens=SLICE_TOKENS, upstream_idle_timeout_s=0.5
    ) as shop:
        yield shop


@asynccontextmanager
async def streaming(
    shop: Shop, key: FundedKey, voice: Voice, **more: object
) -> AsyncIterator[httpx.Response]:
    body = voice.order(stream=True, **more)
    async with shop.http.stream("POST", voice.path, headers=key.headers, json=body) as stream:
        assert stream.status_code == 200
        yield stream


# ── in good order ─────────────────────────────────────────────────────────────────────────────


@VOICES
async def test_an_answer_carries_its_cost(shop: Shop, voice: Voice) -> None:
    key = await shop.key(FUNDS_MSAT)
    shop.upstream.default = voice.body()
    headers = {"x-api-key": key.text, "anthropic-version": "2023-06-01", "x-other": "1"}
    answer = await shop.http.post(voice.path, headers=headers, json=voice.order())
    assert answer.status_code == 200, answer.text
    said = answer.json()
    cost = said["usage"].pop("cost")
    assert (cost["total_msats"], cost["input_msats"], cost["output_msats"]) == (EXACT, 20, 25)
    assert said["usage"].pop("cost_sats") == 0.145
    assert said["usage"].pop("remaining_balance_msats") == FUNDS_MSAT - EXACT
    assert said == json.loads(shop.upstream.default.body or b"")
    assert answer.headers["x-routstr-cost-msats"] == str(EXACT)
    call = shop.upstream.calls[0]
    assert call.path == voice.path
    assert call.headers["anthropic-version"] == "2023-06-01"
    assert "x-other" not in call.headers
    await assert_charged(shop, key, "completed", "exact", EXACT)


@VOICES
async def test_a_stream_is_the_upstreams_bytes_with_its_cost(shop: Shop, voice: Voice) -> None:
    key = await shop.key(FUNDS_MSAT)
    shop.upstream.default = voice.stream(slice_bytes=7)
    answer = await shop.http.post(voice.path, headers=key.headers, json=voice.order(stream=True))
    sent = b"".join(voice.events())
    untouched = sent[: sent.index(b"event: " + voice.last.encode())]
    assert answer.content.startswith(untouched)
    events = events_in(answer.text.removeprefix(untouched.decode()))
    assert [each["type"] for each in events] == list(voice.ends)
    assert voice.usage(events[0])["cost"]["total_msats"] == EXACT
    assert comment_in(answer.text)["cost"]["total_msats"] == EXACT
    assert answer.headers["cache-control"] == "no-cache"
    await assert_charged(shop, key, "completed", "exact", EXACT)


@VOICES
@pytest.mark.parametrize("stream", [False, True])
async def test_without_usage_what_was_handed_out_is_estimated(
    shop: Shop, voice: Voice, stream: bool
) -> None:
    key = await shop.key(FUNDS_MSAT)
    shop.upstream.default = voice.stream(usage=None) if stream else voice.body(usage=None)
    body = voice.order(stream=stream)
    answer = await shop.http.post(voice.path, headers=key.headers, json=body)
    if stream:
        [last] = [each for each in events_in(answer.text) if each["type"] == voice.last]
        usage = voice.usage(last)
        assert (usage["input_tokens"], usage["output_tokens"]) == (4, 4)
        assert usage["cost"] == comment_in(answer.text)["cost"]
        assert usage["cost"]["estimated"] is True
    await assert_charged(shop, key, "completed_no_usage", "estimated", ESTIMATE)


# ── in none ───────────────────────────────────────────────────────────────────────────────────


@VOICES
@pytest.mark.parametrize("fault", [Fault.CUT, Fault.STALL, Fault.RESET])
async def test_a_cut_answer_ends_with_an_error(shop: Shop, voice: Voice, fault: Fault) -> None:
    key = await shop.key(FUNDS_MSAT)
    gate = Gate()
    shop.upstream.default = voice.stream(fault=fault, after=3, fault_gate=gate)
    text = ""
    async with streaming(shop, key, voice) as stream:
        async for piece in stream.aiter_text():
            text += piece
            if "wo th" in piece:
                gate.open()
    last = events_in(text)[-1]
    assert last["type"] == voice.cut
    assert voice.error(last)["code"] in ("upstream_request_failed", "UPSTREAM_TIMEOUT")
    assert comment_in(text)["cost"]["total_msats"] == TWO_PIECES
    outcome = "stalled" if fault is Fault.STALL else "cut_after_output"
    await assert_charged(shop, key, outcome, "estimated", TWO_PIECES)


@VOICES
async def test_a_cut_before_any_output_is_free(shop: Shop, voice: Voice) -> None:
    key = await shop.key(FUNDS_MSAT)
    shop.upstream.default = voice.stream(fault=Fault.CUT, after=1)
    answer = await shop.http.post(voice.path, headers=key.headers, json=voice.order(stream=True))
    assert events_in(answer.text)[-1]["type"] == voice.cut
    assert comment_in(answer.text)["cost"]["total_msats"] == 0
    await assert_charged(shop, key, "cut_before_output", "none", 0)


@VOICES
async def test_what_an_upstream_says_wrong_is_charged_as_its_row_says(
    shop: Shop, voice: Voice, subtests: pytest.Subtests
) -> None:
    """Guarantees, section 2: the rows that depend on how a dialect says things."""
    *said, terminal = voice.events()
    rows = [
        ("empty", "none", 0, voice.stream(text="", usage=(10, 0))),
        ("empty", "none", 0, voice.stream(text="", usage=None)),
        ("usage_insane", "estimated", ESTIMATE, voice.stream(usage=(10, -5))),
        ("completed", "exact", EXACT, voice.stream(fault=Fault.BAD_EVENT, after=2)),
        ("malformed", "estimated", ESTIMATE, voice.stream(fault=Fault.BAD_EVENT, usage=None)),
        ("cut_after_output", "estimated", ESTIMATE, Script(events=[*said[:4], DONE])),
        (voice.unfinished, *voice.unfinished_cost, Script(events=[*said, DONE])),
        ("completed", "exact", EXACT, Script(events=[*said, terminal + DONE])),
    ]
    for outcome, evidence, charged_msat, script in rows:
        with subtests.test(outcome=outcome, script=script):
            key = await shop.key(FUNDS_MSAT)
            shop.upstream.default = script
            body = voice.order(stream=True)
            answer = await shop.http.post(voice.path, headers=key.headers, json=body)
            assert comment_in(answer.text)["cost"]["total_msats"] == charged_msat
            is_cut = outcome.startswith("cut")
            [last] = events_in(answer.text.split("\n\n")[-2])
            assert last["type"] == (voice.cut if is_cut else voice.ends[-1])
            await assert_charged(shop, key, outcome, evidence, charged_msat)


@VOICES
async def test_a_client_that_leaves_pays_what_was_delivered(shop: Shop, voice: Voice) -> None:
    key, gate = await shop.key(FUNDS_MSAT), Gate()
    shop.upstream.default = voice.stream(gate=gate)
    gate.open(3)
    async with streaming(shop, key, voice) as stream:
        seen = ""
        async for piece in stream.aiter_text():
            seen += piece
            if "wo th" in seen:
                break
    call = await shop.upstream.called()
    await call.closed_by_client()
    await assert_charged(shop, key, "client_left", "estimated", TWO_PIECES)


@VOICES
async def test_when_the_money_ends_the_stream_ends_cleanly(shop: Shop, voice: Voice) -> None:
    key, gate = await shop.key(10_000), Gate()
    shop.upstream.default = voice.stream(gate=gate, **LONG)
    gate.open(2)
    async with streaming(shop, key, voice, **{voice.limit: 1_000}) as stream:
        parts = stream.aiter_text()
        text = await anext(parts)
        async with shop.ctx.database.reading() as connection:
            view = await find_key(connection, KeyRef(id=key.id))
        assert view is not None
        await fund(shop.ctx, key.id, view.reserved_msat - 10_000)  # all but the hold goes elsewhere
        gate.open(1)
        async for part in parts:
            text += part
            gate.open(part.count("data: "))
    await shop.quiet()
    [row] = await usage_rows(shop.ctx, key)
    assert (told(row)["outcome"], told(row)["evidence"]) == ("budget_exhausted", "estimated")
    assert 0 < -row.amount_msat <= view.reserved_msat
    assert await balance_msat(shop.ctx, key) == view.reserved_msat + row.amount_msat
    kind, reason = voice.budget
    [last] = [each for each in events_in(text) if each["type"] == kind]
    assert voice.stopped(last) == reason
    assert voice.usage(last)["cost"]["total_msats"] == -row.amount_msat
    assert comment_in(text)["cost"]["total_msats"] == -row.amount_msat


@VOICES
async def test_a_limit_the_key_cannot_pay_is_lowered(shop: Shop, voice: Voice) -> None:
    key = await shop.key(700)
    shop.upstream.default = voice.body()
    body = voice.order(**{voice.limit: 1_500})
    answer = await shop.http.post(voice.path, headers=key.headers, json=body)
    lowered = int(answer.headers["x-routstr-output-limit"])
    assert 16 <= lowered < 120
    assert shop.upstream.calls[0].json[voice.limit] == lowered


@VOICES
async def test_an_upstreams_refusal_keeps_its_words_and_costs_nothing(
    shop: Shop, voice: Voice
) -> None:
    key = await shop.key(FUNDS_MSAT)
    shop.upstream.default = failure(400, message="prompt is too long")
    answer = await shop.http.post(voice.path, headers=key.headers, json=voice.order())
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "prompt is too long"
    assert answer.json().get("type") == ("error" if voice is MESSAGES else None)
    await assert_charged(shop, key, "upstream_rejected", "none", 0)
