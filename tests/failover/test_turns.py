"""Whom a request asks, and when it does not ask on."""

import asyncio
import time
from dataclasses import replace
from typing import Any

import httpx
import pytest

from routstr.core.dialects import CHAT
from routstr.flows.exchange import Exchange
from routstr.flows.queue import ChunkQueue
from routstr.flows.turns import Turns
from routstr.gateways.pool import Target
from tests.failover.pair import EXACT_MSAT, Pair, candidate, open_pair
from tests.fakes.upstream_dialects import event
from tests.fakes.upstream_script import EMPTY, Fault, Gate, Script, failure
from tests.harness.funding import told, usage_rows
from tests.harness.shop import CHAT_MODEL, PATH, open_shop, order
from tests.harness.till import ON_SQLITE
from tests.web.voices import MESSAGES, RESPONSES, Voice

pytestmark = ON_SQLITE


async def head_of(pair: Pair, stream: bool = False) -> httpx.Response:
    """An answer as the client has it, its books unread."""
    key = await pair.shop.key()
    return await pair.shop.http.post(PATH, headers=key.headers, json=order(stream=stream))


async def test_told_waits_are_kept_even_if_nobody_else_is_left(database_url: str) -> None:
    async with open_pair(database_url) as pair:
        pair.first.default = pair.second.default = failure(429, retry_after=30)
        got = await pair.buy(stream=False)
        assert (got.status, got.code) == (429, "UPSTREAM_RATE_LIMIT")
        assert got.tried == [("first", "status_429"), ("second", "status_429")]
        answer = await head_of(pair)
        assert answer.status_code == 429
        assert 28 <= int(answer.headers["retry-after"]) <= 31
        assert answer.headers["x-routstr-error-scope"] == "upstream"
        assert len(pair.first.calls + pair.second.calls) == 2
        got = await pair.buy(stream=True)
        assert (got.said["attempts"], got.said["at_risk_msat"]) == (0, 0)


async def test_a_refused_account_is_not_the_clients_fault_and_is_probed_again(
    database_url: str,
) -> None:
    async with open_pair(database_url) as pair:
        pair.first.default = pair.second.default = failure(401, code="invalid_api_key")
        got = await pair.buy(stream=False)
        assert (got.status, got.code) == (424, "UPSTREAM_UNAVAILABLE")
        assert {each.state for each in pair.shop.ctx.upstream.health()} == {"open"}
        pair.first.default = Script()
        assert (await pair.buy(stream=False)).by == "first"
        first, second = pair.shop.ctx.upstream.health()
        assert (first.state, second.state) == ("closed", "open")
        assert first.latency_s is not None
        assert second.last_failure == "status_401"


async def test_nobody_is_asked_who_is_too_dear(database_url: str) -> None:
    async with open_pair(database_url, dearer_percent=51) as pair:
        pair.first.default = failure(503)
        got = await pair.buy(stream=False)
        assert (got.status, len(pair.second.calls)) == (424, 0)


async def test_the_budget_of_retries_is_kept(database_url: str) -> None:
    async with open_pair(database_url, is_busy=False) as pair:
        budget = pair.shop.ctx.upstream.budget
        while budget.take(time.monotonic()):
            pass
        pair.first.default = failure(503)
        got = await pair.buy(stream=True)
        assert (got.status, got.said["attempts"], len(pair.second.calls)) == (424, 1, 0)


async def test_a_client_that_leaves_during_a_retry_ends_it_at_once(database_url: str) -> None:
    async with open_pair(database_url, upstream_first_byte_timeout_s=60) as pair:
        pair.first.default, pair.second.default = failure(503), Script(headers_gate=Gate())
        key = await pair.shop.key()
        leaving = asyncio.create_task(
            pair.shop.http.post(PATH, headers=key.headers, json=order(stream=True))
        )
        call = await pair.second.called()
        assert call.json["model"] == "second-fake-model"
        leaving.cancel()
        await call.closed_by_client()
        await pair.shop.quiet()
        [row] = await usage_rows(pair.shop.ctx, key)
        assert (row.amount_msat, told(row)["outcome"]) == (0, "client_left_early")
        assert told(row)["attempts"] == 2


async def test_a_client_that_leaves_before_the_first_output_ends_it_at_once(
    database_url: str,
) -> None:
    async with open_pair(
        database_url, upstream_first_token_timeout_s=10, upstream_idle_timeout_s=10
    ) as pair:
        pair.first.default = Script(gate=Gate())
        key = await pair.shop.key()
        leaving = asyncio.create_task(
            pair.shop.http.post(PATH, headers=key.headers, json=order(stream=True))
        )
        call = await pair.first.called()
        await pair.shop.marks.reached("forward.answered")
        leaving.cancel()
        await call.closed_by_client()
        await pair.shop.quiet()
        [row] = await usage_rows(pair.shop.ctx, key)
        assert (row.amount_msat, told(row)["outcome"]) == (0, "client_left_early")
        assert pair.second.calls == []
        assert [each.failures for each in pair.shop.ctx.upstream.health()] == [0, 0]


async def test_the_total_time_ends_an_attempt_and_there_is_no_other(database_url: str) -> None:
    limits: dict[str, Any] = {
        "upstream_first_byte_timeout_s": 60,
        "upstream_first_token_timeout_s": 60,
        "upstream_total_timeout_s": 0.5,
    }
    async with open_pair(database_url, **limits) as pair:
        pair.first.default = Script(fault=Fault.SILENCE)
        answer = await head_of(pair)
        assert answer.json()["error"]["code"] == "UPSTREAM_TIMEOUT"
        assert len(pair.second.calls) == 0


async def test_all_attempts_share_the_total_time(database_url: str) -> None:
    async with open_pair(database_url, upstream_total_timeout_s=60) as pair:
        now_s = time.monotonic()
        ctx = replace(pair.shop.ctx, monotonic_s=lambda: now_s)
        turns = Turns(ctx, an_exchange(), (candidate("first"), candidate("second")))
        turns.start()
        now_s += 40
        assert turns.has_other()
        assert turns.left_s() == pytest.approx(20)
        assert turns.go_on()
        assert turns.left_s() == pytest.approx(20)
        now_s += 21
        assert (turns.go_on(same=True), turns.left_s()) == (False, 0)
        turns.close()


def an_exchange() -> Exchange:
    """One that has only just begun."""
    return Exchange(
        request_id="req_turns",
        request_sha256="0" * 64,
        queue=ChunkQueue(chunks_max=1, bytes_max=1),
        dialect=CHAT,
    )


async def test_what_was_read_before_the_first_output_is_handed_on_byte_for_byte(
    database_url: str,
) -> None:
    events = [
        b": waiting\r\n\r\n",
        b'data: {"choices":[{"index":0,"delta":{"role":"assistant"}}]}\n\n',
        b'event: x\ndata: {"choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n',
        b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n',
        b'data: {"choices":[],"usage":{"prompt_tokens":10,"completion_tokens":5}}\n\n',
        b"data: [DONE]\n\n",
    ]
    async with open_pair(database_url) as pair:
        pair.first.default = Script(events=events, slice_bytes=3)
        got = await pair.buy(stream=True)
        assert got.text.encode().startswith(b"".join(events[:3]))
        assert (got.by, got.charged_msat) == ("first", EXACT_MSAT)


async def test_output_before_a_refusal_is_handed_on_if_it_is_charged(database_url: str) -> None:
    output = b'data: {"choices":[{"index":0,"delta":{"content":"hi there"}}]}\n\n'
    refusal = b'data: {"error":{"message":"no","code":"content_filter"}}\n\n'
    async with open_pair(database_url) as pair:
        for event, charged_msat in ((output + refusal, 118), (refusal, 0)):
            pair.first.default = Script(events=[event])
            got = await pair.buy(stream=True)
            assert (got.charged_msat, "hi there" in got.text) == (charged_msat, charged_msat > 0)
            assert "content_filter" in got.text
        assert pair.second.calls == []


async def test_a_late_stream_begins_when_nobody_else_is_left(database_url: str) -> None:
    async with open_pair(database_url, upstream_idle_timeout_s=10) as pair:
        gate = Gate()
        pair.first.default = Script(gate=gate)
        key = await pair.shop.key()
        asked = pair.shop.http.stream("POST", PATH, headers=key.headers, json=order(stream=True))
        paused = asyncio.create_task(_pause(pair))
        async with asked as answer:
            assert answer.headers["x-routstr-provider"] == "first"
            assert pair.second.calls == []
            gate.open_for_ever()
            assert b"[DONE]" in await answer.aread()
        await paused


async def _pause(pair: Pair) -> None:
    """Put the second one aside, once the first one's output is waited for."""
    await pair.shop.marks.reached("forward.answered")
    target = Target(upstream_id="second", model_id="second-fake-model")
    attempt = pair.shop.ctx.upstream.begin(target)
    assert attempt is not None
    attempt.failed("status_401", is_final=True)
    attempt.close()


async def test_nothing_at_all_is_no_answer_but_an_empty_one_is(database_url: str) -> None:
    bare = Script(body=b'{"choices":[]}')
    async with open_pair(database_url) as pair:
        pair.first.default = bare
        assert (await pair.buy(stream=False)).by == "second"
        pair.first.default = Script(events=[b"data: [DONE]\n\n"])
        assert (await pair.buy(stream=True)).by == "second"
        for stream in (False, True):
            pair.first.default = EMPTY
            got = await pair.buy(stream=stream)
            assert (got.by, got.said["outcome"], got.charged_msat) == ("first", "empty", 0)


async def test_usage_that_cannot_be_counts_against_its_upstream(database_url: str) -> None:
    async with open_pair(database_url) as pair:
        pair.first.default = Script(usage="many")
        for stream in (False, True):
            got = await pair.buy(stream=stream)
            assert (got.by, got.said["outcome"]) == ("first", "usage_insane")
        first, _ = pair.shop.ctx.upstream.health()
        assert first.last_failure == "usage_insane"
        assert first.failures > 0


async def test_alone_an_upstream_is_asked_again_once_after_a_500(database_url: str) -> None:
    async with open_shop(database_url) as shop:
        for answers, status, attempts in (([500], 200, 2), ([500, 500], 424, 2), ([503], 424, 1)):
            shop.ctx.upstream.follow({})
            shop.upstream.script(*(failure(each) for each in answers))
            key = await shop.key()
            answer = await shop.http.post(PATH, headers=key.headers, json=order())
            assert answer.status_code == status
            [row] = await usage_rows(shop.ctx, key)
            assert told(row)["attempts"] == attempts


# ── the other dialects ────────────────────────────────────────────────────────────────────────


def error_of(voice: Voice, code: str) -> bytes:
    """How a stream of that dialect says an error."""
    if voice is MESSAGES:
        return event("error", error={"type": code, "message": "No."})
    failed = {"id": "resp_1", "status": "failed", "error": {"code": code, "message": "No."}}
    return event("response.failed", response=failed)


@pytest.mark.parametrize("voice", [MESSAGES, RESPONSES], ids=["messages", "responses"])
async def test_every_dialect_is_followed_before_its_first_output(
    database_url: str, voice: Voice
) -> None:
    async with open_pair(database_url) as pair:
        opening = voice.events()[0]
        key, body = await pair.shop.key(), voice.order(stream=True)
        pair.second.default = voice.stream()
        for events in ([opening, error_of(voice, "overloaded_error")], [opening]):
            pair.first.default = Script(events=events)
            answer = await pair.shop.http.post(voice.path, headers=key.headers, json=body)
            assert answer.headers["x-routstr-provider"] == "second"
            assert voice.last in answer.text
            assert answer.text.count(opening.decode().split("\n")[0]) == 1
        pair.first.default = Script(events=[opening, error_of(voice, "request_too_large")])
        answer = await pair.shop.http.post(voice.path, headers=key.headers, json=body)
        assert answer.status_code == 400
        assert answer.json()["error"]["message"] == "No."
        assert len(pair.second.calls) == 2
        await pair.shop.quiet()
        costs = [-row.amount_msat for row in await usage_rows(pair.shop.ctx, key)]
        assert sorted(costs) == [0, EXACT_MSAT, EXACT_MSAT]


async def test_a_count_of_tokens_is_an_answer(database_url: str) -> None:
    async with open_pair(database_url) as pair:
        pair.first.default = Script(body=b'{"input_tokens":7}')
        key, path = await pair.shop.key(), f"{MESSAGES.path}/count_tokens"
        body = {"model": CHAT_MODEL.id, "messages": MESSAGES.asked["messages"]}
        answer = await pair.shop.http.post(path, headers=key.headers, json=body)
        assert answer.json() == {"input_tokens": 7}
        assert (answer.headers["x-routstr-provider"], pair.second.calls) == ("first", [])
