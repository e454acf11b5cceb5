"""Every end that the node gives a stream is read by the official SDKs as what it is."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from routstr.core.dialects import DIALECTS, StreamMeter
from routstr.core.pricing import Cost, Usage
from routstr.core.receipt import Receipt, comment_line, cost_members

RECORDINGS = Path(__file__).parents[1] / "recordings"
USED = Usage(input_tokens=5, output_tokens=3)
RECEIPT = Receipt(cost=Cost(base_msat=1, input_msat=2, output_msat=3, usage=USED), estimated=True)
COST, COMMENT = cost_members(RECEIPT), comment_line("req_1", RECEIPT)
ERROR: Mapping[str, object] = {"message": "It broke off.", "type": "t", "code": "c", "param": None}
FILES = {
    "/chat/completions": "openai_tools.sse",
    "/completions": "completions/openai.sse",
    "/messages": "messages/thinking_tools.sse",
    "/responses": "responses/reasoning_tools.sse",
}
PATHS = pytest.mark.parametrize("path", sorted(FILES))
USER: Any = [{"role": "user", "content": "a"}]


def metered(path: str, events: int, *, with_id: bool) -> tuple[StreamMeter, bytes]:
    """The meter of a stream of which so many events have come, and what it gave on."""
    meter = DIALECTS[path].stream_meter(
        usage_asked=True, usage_cap=10**6, event_bytes_max=1024 * 1024
    )
    recorded = (RECORDINGS / FILES[path]).read_bytes().split(b"\n\n")[:events]
    start = b"id: 7\n" if with_id else b""
    return meter, b"".join(meter.feed(start + event + b"\n\n") for event in recorded)


async def told(path: str, stream: bytes) -> tuple[object, object]:
    """Why it ended, as its SDK tells it, and the output tokens."""

    def answer(_: httpx2.Request) -> httpx2.Response:
        head = {"content-type": "text/event-stream"}
        return httpx2.Response(200, headers=head, content=stream)

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer)) as http:
        if path == "/messages":
            claude = anthropic.AsyncAnthropic(api_key="k", http_client=http, max_retries=0)
            async with claude.messages.stream(model="m", max_tokens=9, messages=USER) as message:
                final = await message.get_final_message()
            return final.stop_reason, final.usage.output_tokens
        client = openai.AsyncOpenAI(api_key="k", http_client=http, max_retries=0)
        if path == "/responses":
            async with client.responses.stream(model="m", input="a") as response:
                last = [event async for event in response][-1]
            assert last.type == "response.incomplete"
            assert last.response.usage is not None
            return last.response.status, last.response.usage.output_tokens
        if path == "/completions":
            asked: Any = await client.completions.create(model="m", prompt="a", stream=True)
        else:
            asked = await client.chat.completions.create(model="m", messages=USER, stream=True)
        chunks = [chunk async for chunk in asked]
        reasons = [choice.finish_reason for chunk in chunks for choice in chunk.choices]
        return reasons[-1], chunks[-1].usage.completion_tokens


@PATHS
@pytest.mark.parametrize("with_id", [False, True])
async def test_when_the_money_ends(path: str, with_id: bool) -> None:
    for events in (1, 3, 4):
        meter, given = metered(path, events, with_id=with_id)
        stream = given + meter.clean_end(USED, COST, COMMENT)
        reasons = {"/messages": "max_tokens", "/responses": "incomplete"}
        assert await told(path, stream) == (reasons.get(path, "length"), 3)


@PATHS
@pytest.mark.parametrize("with_id", [False, True])
async def test_when_it_breaks_off(path: str, with_id: bool) -> None:
    for events in (0, 1, 4):
        meter, given = metered(path, events, with_id=with_id)
        stream = given + meter.error_end(ERROR, COMMENT, cost=COST, usage=USED)
        if path == "/responses" and events:
            with pytest.raises(AssertionError, match=r"response\.failed"):
                await told(path, stream)
            continue
        kind = anthropic.APIError if path == "/messages" else openai.APIError
        with pytest.raises(kind, match=r"It broke off\."):
            await told(path, stream)
