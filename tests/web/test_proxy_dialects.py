"""The paid road in dialects other than chat, over real HTTP: bytes, events, and what it cost."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from routstr.ledger.book import KeyRef
from routstr.ledger.reads import find_key
from tests.fakes.upstream_dialects import (
    event,
    message_body,
    message_events,
    message_stream,
)
from tests.fakes.upstream_script import MODEL, Fault, Gate, Script, failure
from tests.harness.funding import FundedKey, balance_msat, fund, told, usage_rows
from tests.harness.shop import PROMPT, Shop, open_shop
from tests.harness.till import ON_SQLITE

FUNDS_MSAT = 1_000_000
EXACT = 100 + 10 * 2 + 5 * 5  # 10 tokens in, 5 out
ESTIMATE = 100 + 4 * 2 + 4 * 5  # 14 bytes in, 13 out, four to a token
TWO_PIECES = 100 + 4 * 2 + 3 * 5  # "one two th": the first two of three chunks
SLICE_TOKENS = 20
LONG = {"text": "0123456789abcdef" * 25, "chunks": 25, "usage": (10, 100)}

pytestmark = ON_SQLITE


@dataclass(frozen=True, kw_only=True)
class Voice:
    """One dialect as its clients speak it."""

    path: str
    limit: str
    asked: dict[str, object]
    body: Callable[..., Script]
    events: Callable[..., list[bytes]]
    stream: Callable[..., Script]
    last: str  # the event that carries the cost
    ends: tuple[str, ...]  # the events after the text, from there on
    usage: Callable[[dict[str, Any]], dict[str, Any]]  # in that event
    cut: str  # the event after a failure
    error: Callable[[dict[str, Any]], dict[str, Any]]  # in that event
    stopped: Callable[[dict[str, Any]], object]  # why it ended, in `last`
    budget: str  # that reason when the money ended

    def order(self, **more: object) -> dict[str, object]:
        return {"model": MODEL, self.limit: 100, **self.asked, **more}


MESSAGES = Voice(
    path="/v1/messages",
    limit="max_tokens",
    asked={"messages": [{"role": "user", "content": PROMPT}]},
    body=message_body,
    events=message_events,
    stream=message_stream,
    last="message_delta",
    ends=("message_delta", "message_stop"),
    usage=lambda last: last["usage"],
    cut="error",
    error=lambda last: last["error"],
    stopped=lambda last: last["delta"]["stop_reason"],
    budget="max_tokens",
)
VOICES = pytest.mark.parametrize("voice", [MESSAGES], ids=lambda voice: voice.path)


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


async def assert_charged(
    shop: Shop, key: FundedKey, outcome: str, evidence: str, charged_msat: int
) -> None:
    await shop.quiet()
    row = (await usage_rows(shop.ctx, key))[0]
    assert (told(row)["outcome"], told(row)["evidence"]) == (outcome, evidence)
    assert row.amount_msat == -charged_msat
    assert await balance_msat(shop.ctx, key) == FUNDS_MSAT - charged_msat


def events_in(text: str) -> list[dict[str, Any]]:
    """The data of each event, whose name must be the type in it; comments apart."""
    found = []
    for each in text.split("\n\n"):
        if each and not each.startswith(":"):
            name, data = each.split("\n")
            found.append(json.loads(data.removeprefix("data: ")))
            assert name == f"event: {found[-1]['type']}"
    return found


def comment_in(text: str) -> dict[str, Any]:
    """What the comment says, which stands just before the terminal event."""
    *_, comment, terminal, rest = text.split("\n\n")
    assert terminal.startswith("event: ")
    assert rest == ""
    said = json.loads(comment.removeprefix(": routstr "))
    assert isinstance(said, dict)
    return said


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
    [last] = [each for each in events_in(text) if each["type"] in (voice.last, *BUDGET_ENDS)]
    assert voice.stopped(last) == voice.budget
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


# ── messages alone ────────────────────────────────────────────────────────────────────────────


async def test_a_message_is_refused_in_its_own_envelope(shop: Shop) -> None:
    key = await shop.key(FUNDS_MSAT)
    tools = [{"type": "web_search_20250305", "name": "web_search"}]
    body = MESSAGES.order(tools=tools)
    answer = await shop.http.post(MESSAGES.path, headers=key.headers, json=body)
    assert (answer.status_code, answer.json()["type"]) == (400, "error")
    assert answer.json()["error"]["code"] == "unsupported_parameter"
    assert shop.upstream.calls == []


async def test_the_upstreams_own_error_event_is_told_in_ours(shop: Shop) -> None:
    key = await shop.key(FUNDS_MSAT)
    error = {"type": "overloaded_error", "message": "Overloaded at api.example.org"}
    shop.upstream.default = Script(events=[*message_events()[:3], event("error", error=error)])
    answer = await shop.http.post(
        MESSAGES.path, headers=key.headers, json=MESSAGES.order(stream=True)
    )
    assert "example.org" not in answer.text
    assert events_in(answer.text)[-1]["error"]["code"] == "upstream_request_failed"
    await assert_charged(shop, key, "cut_after_output", "estimated", TWO_PIECES)


async def test_only_harmless_betas_pass(shop: Shop) -> None:
    key = await shop.key(FUNDS_MSAT)
    shop.upstream.default = message_body()
    for given, passed in (
        ("interleaved-thinking-2025-05-14,files-api-2025-04-14", "interleaved-thinking-2025-05-14"),
        ("files-api-2025-04-14", None),
    ):
        headers = {**key.headers, "anthropic-beta": given}
        await shop.http.post(MESSAGES.path, headers=headers, json=MESSAGES.order())
        assert shop.upstream.calls[-1].headers.get("anthropic-beta") == passed
    headers = {**key.headers, "anthropic-beta": "context-1m-2025-08-07"}
    refused = await shop.http.post(MESSAGES.path, headers=headers, json=MESSAGES.order())
    assert refused.json()["error"]["param"] == "anthropic-beta"
    assert len(shop.upstream.calls) == 2


async def test_counting_tokens_is_free_and_needs_a_key(shop: Shop) -> None:
    path = f"{MESSAGES.path}/count_tokens"
    key = await shop.key(0)
    shop.upstream.default = Script(body=b'{"input_tokens": 14}')
    body = {"model": MODEL, "messages": MESSAGES.asked["messages"]}
    answer = await shop.http.post(path, headers=key.headers, json=body)
    assert answer.status_code == 200
    assert answer.content == b'{"input_tokens": 14}'
    assert answer.headers["x-routstr-max-cost-msats"] == "0"
    assert answer.headers["x-routstr-cost-msats"] == "0"
    assert shop.upstream.calls[0].path == path
    [row] = await usage_rows(shop.ctx, key)
    assert row.amount_msat == 0
    unknown = {"authorization": f"Bearer sk-{'0' * 64}"}
    assert (await shop.http.post(path, headers=unknown, json=body)).status_code == 401
    assert (await shop.http.post(path, json=body)).json()["error"]["code"] == "missing_api_key"
    assert len(shop.upstream.calls) == 1


BUDGET_ENDS = ("response.incomplete",)
