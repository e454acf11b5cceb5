import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routstr.core.dialects.event_meter import event_of
from routstr.core.dialects.messages_answer import meter_message
from routstr.core.dialects.messages_stream import MESSAGE_STOP, MessagesStreamMeter
from routstr.core.outcome import Tally
from routstr.core.pricing import Usage
from routstr.core.sse import EventTooLarge, data_of

RECORDINGS = {
    path.stem: path.read_bytes()
    for path in sorted((Path(__file__).parent.parent / "recordings/messages").glob("*.sse"))
}
COST = b'"cost":{"total_msats":7}'
COMMENT = b": routstr {}\n\n"
USED = Usage(input_tokens=1, output_tokens=2)
USAGE = b'{"input_tokens":1,"output_tokens":2}'


def meter(*, cap: int = 10_000, event_bytes_max: int = 4_096) -> MessagesStreamMeter:
    return MessagesStreamMeter(usage_cap=cap, event_bytes_max=event_bytes_max)


def run(data: bytes, cuts: list[int]) -> tuple[bytes, bytes, Tally]:
    """What goes out while the stream runs, what at its end, and the tally between."""
    metered = meter()
    places = sorted({0, len(data), *cuts})
    out = b"".join(metered.feed(data[start:end]) for start, end in pairwise(places))
    out += metered.close()
    tally = metered.tally
    return out, metered.finish(COST, COMMENT, usage=USED), tally


def event(kind: str, **members: object) -> bytes:
    said = json.dumps({"type": kind, **members}).encode()
    return b"event: " + kind.encode() + b"\ndata: " + said + b"\n\n"


def text(content: str, index: int = 0) -> bytes:
    delta = {"type": "text_delta", "text": content}
    return event("content_block_delta", index=index, delta=delta)


def start(**usage: object) -> bytes:
    return event("message_start", message={"content": [], "usage": usage})


def last(reason: str | None = "end_turn", **usage: object) -> bytes:
    return event("message_delta", delta={"stop_reason": reason}, usage=usage)


def events(data: bytes) -> list[dict[str, object]]:
    found = [data_of(each + b"\n\n") for each in data.split(b"\n\n")]
    return [json.loads(each) for each in found if each]


def caught(tokens: int, output: int, *, read: int = 0, creation: int = 0) -> Usage:
    return Usage(
        input_tokens=tokens,
        output_tokens=output,
        cache_read_tokens=read,
        cache_creation_tokens=creation,
    )


# ── recordings ────────────────────────────────────────────────────────────────────────────────

TALLIES = {
    "crlf_vendor": Tally(usage=caught(9, 3, read=2), output_text_bytes=3),
    "error_midway": Tally(error_seen=True, output_text_bytes=4),
    "no_stop": Tally(malformed_events=1, output_text_bytes=5),
    "plain": Tally(usage=caught(4_108, 14, read=4_096), output_text_bytes=28),
    "thinking_tools": Tally(usage=caught(502, 89, creation=30), output_text_bytes=67),
}


@pytest.mark.parametrize("name", RECORDINGS)
def test_a_recording_is_metered(name: str) -> None:
    out, _, tally = run(RECORDINGS[name], [])
    assert tally == replace(
        TALLIES[name],
        finish_seen=name != "error_midway",
        done_seen=name not in ("error_midway", "no_stop"),
        output_seen=True,
        bytes_out=len(out),
    )


@pytest.mark.parametrize("name", RECORDINGS)
def test_no_chunking_changes_bytes_or_tally(name: str) -> None:
    data = RECORDINGS[name]
    whole = run(data, [])
    assert run(data, list(range(len(data)))) == whole
    for cut in range(1, len(data)):
        assert run(data, [cut]) == whole


@given(st.sampled_from(sorted(RECORDINGS)), st.lists(st.integers(0, 2_500)))
def test_no_several_cuts_change_bytes_or_tally(name: str, cuts: list[int]) -> None:
    data = RECORDINGS[name]
    assert run(data, [cut for cut in cuts if cut < len(data)]) == run(data, [])


@pytest.mark.parametrize("name", sorted(RECORDINGS.keys() - {"error_midway"}))
def test_only_the_cost_and_the_comment_are_added(name: str) -> None:
    """Taking out what we put in gives back the upstream's bytes."""
    out, end, tally = run(RECORDINGS[name], [])
    sent = out + end
    assert sent.count(COMMENT) == sent.count(COST) == 1
    without = sent.replace(COMMENT, b"").replace(b"," + COST, b"")
    if tally.usage is None:  # ours stands in
        without = without.replace(b',"usage":' + USAGE, b"")
    recorded = RECORDINGS[name].replace(b"data: [DONE]\n\n", MESSAGE_STOP)
    assert without == recorded
    stop = MESSAGE_STOP.replace(b"\n", b"\r\n") if name == "crlf_vendor" else MESSAGE_STOP
    assert sent.endswith(COMMENT + stop)
    held = [each for each in events(end.replace(b"\r\n", b"\n")) if each["type"] == "message_delta"]
    assert b'"cost"' not in out
    assert [each["usage"]["cost"] for each in held] == [{"total_msats": 7}]  # type: ignore[index]  # JSON


def test_the_upstreams_error_is_kept_for_the_node_to_tell() -> None:
    metered = meter()
    out = metered.feed(RECORDINGS["error_midway"] + text("more"))
    assert metered.is_over
    assert metered.error == {"type": "overloaded_error", "message": "Overloaded"}
    assert b"Overloaded" not in out
    end = metered.error_end({"message": "cut"}, COMMENT, cost=COST, usage=USED)
    assert end == COMMENT + event_of({"type": "error", "error": {"message": "cut"}})


# ── what is held, dropped and passed ──────────────────────────────────────────────────────────


def test_the_last_delta_is_held_until_output_follows() -> None:
    metered = meter()
    first, second = last("pause_turn", output_tokens=1), last(output_tokens=2)
    assert metered.feed(first) == b""
    assert metered.finish_seen
    assert metered.feed(text("a")) == first + text("a")
    assert metered.feed(first) == b""
    assert metered.feed(second) == first
    ping = event("ping")
    assert metered.feed(ping + b": x\n\n" + b"data: {oops\n\n") == b""
    stopped = second + ping + b": x\n\n" + b"data: {oops\n\n" + MESSAGE_STOP
    assert metered.finish(None, b"") == stopped
    assert metered.tally.malformed_events == 1


def test_an_endless_trail_is_not_held() -> None:
    metered = meter(event_bytes_max=200)
    sent = last(output_tokens=1) + event("ping") * 100
    assert len(sent) - 300 <= len(metered.feed(sent)) <= len(sent)


def test_nothing_passes_after_the_stop() -> None:
    metered = meter()
    stop = event("message_stop", extra=1)
    assert metered.feed(text("a") + stop + text("b")) == text("a")
    assert metered.feed(text("c")) == metered.close() == b""
    assert metered.tally.output_text_bytes == 1
    assert metered.finish(COST, COMMENT) == COMMENT + stop


def test_of_each_count_the_last_told_is_true() -> None:
    metered = meter()
    seen = []
    for data in (
        start(input_tokens=5, cache_read_input_tokens=3, output_tokens=9),
        last(None, output_tokens=None),
        last(None, output_tokens=2, cache_creation_input_tokens=1),
        last(output_tokens=4, input_tokens=6, cache_read_input_tokens=None),
        last(output_tokens=10_001),
        last(output_tokens="4"),
        event("message_delta", delta=None, usage="many"),
        last(output_tokens=4, input_tokens=-1),
        last(output_tokens=7, input_tokens=6),
    ):
        metered.feed(data)
        seen.append((metered.tally.usage, metered.tally.usage_insane))
    insane = (None, True)
    assert seen == [
        (None, False),  # the head's output is not the answer's
        (None, False),
        (caught(9, 2, read=3, creation=1), False),
        (caught(10, 4, read=3, creation=1), False),
        *[insane] * 4,
        (caught(10, 7, read=3, creation=1), False),
    ]


def test_an_insane_usage_stays_as_it_is() -> None:
    metered = meter()
    metered.feed(last(output_tokens=-1))
    delta, _ = events(metered.finish(COST, b"", usage=USED))
    assert delta["usage"] == {"output_tokens": -1, "cost": {"total_msats": 7}}


def test_the_running_estimate() -> None:
    metered = meter()
    metered.feed(text("abcde"))
    assert metered.output_tokens_estimate == 2
    metered.feed(last(input_tokens=1, output_tokens=90))
    assert metered.output_tokens_estimate == 90


def test_an_oversized_event_cuts_the_stream() -> None:
    metered = meter(event_bytes_max=300)
    with pytest.raises(EventTooLarge) as error:
        metered.feed(text("a") + b"data: " + b"x" * 300)
    assert error.value.ready == text("a")
    assert metered.is_over


@pytest.mark.parametrize("cut", [0, 1, 2, 3])
def test_the_last_event_may_lack_its_empty_line(cut: int) -> None:
    metered = meter()
    stop = event("message_stop")
    metered.feed(stop[: len(stop) - cut])
    assert metered.close() == b""
    assert metered.tally.done_seen is (cut < 3)


# ── ends that the node makes ──────────────────────────────────────────────────────────────────


def test_a_clean_end_closes_what_is_open() -> None:
    metered = meter()
    blocks = [event("content_block_start", index=index, content_block={}) for index in (0, 2, 1)]
    metered.feed(b"".join(blocks) + event("content_block_stop", index=0) + text("a", 2))
    end = metered.clean_end(USED, COST, COMMENT)
    assert end.endswith(COMMENT + MESSAGE_STOP)
    assert events(end) == [
        {"type": "content_block_stop", "index": 1},
        {"type": "content_block_stop", "index": 2},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "max_tokens", "stop_sequence": None},
            "usage": {**json.loads(USAGE), "cost": {"total_msats": 7}},
        },
        {"type": "message_stop"},
    ]
    assert metered.tally.bytes_out == len(b"".join(blocks)) + len(
        event("content_block_stop", index=0) + text("a", 2) + end
    )


def test_an_answer_that_has_stopped_keeps_its_reason() -> None:
    metered = meter()
    metered.feed(text("a") + last("tool_use", input_tokens=3, output_tokens=4))
    delta, stop = events(metered.clean_end(USED, COST, COMMENT))
    assert delta["delta"] == {"stop_reason": "tool_use"}
    assert stop["type"] == "message_stop"
    early = meter()
    early.feed(last(None, input_tokens=3, output_tokens=4))
    reasons = [each.get("delta") for each in events(early.clean_end(USED, COST, COMMENT))]
    assert reasons == [
        {"stop_reason": None},
        {"stop_reason": "max_tokens", "stop_sequence": None},
        None,
    ]


# ── hostile ───────────────────────────────────────────────────────────────────────────────────

KINDS = st.sampled_from(
    [
        *("message_start", "content_block_start", "content_block_delta", "content_block_stop"),
        *("message_delta", "message_stop", "ping", "error", "text_delta", "tool_use", "text"),
    ]
)
NAMES = st.sampled_from(
    [
        *("type", "index", "message", "delta", "content_block", "usage", "text", "thinking"),
        *("input", "stop_reason", "output_tokens", "input_tokens", "content", "error", "name"),
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | KINDS | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=6),
    max_leaves=25,
)


@given(st.lists(JSON, max_size=6), st.booleans())
def test_nothing_an_upstream_says_raises(values: list[object], is_clean: bool) -> None:
    metered = meter()
    for value in values:
        metered.feed(b"data: " + json.dumps(value).encode() + b"\n\n")
        meter_message(json.dumps(value).encode(), usage_cap=10)
    assert metered.output_tokens_estimate >= 0
    tally = metered.tally
    assert tally.usage is None or not tally.usage_insane
    end = (
        metered.clean_end
        if is_clean
        else lambda usage, cost, comment: metered.finish(cost, comment, usage=usage)
    )
    assert COMMENT in end(USED, COST, COMMENT)


@pytest.mark.parametrize("kind", [[], {}, 5, None])
def test_a_type_can_be_anything(kind: object) -> None:
    metered = meter()
    block = {"type": kind, "text": "a"}
    said = [{"type": kind}, {"type": "content_block_start", "content_block": block}]
    for value in said:
        metered.feed(b"data: " + json.dumps(value).encode() + b"\n\n")
    assert metered.tally.output_text_bytes == 1
    body = json.dumps({"type": kind, "content": [block]}).encode()
    assert meter_message(body, usage_cap=10).output_text_bytes == 1


def test_what_is_nested_deeper_than_it_can_be_written() -> None:
    deep = b'{"type":"tool_use","name":"f","input":{"a":' + b"[" * 500 + b"]" * 500 + b"}}"
    metered = meter()
    metered.feed(b'data: {"type":"content_block_start","content_block":' + deep + b"}\n\n")
    assert metered.tally.output_text_bytes == 1


# ── JSON answers ──────────────────────────────────────────────────────────────────────────────


def test_a_body_is_metered() -> None:
    body = {
        "type": "message",
        "content": [
            {"type": "thinking", "thinking": "ab", "signature": "xyz"},
            {"type": "text", "text": "fé", "citations": None},
            {"type": "tool_use", "name": "f", "input": {"a": 1}},
        ],
        "stop_reason": "tool_use",
        "usage": {"input_tokens": 9, "output_tokens": 2, "cache_creation_input_tokens": 1},
    }
    assert meter_message(json.dumps(body).encode(), usage_cap=1_000) == Tally(
        usage=caught(10, 2, creation=1),
        finish_seen=True,
        done_seen=True,
        output_seen=True,
        output_text_bytes=13,
    )


@pytest.mark.parametrize(
    ("body", "tally"),
    [
        (b"<html>", Tally(malformed_events=1)),
        (b"[]", Tally(malformed_events=1)),
        (b"{}", Tally(done_seen=True)),
        (b'{"content":5}', Tally(done_seen=True)),
        (b'{"type":"error","error":{"message":"x"}}', Tally(done_seen=True, error_seen=True)),
        (
            b'{"usage":{"input_tokens":11,"output_tokens":1}}',
            Tally(done_seen=True, usage_insane=True),
        ),
    ],
)
def test_odd_bodies(body: bytes, tally: Tally) -> None:
    assert meter_message(body, usage_cap=10) == tally
