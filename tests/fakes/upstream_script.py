"""What a fake upstream is told to answer: one frozen `Script` per call."""

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

MODEL: Final = "fake-model"
CREATED: Final = 1_700_000_000


class Fault(StrEnum):
    """What goes wrong with the connection, and when (`Script.after` counts content events)."""

    NONE = "none"
    RESET_BEFORE_HEADERS = "reset_before_headers"  # RST once the request was read
    CLOSE_BEFORE_HEADERS = "close_before_headers"  # FIN once the request was read
    SILENCE = "silence"  # the request is read, nothing is ever answered
    HALF_HEADERS = "half_headers"  # a status line and half a header, then silence
    NOT_HTTP = "not_http"  # bytes that are no HTTP answer
    CUT = "cut"  # FIN in the middle of the body, after `after` events (JSON: half the body)
    RESET = "reset"  # as CUT, by RST
    STALL = "stall"  # silence after `after` events (JSON: half the body)
    BAD_CHUNKING = "bad_chunking"  # an impossible HTTP chunk size after `after` events
    BAD_EVENT = "bad_event"  # one event whose JSON is broken after `after` events; goes on
    ERROR_EVENT = "error_event"  # an error object after `after` events, then a clean end


class Gate:
    """Counts permissions: `passage()` waits for one, `open(n)` gives n, `open_for_ever()` all."""

    def __init__(self) -> None:
        self._permits = asyncio.Semaphore(0)
        self._is_open = False

    def open(self, times: int = 1) -> None:
        for _ in range(times):
            self._permits.release()

    def open_for_ever(self) -> None:
        self._is_open = True
        self._permits.release()

    async def passage(self) -> None:
        await self._permits.acquire()
        if self._is_open:
            self._permits.release()


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """One answer. The request's `stream: true` picks SSE, anything else JSON.

    `usage`: "default" gives {prompt_tokens, completion_tokens, total_tokens}; None leaves it out;
    any other value (a dict with negatives, strings, bools …) is sent as it is. In a stream, usage
    comes in a last chunk with `choices: []` if the request asks `stream_options.include_usage`,
    or in every chunk with `usage_in_every_chunk`.
    `body` / `events` replace the whole JSON body / all SSE payloads by raw bytes, for dialects
    this fake does not speak (`events` are whole events, `\\n\\n` included).
    `headers_gate` holds the answer's head back, `gate` each event (JSON: the body), `fault_gate` a
    fault in the body: open it once the client has read what came before, where that matters (a
    reset, or bad chunking, that arrives together with the head takes the head with it).
    """

    status: int = 200
    text: str = "one two three"
    chunks: int = 3
    prompt_tokens: int = 10
    completion_tokens: int = 5
    usage: object = "default"
    usage_in_every_chunk: bool = False
    done: bool = True
    finish_reason: str | None = "stop"
    fault: Fault = Fault.NONE
    after: int = 1
    headers_gate: Gate | None = None
    gate: Gate | None = None
    fault_gate: Gate | None = None
    slice_bytes: int | None = None
    gzip: bool = False
    content_length_extra: int | None = None  # JSON: promise so many bytes more, then close
    until_close: bool = False  # no length and no chunking: the body ends with the connection
    retry_after: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    events: Sequence[bytes] | None = None

    def usage_value(self) -> object:
        if self.usage != "default":
            return self.usage
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }


EMPTY: Final = Script(text="", chunks=0, completion_tokens=0)
INSANE_USAGES: Final[Sequence[object]] = (
    {"prompt_tokens": -1, "completion_tokens": 5},
    {"prompt_tokens": 10, "completion_tokens": 10**15},
    {"prompt_tokens": "10", "completion_tokens": "5"},
    {"prompt_tokens": True, "completion_tokens": True},
    {"prompt_tokens": 1.5, "completion_tokens": 5},
    {"prompt_tokens": None, "completion_tokens": None},
    "many",
    [],
)


def failure(status: int, *, message: str = "scripted failure", **more: object) -> Script:
    """An OpenAI error envelope; `type`, `param`, `code` by keyword, `retry_after` for a 429."""
    retry_after = more.pop("retry_after", None)
    envelope = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    return Script(
        status=status,
        body=json.dumps({"error": {**envelope, **more}}).encode(),
        retry_after=None if retry_after is None else str(retry_after),
    )


def json_body(script: Script, path: str, request: Mapping[str, object]) -> bytes:
    """The JSON answer to one request, in the dialect of its path."""
    if script.body is not None:
        return script.body
    answer: dict[str, object] = {"id": "fake-1", "created": CREATED, "model": request.get("model")}
    if path.endswith("/embeddings"):
        answer["object"] = "list"
        answer["data"] = [{"object": "embedding", "index": 0, "embedding": [0.1, 0.2]}]
    elif path.endswith("/chat/completions"):
        answer["object"] = "chat.completion"
        message = {"role": "assistant", "content": script.text}
        answer["choices"] = [
            {"index": 0, "message": message, "finish_reason": script.finish_reason}
        ]
    else:
        answer["object"] = "text_completion"
        answer["choices"] = [
            {"index": 0, "text": script.text, "finish_reason": script.finish_reason}
        ]
    if script.usage is not None:
        answer["usage"] = script.usage_value()
    return json.dumps(answer).encode()


def content_events(script: Script, request: Mapping[str, object]) -> list[bytes]:
    """The events that carry output; `Script.after` counts these."""
    if script.events is not None:
        return list(script.events)
    return [
        _event(script, request, [{"index": 0, "delta": {"content": piece}, "finish_reason": None}])
        for piece in _pieces(script)
    ]


def closing_events(script: Script, request: Mapping[str, object]) -> Iterator[bytes]:
    """The finish reason, the usage if asked for, and `[DONE]`, as the script wants them."""
    if script.events is not None:
        return
    if script.finish_reason is not None:
        choice = {"index": 0, "delta": {}, "finish_reason": script.finish_reason}
        yield _event(script, request, [choice])
    options = request.get("stream_options")
    asked = isinstance(options, Mapping) and options.get("include_usage") is True
    if asked and script.usage is not None and not script.usage_in_every_chunk:
        yield _event(script, request, [], usage=script.usage_value())
    if script.done:
        yield b"data: [DONE]\n\n"


def error_event() -> bytes:
    """An error object in the middle of a stream."""
    return b'data: {"error":{"message":"scripted","type":"server_error","code":null}}\n\n'


def bad_event() -> bytes:
    """An event whose JSON stops in the middle."""
    return b'data: {"id":"fake-1","choices":[{"ind\n\n'


def _pieces(script: Script) -> list[str]:
    """The text in `chunks` parts that join to it again."""
    if not script.chunks:
        return []
    step = max(1, -(-len(script.text) // script.chunks))
    return [script.text[i * step : (i + 1) * step] for i in range(script.chunks)]


def _event(
    script: Script,
    request: Mapping[str, object],
    choices: list[dict[str, object]],
    *,
    usage: object = None,
) -> bytes:
    chunk: dict[str, object] = {
        "id": "fake-1",
        "object": "chat.completion.chunk",
        "created": CREATED,
        "model": request.get("model"),
        "choices": choices,
    }
    if script.usage_in_every_chunk:
        chunk["usage"] = script.usage_value()
    elif usage is not None:
        chunk["usage"] = usage
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"
