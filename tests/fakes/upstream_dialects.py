"""What a fake upstream says in other dialects than chat: whole answers and events, as `Script`s.

    shop.upstream.default = message_stream("one two three", chunks=3, usage=(10, 5))

By default each says what `Script()` says in chat: "one two three", 10 tokens in and 5 out.
"""

import json
from collections.abc import Sequence
from typing import Any, Final

from tests.fakes.upstream_script import Script

TEXT: Final = "one two three"
USAGE: Final = (10, 5)
Counts = tuple[int, int] | None


def event(kind: str, **members: object) -> bytes:
    """A typed event."""
    said = json.dumps({"type": kind, **members})
    return f"event: {kind}\ndata: {said}\n\n".encode()


def pieces(text: str, chunks: int) -> list[str]:
    """The text in `chunks` parts that join to it again."""
    step = max(1, -(-len(text) // chunks))
    return [text[at * step : (at + 1) * step] for at in range(chunks)]


# ── messages ──────────────────────────────────────────────────────────────────────────────────


def message_body(text: str = TEXT, usage: Counts = USAGE) -> Script:
    """A whole message."""
    said = _message(usage) | {"content": [{"type": "text", "text": text}]}
    return Script(body=json.dumps(said | {"stop_reason": "end_turn"}).encode())


def message_events(text: str = TEXT, chunks: int = 3, usage: Counts = USAGE) -> list[bytes]:
    """A message as events: a start, a block with `chunks` deltas, what ends it."""
    block = {"type": "text", "text": ""}
    deltas = [{"type": "text_delta", "text": piece} for piece in pieces(text, chunks)]
    stopped = {"stop_reason": "end_turn", "stop_sequence": None}
    told = {} if usage is None else {"usage": {"output_tokens": usage[1]}}
    return [
        event("message_start", message=_message(usage and (usage[0], 1)))
        + event("content_block_start", index=0, content_block=block),
        *(event("content_block_delta", index=0, delta=delta) for delta in deltas),
        event("content_block_stop", index=0) + event("message_delta", delta=stopped, **told),
        event("message_stop"),
    ]


def message_stream(*given: Any, **more: Any) -> Script:
    """A streamed message; what `message_events` takes, and the fields of a `Script`."""
    return _stream(message_events, given, more)


def _message(usage: Counts) -> dict[str, object]:
    told = {} if usage is None else {"input_tokens": usage[0], "output_tokens": usage[1]}
    return {
        "id": "msg_fake",
        "type": "message",
        "role": "assistant",
        "model": "fake-model",
        "content": [],
        "stop_reason": None,
        "usage": told or None,
    }


# ── responses ─────────────────────────────────────────────────────────────────────────────────


def response_body(text: str = TEXT, usage: Counts = USAGE) -> Script:
    """A whole response."""
    return Script(body=json.dumps(_response("completed", text, usage)).encode())


def response_events(text: str = TEXT, chunks: int = 3, usage: Counts = USAGE) -> list[bytes]:
    """A response as events: what is created, `chunks` deltas, the text again, what ends it."""
    said = pieces(text, chunks)
    return [
        event("response.created", sequence_number=0, response=_response("in_progress")),
        *(
            event("response.output_text.delta", sequence_number=number, delta=piece)
            for number, piece in enumerate(said, 1)
        ),
        event("response.output_text.done", sequence_number=len(said) + 1, text=text),
        event(
            "response.completed",
            sequence_number=len(said) + 2,
            response=_response("completed", text, usage),
        ),
    ]


def response_stream(*given: Any, **more: Any) -> Script:
    """A streamed response; what `response_events` takes, and the fields of a `Script`."""
    return _stream(response_events, given, more)


def _response(status: str, text: str | None = None, usage: Counts = None) -> dict[str, object]:
    part: dict[str, object] = {"type": "output_text", "text": text, "annotations": []}
    message = {"type": "message", "role": "assistant", "content": [part]}
    return {
        "id": "resp_fake",
        "object": "response",
        "status": status,
        "error": None,
        "incomplete_details": None,
        "model": "fake-model",
        "output": [] if text is None else [message],
        "usage": usage and {"input_tokens": usage[0], "output_tokens": usage[1]},
    }


def _stream(make: Any, given: Sequence[object], more: dict[str, Any]) -> Script:
    said = {name: more.pop(name) for name in ("text", "chunks", "usage") if name in more}
    return Script(events=make(*given, **said), **more)
