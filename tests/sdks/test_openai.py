"""OpenAI's own Python SDK buys everything that it has a method for; a warning is an error."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.core.forms import wav
from tests.fakes.upstream_dialects import response_body
from tests.fakes.upstream_script import MODEL, Script
from tests.harness.funding import FundedKey
from tests.harness.shop import Shop
from tests.harness.till import ON_SQLITE
from tests.sdks.conftest import Billed

pytestmark = ON_SQLITE

TOKENS_MSAT = 100 + 10 * 2 + 5 * 5  # 10 in, 5 out
ASKED: Any = {"model": MODEL, "messages": [{"role": "user", "content": "Count to three."}]}
RECORDING = Path(__file__).parents[1] / "recordings" / "responses" / "plain.sse"
RECORDED = [event + b"\n\n" for event in RECORDING.read_bytes().split(b"\n\n") if event]
TOOLS: Any = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]
HEAD = b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m",'
USED = b'"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}'
CALL = '"tool_calls":[{"index":0,"id":"call_1","type":"function","function":'


@pytest.fixture
async def client(shop: Shop, key: FundedKey) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=f"http://127.0.0.1:{shop.port}/v1", api_key=key.text, max_retries=0
    ) as client:
        yield client


def chunk(delta: str, finish: str = "null") -> bytes:
    head = (
        '{"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,'
    )
    return f'data: {head}"delta":{{{delta}}},"finish_reason":{finish}}}]}}\n\n'.encode()


async def test_tools_in_a_stream(client: openai.AsyncOpenAI, shop: Shop, billed: Billed) -> None:
    usage = b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m",'
    usage += (
        b'"choices":[],"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}\n\n'
    )
    shop.upstream.script(
        Script(
            events=[
                chunk(f'"role":"assistant",{CALL}{{"name":"weather","arguments":""}}}}]'),
                chunk('"tool_calls":[{"index":0,"function":{"arguments":"{\\"place\\":"}}]'),
                chunk('"tool_calls":[{"index":0,"function":{"arguments":"\\"Oslo\\"}"}}]'),
                chunk("", '"tool_calls"'),
                HEAD + b'"choices":[],' + USED + b"}\n\n",
                b"data: [DONE]\n\n",
            ]
        )
    )
    async with client.chat.completions.stream(**ASKED, tools=TOOLS) as stream:
        final = await stream.get_final_completion()
    message = final.choices[0].message
    assert message.tool_calls is not None
    assert message.tool_calls[0].function.arguments == '{"place":"Oslo"}'
    assert final.choices[0].finish_reason == "tool_calls"
    await billed(TOKENS_MSAT)


async def test_embeddings(client: openai.AsyncOpenAI, shop: Shop, billed: Billed) -> None:
    shop.upstream.script(
        Script(
            body=b'{"object":"list","model":"m","data":[{"object":"embedding","index":0,'
            b'"embedding":"AAAAPwAAgD4="}],"usage":{"prompt_tokens":6,"total_tokens":6}}'
        )
    )
    answer = await client.embeddings.create(model=MODEL, input="one two three")
    assert answer.data[0].embedding == [0.5, 0.25]
    await billed(100 + 6 * 2)


async def test_images(client: openai.AsyncOpenAI, shop: Shop, billed: Billed) -> None:
    shop.upstream.script(Script(body=b'{"created":1,"data":[{"b64_json":"aGk="}]}'))
    answer = await client.images.generate(model="draws", prompt="a cat", n=1)
    assert answer.data is not None
    assert answer.data[0].b64_json == "aGk="
    await billed(40_000)


async def test_edited_images(client: openai.AsyncOpenAI, shop: Shop, billed: Billed) -> None:
    shop.upstream.script(Script(body=b'{"created":1,"data":[{"b64_json":"aGk="}]}'))
    image = ("cat.png", b"\x89PNG\r\n\x1a\n", "image/png")
    answer = await client.images.edit(model="draws", prompt="a hat", image=image)
    assert answer.data is not None
    await billed(40_000)


async def test_speech(client: openai.AsyncOpenAI, shop: Shop, billed: Billed) -> None:
    sound = b"\xff\xfb\x90\0 sound"
    shop.upstream.script(Script(body=sound, headers={"content-type": "audio/mpeg"}))
    answer = await client.audio.speech.create(model="speaks", input="Guten Tag", voice="alloy")
    assert answer.content == sound
    await billed(9 * 15)


async def test_transcripts(client: openai.AsyncOpenAI, shop: Shop, billed: Billed) -> None:
    shop.upstream.script(Script(body=b'{"text":"one","usage":{"type":"duration","seconds":3}}'))
    answer = await client.audio.transcriptions.create(
        model="hears", file=("talk.wav", wav(2_500), "audio/wav")
    )
    assert answer.text == "one"
    await billed(300)


async def test_completions(client: openai.AsyncOpenAI, shop: Shop, billed: Billed) -> None:
    shop.upstream.script(
        Script(
            body=b'{"id":"c","object":"text_completion","created":1,"model":"m","choices":['
            b'{"index":0,"text":" upon a time","finish_reason":"stop","logprobs":null}],'
            + USED
            + b"}"
        )
    )
    answer = await client.completions.create(model=MODEL, prompt="Once", max_tokens=20)
    assert answer.choices[0].text == " upon a time"
    await billed(TOKENS_MSAT)


async def test_a_response(client: openai.AsyncOpenAI, shop: Shop, billed: Billed) -> None:
    shop.upstream.script(response_body())
    answer = await client.responses.create(model=MODEL, input="Count to three.")
    assert answer.output_text == "one two three"
    assert answer.usage is not None
    assert answer.usage.model_extra is not None
    assert answer.usage.model_extra["cost"]["total_msats"] == TOKENS_MSAT
    await billed(TOKENS_MSAT)


async def test_a_streamed_response(client: openai.AsyncOpenAI, shop: Shop, billed: Billed) -> None:
    shop.upstream.script(Script(events=RECORDED))
    async with client.responses.stream(model=MODEL, input="Count to three.") as stream:
        said = "".join(
            [event.delta async for event in stream if event.type == "response.output_text.delta"]
        )
        final = await stream.get_final_response()
    assert said == final.output_text != ""
    assert final.usage is not None
    used = final.usage
    await billed(100 + 2 * used.input_tokens + 5 * used.output_tokens)
