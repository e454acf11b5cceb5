"""The paid road over real HTTP: what a client gets, what the upstream sees, what it cost."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from tests.fakes.upstream_script import Fault, Script, failure
from tests.harness.funding import FundedKey, balance_msat, told, usage_rows
from tests.harness.shop import PATH, Shop, open_shop, order

OPERATOR_KEY = "sk-operator-0123456789"
COST = {
    "base_msats": 100,
    "input_msats": 20,
    "output_msats": 25,
    "total_msats": 145,
    "cache_read_msats": 0,
    "cache_creation_msats": 0,
    "total_usd": 0.000087,
    "input_tokens": 10,
    "output_tokens": 5,
    "cache_read_input_tokens": 0,
    "cache_creation_input_tokens": 0,
    "estimated": False,
    "remaining_balance_msats": 999_855,
}


@pytest.fixture
async def shop(database_url: str) -> AsyncIterator[Shop]:
    async with open_shop(database_url) as shop:
        yield shop


def sdk(shop: Shop, key: FundedKey) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        base_url=f"http://127.0.0.1:{shop.port}/v1", api_key=key.text, max_retries=0
    )


async def test_an_answer_carries_its_cost_in_body_and_headers(shop: Shop) -> None:
    key = await shop.key(1_000_000)
    answer = await shop.http.post(PATH, headers=key.headers, json=order())
    assert answer.status_code == 200
    usage = answer.json()["usage"]
    assert usage["cost"] == COST
    assert usage["cost_sats"] == 0.145
    assert usage["remaining_balance_msats"] == 999_855
    headers = {name: answer.headers[name] for name in answer.headers if "routstr" in name}
    request_id = headers.pop("x-routstr-request-id")
    assert request_id == answer.headers["x-request-id"]
    assert headers.pop("x-routstr-receipt")
    assert headers == {
        "x-routstr-max-cost-msats": "792",
        "x-routstr-provider": "fake",
        "x-routstr-cost-msats": "145",
        "x-routstr-input-cost-msats": "20",
        "x-routstr-output-cost-msats": "25",
        "x-routstr-cost-usd": "0.000087",
    }
    assert answer.headers["openai-processing-ms"] == "42"
    for name in ("set-cookie", "openai-organization"):
        assert name not in answer.headers
    [row] = await usage_rows(shop.ctx, key)
    assert row.operation_id == f"end:{request_id}"
    assert await balance_msat(shop.ctx, key) == 999_855


async def test_an_answer_is_otherwise_the_upstreams_bytes(shop: Shop) -> None:
    key = await shop.key()
    body = (
        b'{ "id":"x",  "n":1.50, "choices":[{"index":0,"message":{"content":"a\\u00e9/\\/"},'
        b'"finish_reason":"stop"}],\n"usage": {"prompt_tokens": 1,"completion_tokens" :1},"z":[] }'
    )
    shop.upstream.default = Script(body=body)
    answer = await shop.http.post(PATH, headers=key.headers, json=order())
    start, end = body.split(b'"completion_tokens" :1')
    start += b'"completion_tokens" :1,"cost":{'
    assert answer.content.startswith(start)
    assert answer.content.endswith(end)


@pytest.mark.parametrize("asked", [True, False])
async def test_a_stream_is_the_upstreams_bytes_with_its_cost(shop: Shop, asked: bool) -> None:
    key = await shop.key()
    pieces = [
        b": hello\r\n\r\n",
        b'id: 1\r\ndata: {"choices":[{"index":0,"delta":{"role":"assistant"}}]}\r\n\r\n',
        b'data: {"choices":[{"index":0,"delta":{"content":"\xc3\xa9 "}}], "x": 1.0}\n\n',
        b'data: {"choices":[{"index":0,"delta":{"content":"b"}}]}\n\n',
    ]
    finish = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":10,"completion_tokens":5}}\n\n'
    done = b"data: [DONE]\n\n"
    shop.upstream.default = Script(events=[*pieces, finish, usage, done], slice_bytes=7)
    options = {"stream_options": {"include_usage": True}} if asked else {}
    body = order(stream=True, **options)
    answer = await shop.http.post(PATH, headers=key.headers, json=body)
    sent = b"".join(pieces)
    assert answer.content.startswith(sent)
    rest = answer.content.removeprefix(sent).split(b"\n\n")
    rest.remove(b"id:")  # the comment is no event of that id
    comment = json.loads(rest[-3].removeprefix(b": routstr "))
    assert comment.pop("receipt")["charged_msats"] == COST["total_msats"]
    assert comment == {"request_id": answer.headers["x-request-id"], "cost": COST}
    assert rest[-2:] == [b"data: [DONE]", b""]
    events = [json.loads(event.removeprefix(b"data: ")) for event in rest[:-3]]
    assert [len(event["choices"]) for event in events] == ([1, 0] if asked else [1])
    assert events[-1]["usage"]["cost"] == COST
    assert events[-1]["usage"]["prompt_tokens"] == 10
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.headers["x-routstr-max-cost-msats"]


async def test_the_openai_sdk_reads_an_answer_and_its_cost(shop: Shop) -> None:
    key = await shop.key()
    async with sdk(shop, key) as client:
        answer = await client.chat.completions.create(**_asked())
    assert answer.choices[0].message.content == "one two three"
    assert answer.usage is not None
    assert answer.usage.model_extra is not None
    assert answer.usage.model_extra["cost"]["total_msats"] == 145


@pytest.mark.parametrize("asked", [True, False])
async def test_the_openai_sdk_reads_a_stream_and_its_cost(shop: Shop, asked: bool) -> None:
    key = await shop.key()
    options = {"stream_options": {"include_usage": True}} if asked else {}
    async with sdk(shop, key) as client:
        stream = await client.chat.completions.create(**_asked(stream=True, **options))
        chunks = [chunk async for chunk in stream]
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert said == "one two three"
    usage = chunks[-1].usage
    assert usage is not None
    assert usage.model_extra is not None
    assert usage.model_extra["cost"]["total_msats"] == 145
    assert bool(chunks[-1].choices) is not asked


async def test_the_openai_sdk_reads_a_refusal(shop: Shop) -> None:
    key = await shop.key(0)
    async with sdk(shop, key) as client:
        with pytest.raises(openai.APIStatusError) as refused:
            await client.chat.completions.create(**_asked())
    assert refused.value.status_code == 402
    assert refused.value.code == "insufficient_balance"


def _asked(**more: object) -> Any:
    return order(**more)


async def test_the_upstream_sees_our_body_our_key_and_no_header_of_the_clients(shop: Shop) -> None:
    key = await shop.key()
    headers = {
        **key.headers,
        "cookie": "a=b",
        "x-forwarded-for": "1.2.3.4",
        "openai-organization": "org-1",
        "user-agent": "client",
        "accept": "application/json",
    }
    await shop.http.post(PATH, headers=headers, json=order(stream=True, user="u"))
    call = shop.upstream.calls[0]
    assert call.path == PATH
    assert call.json == {
        **order(stream=True, user="u"),
        "stream_options": {"include_usage": True},
    }
    assert call.headers.pop("host").startswith("127.0.0.1:")
    assert call.headers.pop("content-length") == str(len(call.body))
    assert call.headers == {
        "authorization": f"Bearer {OPERATOR_KEY}",
        "accept": "application/json",
        "accept-encoding": "identity",
        "content-type": "application/json",
    }


async def test_the_hold_exists_before_the_upstream_is_asked(shop: Shop) -> None:
    key = await shop.key()
    await shop.http.post(PATH, headers=key.headers, json=order())
    marks = [name for name in shop.marks.passed if name.startswith(("forward", "settle"))]
    assert marks == [
        "forward.before_reserve",
        "forward.reserved",
        "forward.answered",
        "forward.metered",
        "settle.before",
        "settle.after",
    ]


async def test_the_path_works_without_v1_and_with_x_api_key(shop: Shop) -> None:
    key = await shop.key()
    headers = {"x-api-key": key.text}
    answer = await shop.http.post("/chat/completions", headers=headers, json=order())
    assert answer.status_code == 200
    assert shop.upstream.calls[0].path == PATH


async def test_connections_to_the_upstream_are_used_again(shop: Shop) -> None:
    key = await shop.key()
    for stream in (False, True, True, False):
        await shop.http.post(PATH, headers=key.headers, json=order(stream=stream))
        await shop.quiet()
    assert shop.upstream.connections == 1


async def test_a_stream_whose_body_ends_late_keeps_its_connection(database_url: str) -> None:
    told_client, connections = asyncio.Event(), list[int]()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(1)
        while await reader.read(65_536):
            event = b"data: [DONE]\n\n"
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n")
            writer.write(b"transfer-encoding: chunked\r\n\r\n%x\r\n" % len(event) + event + b"\r\n")
            await told_client.wait()
            told_client.clear()
            writer.write(b"0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    async with server, open_shop(database_url, base_url=url) as shop:
        key = await shop.key()
        for _ in range(2):
            body = order(stream=True)
            said = await shop.http.post(PATH, headers=key.headers, json=body)
            assert said.text.endswith("data: [DONE]\n\n")
            told_client.set()
            await shop.quiet()
    assert len(connections) == 1


# ── what the key can pay ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("given", ["max_tokens", "max_completion_tokens", None])
async def test_a_limit_the_key_cannot_pay_is_lowered(
    shop: Shop, stream: bool, given: str | None
) -> None:
    key = await shop.key(100 + 2 * 150 + 5 * 40)  # the prompt's bound leaves 40 tokens and more
    limit: dict[str, object] = {"max_tokens": None}
    body = order(stream=stream, **limit | ({given: 1_500} if given else {}))
    answer = await shop.http.post(PATH, headers=key.headers, json=body)
    assert answer.status_code == 200, answer.text
    lowered = int(answer.headers["x-routstr-output-limit"])
    assert 40 < lowered < 80
    assert shop.upstream.calls[0].json[given or "max_completion_tokens"] == lowered
    await shop.quiet()
    [row] = await usage_rows(shop.ctx, key)
    assert (row.amount_msat, told(row)["outcome"]) == (-145, "completed")


async def test_a_limit_the_key_can_pay_is_left_alone(shop: Shop) -> None:
    key = await shop.key()
    answer = await shop.http.post(PATH, headers=key.headers, json=order())
    assert "x-routstr-output-limit" not in answer.headers
    assert shop.upstream.calls[0].json["max_tokens"] == 100


@pytest.mark.parametrize("stream", [False, True])
async def test_a_key_that_cannot_pay_sixteen_tokens_is_refused(shop: Shop, stream: bool) -> None:
    key = await shop.key(200)
    answer = await shop.http.post(PATH, headers=key.headers, json=order(stream=stream))
    assert answer.status_code == 402
    assert answer.headers["x-should-retry"] == "false"
    error = answer.json()["error"]
    assert (error["type"], error["code"]) == ("insufficient_quota", "insufficient_balance")
    required = error["details"]["required_msat"]
    assert error["details"] == {
        "required_msat": required,
        "available_msat": 200,
        "held_msat": 0,
        "shortfall_msat": required - 200,
    }
    assert shop.upstream.calls == []
    assert await usage_rows(shop.ctx, key) == []


async def test_a_stream_answered_by_json_is_charged_as_json(shop: Shop) -> None:
    key = await shop.key()
    body = json.dumps(
        {
            "choices": [{"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 5},
        }
    )
    shop.upstream.default = Script(body=body.encode())
    answer = await shop.http.post(PATH, headers=key.headers, json=order(stream=True))
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["usage"]["cost"] == COST


async def test_a_cost_above_the_quote_is_the_operators(shop: Shop) -> None:
    key = await shop.key()
    shop.upstream.default = Script(completion_tokens=5_000)
    answer = await shop.http.post(PATH, headers=key.headers, json=order())
    told_msat = answer.json()["usage"]["cost"]["total_msats"]
    assert answer.headers["x-routstr-cost-msats"] == str(told_msat)
    assert answer.headers["x-routstr-max-cost-msats"] == str(told_msat)
    assert await balance_msat(shop.ctx, key) == 1_000_000 - told_msat


# ── when the money moves ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("script", [Script(), Script(usage=None), failure(500), failure(400)])
@pytest.mark.parametrize("stream", [False, True])
async def test_the_answers_end_comes_after_the_settlement(
    shop: Shop, script: Script, stream: bool
) -> None:
    key = await shop.key()
    shop.upstream.default = script
    seen_at: list[int] = []
    shop.marks.at["settle.after"] = lambda: seen_at.append(len(received))
    received: list[bytes] = []
    body = order(stream=stream)
    async with shop.http.stream("POST", PATH, headers=key.headers, json=body) as answer:
        async for piece in answer.aiter_raw():
            received.append(piece)
            is_last = not stream or answer.status_code != 200 or b"[DONE]" in piece
            assert not is_last or seen_at
    assert len(seen_at) == 1
    assert len(await usage_rows(shop.ctx, key)) == 1


async def test_an_upstream_that_is_down_is_tried_twice_and_charged_never(
    database_url: str,
) -> None:
    nobody = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    url = f"http://127.0.0.1:{nobody.sockets[0].getsockname()[1]}/v1"
    nobody.close()
    await nobody.wait_closed()
    async with open_shop(database_url, base_url=url) as shop:
        key = await shop.key(10_000)
        answer = await shop.http.post(PATH, headers=key.headers, json=order())
        assert answer.status_code == 424
        assert answer.json()["error"]["code"] == "UPSTREAM_UNAVAILABLE"
        assert answer.headers["x-should-retry"] == "true"
        [row] = await usage_rows(shop.ctx, key)
        assert (row.amount_msat, told(row)["outcome"]) == (0, "upstream_failed")
        assert told(row)["attempts"] == 2
        assert await balance_msat(shop.ctx, key) == 10_000


async def test_what_may_have_been_served_is_never_sent_twice(shop: Shop) -> None:
    key = await shop.key()
    shop.upstream.default = Script(fault=Fault.RESET_BEFORE_HEADERS)
    answer = await shop.http.post(PATH, headers=key.headers, json=order())
    assert answer.status_code == 424
    assert len(shop.upstream.calls) == 1
