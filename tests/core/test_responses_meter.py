import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routstr.core.dialects.responses_answer import meter_response
from routstr.core.dialects.responses_stream import ResponsesStreamMeter, error_event
from routstr.core.outcome import Tally
from routstr.core.pricing import Usage
from routstr.core.sse import EventTooLarge, data_of

RECORDINGS = {
    path.stem: path.read_bytes()
    for path in sorted((Path(__file__).parent.parent / "recordings/responses").glob("*.sse"))
}
FAILED = {"error_midway", "failed_midway"}
COST = b'"cost":{"total_msats":7}'
COMMENT = b": routstr {}\n\n"
USED = Usage(input_tokens=1, output_tokens=2)
USAGE = (
    b'{"input_tokens":1,"input_tokens_details":{"cached_tokens":0},"output_tokens":2,'
    b'"output_tokens_details":{"reasoning_tokens":0},"total_tokens":3}'
)


def meter(*, cap: int = 1_000, event_bytes_max: int = 4_096) -> ResponsesStreamMeter:
    return ResponsesStreamMeter(usage_cap=cap, event_bytes_max=event_bytes_max)


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


def text(content: str, **members: object) -> bytes:
    return event("response.output_text.delta", delta=content, **members)


def end(kind: str = "completed", **response: object) -> bytes:
    return event(f"response.{kind}", response=response)


def events(data: bytes) -> list[dict[str, object]]:
    found = [data_of(each + b"\n\n") for each in data.split(b"\n\n")]
    return [json.loads(each) for each in found if each]


# ── recordings ────────────────────────────────────────────────────────────────────────────────

TALLIES = {
    "error_midway": Tally(error_seen=True, output_text_bytes=4),
    "failed_midway": Tally(error_seen=True, output_text_bytes=4),
    "incomplete_crlf": Tally(usage=Usage(input_tokens=7, output_tokens=3), output_text_bytes=5),
    "no_usage": Tally(malformed_events=1, output_text_bytes=13),
    "plain": Tally(
        usage=Usage(input_tokens=37, output_tokens=11, cache_read_tokens=32), output_text_bytes=28
    ),
    "reasoning_tools": Tally(
        usage=Usage(input_tokens=92, output_tokens=87, reasoning_tokens=64), output_text_bytes=50
    ),
}


@pytest.mark.parametrize("name", RECORDINGS)
def test_a_recording_is_metered(name: str) -> None:
    out, _, tally = run(RECORDINGS[name], [])
    assert tally == replace(
        TALLIES[name],
        finish_seen=name not in FAILED,
        done_seen=name not in FAILED,
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


@given(st.sampled_from(sorted(RECORDINGS)), st.lists(st.integers(0, 5_000)))
def test_no_several_cuts_change_bytes_or_tally(name: str, cuts: list[int]) -> None:
    data = RECORDINGS[name]
    assert run(data, [cut for cut in cuts if cut < len(data)]) == run(data, [])


@pytest.mark.parametrize("name", sorted(RECORDINGS.keys() - FAILED))
def test_only_the_cost_and_the_comment_are_added(name: str) -> None:
    """Taking out what we put in gives back the upstream's bytes."""
    out, last, tally = run(RECORDINGS[name], [])
    sent = out + last
    assert sent.count(COMMENT) == sent.count(COST) == 1
    assert last.startswith(COMMENT)
    without = sent.replace(COMMENT, b"").replace(b"," + COST, b"")
    if tally.usage is None:  # ours stands in
        assert without.count(USAGE) == 1
        without = without.replace(USAGE, b"null")
    assert without == RECORDINGS[name].removesuffix(b"data: [DONE]\r\n\r\n")
    [terminal] = events(last.replace(b"\r\n", b"\n"))
    response = terminal["response"]
    assert isinstance(response, dict)
    assert response["usage"]["cost"] == {"total_msats": 7}


@pytest.mark.parametrize("name", sorted(FAILED))
def test_the_upstreams_error_is_kept_for_the_node_to_tell(name: str) -> None:
    metered = meter()
    out = metered.feed(RECORDINGS[name] + text("more"))
    assert metered.is_over
    assert isinstance(metered.error, dict)
    assert metered.error["code"] in ("server_error", "rate_limit_exceeded")
    assert metered.error["message"].encode() not in out
    error = {"code": "cut", "message": "It broke off."}
    last = metered.error_end(error, COMMENT, cost=COST, usage=USED)
    assert last.startswith(COMMENT + b"event: response.failed\n")
    [failed] = events(last)
    assert (failed["type"], failed["sequence_number"]) == ("response.failed", 2)
    first = events(RECORDINGS[name])[0]["response"]
    assert isinstance(first, dict)
    usage = {**json.loads(USAGE), "cost": {"total_msats": 7}}
    assert failed["response"] == {**first, "status": "failed", "error": error, "usage": usage}


# ── what is counted, held and passed ──────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("said", "text_bytes"),
    [
        (text("ab") + text("c") + event("response.output_text.done", text="abc"), 3),
        (event("response.output_text.done", text="abc"), 3),
        (text("ab") + event("response.refusal.delta", delta="é"), 4),
        (event("response.custom_tool_call_input.delta", delta="ab"), 2),
        (event("response.something_new.delta", delta="ab"), 2),
        (event("response.audio.delta", delta="AAAA"), 0),
        (event("response.output_item.added", item={"type": "function_call", "name": "abc"}), 3),
        (event("response.output_item.done", item={"type": "image_generation_call"}), 0),
        (
            event("response.reasoning_text.delta", delta="abcd")
            + event("response.reasoning_summary_text.delta", delta="ab")
            + text("x"),
            5,
        ),
        (end(output=[{"type": "message", "content": [{"text": "abc"}]}]), 3),
        (text("abcd") + end(output=[{"type": "message", "content": [{"text": "abc"}]}]), 4),
    ],
)
def test_output_is_counted_once(said: bytes, text_bytes: int) -> None:
    metered = meter()
    metered.feed(said)
    assert metered.tally.output_seen
    assert metered.tally.output_text_bytes == text_bytes
    assert metered.output_tokens_estimate == -(-text_bytes // 4)


@pytest.mark.parametrize(
    "said",
    [
        text(""),
        event("response.output_item.added", item={"type": "message", "content": []}),
        event("response.output_item.added", item={"type": "reasoning", "summary": []}),
        event("response.output_text.annotation.added", annotation={}),
        event("keepalive"),
        b": x\n\n",
        end(output=[], status="completed"),
    ],
)
def test_what_is_no_output(said: bytes) -> None:
    metered = meter()
    metered.feed(said)
    assert not metered.tally.output_seen


def test_only_the_terminal_event_is_held_and_nothing_passes_after_it() -> None:
    metered = meter()
    bad = b"data: {oops\n\n"
    last = end("incomplete", usage=None)
    assert metered.feed(text("a") + bad + last + text("b")) == text("a") + bad
    assert metered.feed(text("c")) == metered.close() == b""
    assert metered.finish(None, COMMENT) == COMMENT + last


@pytest.mark.parametrize(
    "said",
    [
        b"data: [DONE]\n\n",
        event("response.completed"),
        end("completed", error={"code": "x"}),
        end("completed", status="failed"),
        event("response.cancelled"),
        b'data: {"error":{"message":"x"}}\n\n',
    ],
)
def test_an_end_without_an_answer_is_none(said: bytes) -> None:
    metered = meter()
    assert metered.feed(text("a") + said) == text("a")
    assert metered.is_over
    assert not metered.tally.done_seen
    assert not metered.finish_seen


def test_a_failure_may_tell_its_usage() -> None:
    metered = meter()
    use = {"input_tokens": 1, "output_tokens": 2}
    metered.feed(text("a") + end("failed", error={"code": "x"}, usage=use))
    assert metered.tally.usage == USED
    assert metered.error == {"code": "x"}


@pytest.mark.parametrize("usage", [{"input_tokens": -1, "output_tokens": 2}, "many"])
def test_an_insane_usage_stays_as_it_is_if_it_can_hold_a_cost(usage: object) -> None:
    metered = meter()
    metered.feed(end(usage=usage))
    assert metered.tally.usage_insane
    [terminal] = events(metered.finish(COST, b"", usage=USED))
    shown = usage if isinstance(usage, dict) else json.loads(USAGE)
    assert terminal["response"] == {"usage": {**shown, "cost": {"total_msats": 7}}}


def test_an_oversized_event_cuts_the_stream() -> None:
    metered = meter(event_bytes_max=300)
    with pytest.raises(EventTooLarge) as error:
        metered.feed(text("a") + b"data: " + b"x" * 300)
    assert error.value.ready == text("a")
    assert metered.is_over


@pytest.mark.parametrize("cut", [0, 1, 2, 3])
def test_the_last_event_may_lack_its_empty_line(cut: int) -> None:
    metered = meter()
    last = end(usage=None)
    metered.feed(last[: len(last) - cut])
    assert metered.close() == b""
    assert metered.tally.done_seen is (cut < 3)


# ── ends that the node makes ──────────────────────────────────────────────────────────────────


def test_a_clean_end_is_an_incomplete_response() -> None:
    metered = meter()
    told = {"id": "r", "status": "in_progress", "tools": [1.5], "usage": None}
    metered.feed(event("response.created", response=told, sequence_number=0))
    metered.feed(text("a", sequence_number=7))
    last = metered.clean_end(USED, COST, COMMENT)
    assert last.startswith(COMMENT)
    assert events(last) == [
        {
            "type": "response.incomplete",
            "sequence_number": 8,
            "response": {
                "id": "r",
                "status": "incomplete",
                "tools": [1.5],
                "usage": {**json.loads(USAGE), "cost": {"total_msats": 7}},
                "incomplete_details": {"reason": "max_output_tokens"},
            },
        }
    ]


DEEP = b"[" * 400 + b"]" * 400


@pytest.mark.parametrize("first", [b"", b'data: {"type":[],"response":{"a":' + DEEP + b"}}\n\n"])
def test_an_end_without_a_response_that_can_be_told(first: bytes) -> None:
    metered = meter()
    assert metered.feed(first) == first
    [last] = events(metered.clean_end(USED, COST, b""))
    assert last["sequence_number"] == 0
    assert isinstance(last["response"], dict)
    assert last["response"]["status"] == "incomplete"
    error = {"code": "c", "message": "m"}
    [failed] = events(error_event(error))
    told = {"code": "c", "message": "m", "param": None, "error": error}
    assert failed == {"type": "error", "sequence_number": 0, **told}


# ── hostile ───────────────────────────────────────────────────────────────────────────────────

KINDS = st.sampled_from(
    [
        *("response.created", "response.completed", "response.failed", "response.incomplete"),
        *("response.output_text.delta", "response.output_text.done", "response.reasoning.delta"),
        *("response.output_item.added", "function_call", "message", "reasoning", "error"),
    ]
)
NAMES = st.sampled_from(
    [
        *("type", "response", "delta", "text", "item", "output", "content", "summary", "name"),
        *("usage", "output_tokens", "input_tokens", "status", "sequence_number", "error"),
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
        meter_response(json.dumps(value).encode(), usage_cap=10)
    assert metered.output_tokens_estimate >= 0
    assert metered.tally.usage is None or not metered.tally.usage_insane
    if is_clean:
        assert COMMENT in metered.clean_end(USED, COST, COMMENT)
    else:
        assert COMMENT in metered.finish(COST, COMMENT, usage=USED)


# ── JSON answers ──────────────────────────────────────────────────────────────────────────────


def test_a_body_is_metered() -> None:
    body = {
        "object": "response",
        "status": "completed",
        "error": None,
        "output": [
            {"type": "reasoning", "summary": [{"text": "ab"}], "content": [{"text": "abc"}]},
            {"type": "message", "content": [{"type": "output_text", "text": "fé"}]},
            {"type": "function_call", "name": "f", "arguments": "{}"},
        ],
        "usage": {"input_tokens": 9, "output_tokens": 2},
    }
    assert meter_response(json.dumps(body).encode(), usage_cap=1_000) == Tally(
        usage=Usage(input_tokens=9, output_tokens=2),
        finish_seen=True,
        done_seen=True,
        output_seen=True,
        output_text_bytes=9,
    )


@pytest.mark.parametrize(
    ("body", "tally"),
    [
        (b"<html>", Tally(malformed_events=1)),
        (b"{}", Tally(done_seen=True)),
        (b'{"output":5,"status":[]}', Tally(done_seen=True)),
        (b'{"error":{"message":"x"}}', Tally(done_seen=True, error_seen=True)),
        (b'{"status":"failed"}', Tally(done_seen=True, error_seen=True)),
        (
            b'{"usage":{"input_tokens":11,"output_tokens":1}}',
            Tally(done_seen=True, usage_insane=True),
        ),
    ],
)
def test_odd_bodies(body: bytes, tally: Tally) -> None:
    assert meter_response(body, usage_cap=10) == tally
