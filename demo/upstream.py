"""A deterministic OpenAI-compatible upstream: the same request always gets the same answer.

A token is a word. The prompt's tokens are the words of all messages; each of the `n` choices has
`--answer-words` words, or `max_completion_tokens` / `max_tokens` if that is fewer. So whoever knows
the request knows its usage, and can check every charge to the msat. No clock and no dice.

`python -m demo.upstream --port N` runs it in the foreground until it is interrupted.
"""

import argparse
import asyncio
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler

MODELS_FILE: Final = Path(__file__).with_name("models.json")

CREATED: Final = 1_700_000_000  # a fixed time, so that answers repeat byte for byte
ANSWER_WORDS: Final = 24
CHOICES_MAX: Final = 8
BODY_BYTES_MAX: Final = 16 * 2**20
SENTENCE: Final = (
    "Ecash pays for this answer word by word and what is left over goes back to whoever paid it "
    "because nobody here keeps an account or asks for a name."
)
WORDS: Final = SENTENCE.split()


@dataclass(slots=True, kw_only=True)
class Upstream:
    """What is served, how fast, to whom; and what was seen, for whoever wants to compare."""

    models: tuple[str, ...]
    api_key: str | None
    answer_words: int
    answer_delay_s: float
    chunk_delay_s: float
    requests: int = 0
    streams_whole: int = 0
    streams_cut: int = 0


STATE: Final = web.AppKey("state", Upstream)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a chat completion asks for, as far as the answer depends on it."""

    id: str
    model: str
    prompt_tokens: int
    words_max: int | None
    choices: int
    is_stream: bool
    wants_usage: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What an order gets; every choice says the same."""

    order: Order
    words: list[str]
    finish_reason: str

    @property
    def usage(self) -> dict[str, int]:
        prompt, completion = self.order.prompt_tokens, len(self.words) * self.order.choices
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        }


class Refused(Exception):
    """The request is not one this upstream answers."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def parse_order(body: bytes, models: tuple[str, ...]) -> Order:
    """Read a request body. Raises Refused."""
    try:
        request = json.loads(body)
    except ValueError:
        raise Refused(400, "invalid_json", "The body is not JSON.") from None
    if not isinstance(request, dict) or not isinstance(request.get("messages"), list):
        raise Refused(400, "invalid_request", "messages must be a list.")
    model = request.get("model")
    if not isinstance(model, str) or model not in models:
        raise Refused(404, "model_not_found", f"The model {model!r} does not exist.")
    limit = request.get("max_completion_tokens", request.get("max_tokens"))
    choices = request.get("n") or 1
    if limit is not None and not (type(limit) is int and limit >= 1):
        raise Refused(400, "invalid_request", "The output limit must be a positive integer.")
    if not (type(choices) is int and 1 <= choices <= CHOICES_MAX):
        raise Refused(400, "invalid_request", f"n must be between 1 and {CHOICES_MAX}.")
    options = request.get("stream_options") or {}
    return Order(
        id=hashlib.sha256(body).hexdigest()[:24],
        model=model,
        prompt_tokens=sum(count_words(message) for message in request["messages"]),
        words_max=limit,
        choices=choices,
        is_stream=request.get("stream") is True,
        wants_usage=isinstance(options, dict) and options.get("include_usage") is True,
    )


def count_words(message: object) -> int:
    """The words of one message, whose content is text or a list of parts."""
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, str):
        return len(content.split())
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, dict)]
        return sum(len(text.split()) for text in texts if isinstance(text, str))
    return 0


def answer_to(order: Order, words: int) -> Answer:
    """As many as `words` words, fewer when the order's limit is lower."""
    count = words if order.words_max is None else min(words, order.words_max)
    return Answer(
        order=order,
        words=[WORDS[position % len(WORDS)] for position in range(count)],
        finish_reason="stop" if count == words else "length",
    )


def whole(answer: Answer) -> dict[str, object]:
    """The body of a non-streamed answer."""
    order, text = answer.order, " ".join(answer.words)
    return {
        "id": f"chatcmpl-{order.id}",
        "object": "chat.completion",
        "created": CREATED,
        "model": order.model,
        "choices": [
            {
                "index": index,
                "message": {"role": "assistant", "content": text},
                "finish_reason": answer.finish_reason,
            }
            for index in range(order.choices)
        ],
        "usage": answer.usage,
    }


def chunks(answer: Answer) -> Iterator[dict[str, object]]:
    """The events of a streamed answer: the role, each word, the reason it ends, the usage."""

    def chunk(index: int, delta: dict[str, str], finish: str | None = None) -> dict[str, object]:
        return head | {"choices": [{"index": index, "delta": delta, "finish_reason": finish}]}

    order = answer.order
    head: dict[str, object] = {
        "id": f"chatcmpl-{order.id}",
        "object": "chat.completion.chunk",
        "created": CREATED,
        "model": order.model,
    }
    for index in range(order.choices):
        yield chunk(index, {"role": "assistant", "content": ""})
        for position, word in enumerate(answer.words):
            yield chunk(index, {"content": f" {word}" if position else word})
        yield chunk(index, {}, answer.finish_reason)
    if order.wants_usage:
        yield head | {"choices": [], "usage": answer.usage}


def event(data: str) -> bytes:
    """One server-sent event."""
    return f"data: {data}\n\n".encode()


async def chat_completions(request: web.Request) -> web.StreamResponse:
    """POST /v1/chat/completions, whole or streamed."""
    state = request.app[STATE]
    state.requests += 1
    order = parse_order(await request.read(), state.models)
    answer = answer_to(order, state.answer_words)
    await asyncio.sleep(state.answer_delay_s)
    if not order.is_stream:
        return web.json_response(whole(answer))
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    is_whole = False
    try:
        for chunk in chunks(answer):
            await response.write(event(json.dumps(chunk, separators=(",", ":"))))
            await asyncio.sleep(state.chunk_delay_s)
        await response.write(event("[DONE]"))
        await response.write_eof()
        is_whole = True
    finally:
        if is_whole:
            state.streams_whole += 1
        else:
            state.streams_cut += 1
    return response


async def list_models(request: web.Request) -> web.Response:
    """GET /v1/models."""
    data = [
        {"id": model, "object": "model", "created": CREATED, "owned_by": "demo"}
        for model in request.app[STATE].models
    ]
    return web.json_response({"object": "list", "data": data})


async def stats(request: web.Request) -> web.Response:
    """GET /stats: what was asked of this upstream so far."""
    state = request.app[STATE]
    return web.json_response(
        {
            "requests": state.requests,
            "streams_whole": state.streams_whole,
            "streams_cut": state.streams_cut,
        }
    )


@web.middleware
async def refusals(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Check the key and answer a Refused as OpenAI does."""
    try:
        wanted = request.app[STATE].api_key
        given = request.headers.get("authorization")
        if wanted is not None and request.path != "/stats" and given != f"Bearer {wanted}":
            raise Refused(401, "invalid_api_key", "Incorrect API key provided.")
        return await handler(request)
    except Refused as refusal:
        error = {
            "message": str(refusal),
            "type": "invalid_request_error",
            "param": None,
            "code": refusal.code,
        }
        return web.json_response({"error": error}, status=refusal.status)


def models_on_file() -> tuple[str, ...]:
    """The model ids of models.json."""
    return tuple(model["id"] for model in json.loads(MODELS_FILE.read_text())["models"])


def make_app(state: Upstream) -> web.Application:
    """The upstream as an application. Run it with `handler_cancellation`, or a client that leaves
    is only noticed at the next word."""
    app = web.Application(middlewares=[refusals], client_max_size=BODY_BYTES_MAX)
    app[STATE] = state
    app.router.add_get("/v1/models", list_models)
    app.router.add_post("/v1/chat/completions", chat_completions)
    app.router.add_get("/stats", stats)
    return app


def main() -> None:
    """Serve on 127.0.0.1 until interrupted."""
    parser = argparse.ArgumentParser(prog="demo.upstream")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--api-key", help="refuse every other key")
    parser.add_argument("--answer-words", type=int, default=ANSWER_WORDS)
    parser.add_argument("--answer-delay-ms", type=int, default=0, help="before the first byte")
    parser.add_argument("--chunk-delay-ms", type=int, default=10, help="after each streamed word")
    arguments = parser.parse_args()
    state = Upstream(
        models=models_on_file(),
        api_key=arguments.api_key,
        answer_words=arguments.answer_words,
        answer_delay_s=arguments.answer_delay_ms / 1000,
        chunk_delay_s=arguments.chunk_delay_ms / 1000,
    )
    web.run_app(
        make_app(state),
        host="127.0.0.1",
        port=arguments.port,
        print=None,
        handler_cancellation=True,
    )


if __name__ == "__main__":
    main()
