"""A chunk that is counted without being read counts as if it had been."""

import json
from collections.abc import Callable, Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routstr.core.dialects.chat_answer import Piece
from routstr.core.dialects.chat_stream import ChatStreamMeter
from routstr.core.dialects.completions import CompletionsStreamMeter
from routstr.core.dialects.event_meter import EventMeter

HOSTILE = [
    "",
    "refusal",
    "a",
    "bc",
    "ü",
    "🎉",
    '"',
    "\\",
    "\\u0061",
    "\n",
    '","finish_reason":"stop',
    "]}}",
    "x" * 99,
    "y" * 400,
    "duration",
]
WORDS = st.sampled_from(HOSTILE)


class Reader(ChatStreamMeter):
    """A meter that reads every event."""

    _take = EventMeter._take


class BareReader(CompletionsStreamMeter):
    _take = EventMeter._take


def meters(*, part: str = "delta", asked: bool = True) -> tuple[ChatStreamMeter, ChatStreamMeter]:
    kinds = (ChatStreamMeter, Reader) if part == "delta" else (CompletionsStreamMeter, BareReader)
    quick, slow = (
        kind(usage_asked=asked, usage_cap=1_000, event_bytes_max=4_096) for kind in kinds
    )
    return quick, slow


def told(meter: ChatStreamMeter) -> tuple[object, ...]:
    return (
        meter.tally,
        meter.is_over,
        meter.is_complete,
        meter.output_tokens_estimate,
        meter.error,
    )


def assert_alike(events: Sequence[bytes], *, part: str = "delta", asked: bool = True) -> None:
    quick, slow = meters(part=part, asked=asked)
    for event in events:
        assert quick.feed(event) == slow.feed(event)
        assert told(quick) == told(slow)
    assert quick.close() == slow.close()
    assert quick.finish(b'"cost":1', b": c\n\n") == slow.finish(b'"cost":1', b": c\n\n")


def event(delta: object, *, ascii_only: bool = True, **members: object) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": None}
    value = {"id": "c", "choices": [choice], **members}
    said = json.dumps(value, separators=(",", ":"), ensure_ascii=ascii_only)
    return b"data: " + said.encode() + b"\n\n"


def raw(data: bytes) -> bytes:
    return b"data: " + data.replace(b"\n", b"") + b"\n\n"


# What vendors' chunks have in them; each takes two words.
MAKES: Mapping[str, Callable[[str, str], bytes]] = {
    "content": lambda one, _: event({"content": one}),
    "as it is": lambda one, _: event({"content": one}, ascii_only=False),
    "obfuscated": lambda one, two: event({"content": one}, obfuscation=two),
    "numbered": lambda one, two: event({"content": one}, id=two),
    "thought twice": lambda one, two: event({"reasoning": one, "reasoning_content": two}),
    "thought and said": lambda one, two: event({"reasoning": one, "content": two}),
    "thought in detail": lambda one, _: event(
        {"reasoning": one, "reasoning_details": [{"type": "t", "text": one}]}
    ),
    "thought at length": lambda one, _: event({"reasoning": "a" * 300, "reasoning_content": one}),
    "called": lambda one, two: event(
        {"tool_calls": [{"index": 0, "id": two, "function": {"arguments": one}}]}
    ),
    "role": lambda one, two: event({"role": two, "content": one}),
    "sound": lambda one, two: event({"audio": {"data": one, "transcript": two}}),
    "usage": lambda one, _: event({"content": one}, usage={"prompt_tokens": 1}),
    "timed": lambda one, two: event({"content": one}, usage={"type": two, "seconds": 5}),
    "used": lambda one, two: event({"content": one}, usage=two),
    "failed": lambda one, two: event({"content": one}, error=two),
    "two choices": lambda one, two: event(
        {"content": one}, choices=[{"delta": {"content": one}}, {"delta": {"content": two}}]
    ),
    "index": lambda one, two: event({}, choices=[{"index": two, "delta": {"content": one}}]),
    "ended": lambda one, two: event(
        {}, choices=[{"delta": {"content": one}, "finish_reason": two}]
    ),
    "twice": lambda one, two: event({"content": one}).replace(
        b'"content":', b'"content":' + json.dumps(two).encode() + b',"content":'
    ),
    "spread": lambda one, _: raw(b'{"choices": [{"delta": {"content": "%b"}}]}' % one.encode()),
    "broken": lambda one, _: raw(b'{"choices":[{"delta":{"content":"\xff%b"}}]}' % one.encode()),
    "named": lambda one, two: event({"content": "a", two: f"{one} and more"}),
    "no data": lambda one, _: b": " + one.replace("\n", "").encode() + b"\n\n",
    "id": lambda one, _: b"id: 1\n" + event({"content": one}),
}  # fmt: skip


@pytest.mark.parametrize("name", MAKES)
def test_whatever_stands_in_a_chunk(name: str) -> None:
    make = MAKES[name]
    for first in ("a", "bc", "\\"):
        assert_alike([make(first, "b"), make("bcd", "ef")] + [make(one, "g") for one in HOSTILE])
        assert_alike([make("a", first), make("bc", "b")] + [make("d", two) for two in HOSTILE])


@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(MAKES)), WORDS, WORDS, st.integers(1, 4)), max_size=8
    ),
    st.booleans(),
)
def test_whatever_the_stream(said: list[tuple[str, str, str, int]], asked: bool) -> None:
    events = [MAKES[name](f"{one}{n}", two) for name, one, two, times in said for n in range(times)]
    assert_alike(events, asked=asked)


@given(st.lists(st.text(), min_size=1, max_size=12), st.booleans())
def test_whatever_the_text(texts: list[str], ascii_only: bool) -> None:
    for part in ("delta", "text"):
        bare = [{"choices": [{"text": text, "index": 0}]} for text in texts]
        chat = [event({"content": text}, ascii_only=ascii_only) for text in texts]
        made = [b"data: " + json.dumps(each).encode() + b"\n\n" for each in bare]
        assert_alike(chat if part == "delta" else made, part=part)


@pytest.mark.parametrize("name", ["content", "as it is", "obfuscated", "numbered", "called"])
def test_hardly_any_chunk_is_read(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[bytes] = []

    class Counting(ChatStreamMeter):
        def _read(self, event: bytes, data: bytes, value: dict[str, object]) -> bytes:
            read.append(event)
            return super()._read(event, data, value)

    meter = Counting(usage_asked=True, usage_cap=1_000, event_bytes_max=4_096)
    for n in range(100):
        meter.feed(MAKES[name](f"w{n}ü" if name == "as it is" else f"w{n}", f"{n:03d}"))
    assert len(read) == 2


def test_chunks_that_are_never_alike_are_not_learned_for_ever() -> None:
    quick, slow = meters()
    looked: list[bytes] = []
    inner = quick._alike._read

    def looking(data: bytes) -> Piece | None:
        looked.append(data)
        return inner(data)

    quick._alike._read = looking
    for n in range(1_000):
        made = event({"content": "a" * n, "reasoning": "b" * (n + 1), "id": [n]})
        assert quick.feed(made) == slow.feed(made)
    assert len(looked) <= 16
