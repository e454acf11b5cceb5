import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routstr.core.dialects.chat import meter_body
from routstr.core.dialects.chat_stream import ChatStreamMeter
from routstr.core.outcome import Tally
from routstr.core.pricing import Usage
from routstr.core.sse import EventTooLarge, data_of

RECORDINGS = {
    path.stem: path.read_bytes()
    for path in sorted((Path(__file__).parent.parent / "recordings").glob("*.sse"))
}
COST = b'"cost":{"total_msats":7}'
COMMENT = b": routstr {}\n\n"
USED = Usage(input_tokens=1, output_tokens=2)
USAGE = b'{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}'


def meter(*, asked: bool = True, cap: int = 1_000, event_bytes_max: int = 4_096) -> ChatStreamMeter:
    return ChatStreamMeter(usage_asked=asked, usage_cap=cap, event_bytes_max=event_bytes_max)


def run(data: bytes, cuts: list[int], *, asked: bool) -> tuple[bytes, bytes, Tally]:
    """What goes out while the stream runs, what at its end, and the tally between."""
    metered = meter(asked=asked)
    places = sorted({0, len(data), *cuts})
    out = b"".join(metered.feed(data[start:end]) for start, end in pairwise(places))
    out += metered.close()
    tally = metered.tally
    return out, metered.finish(COST, COMMENT, usage=USED), tally


def chunks(data: bytes) -> list[dict[str, object]]:
    """The JSON objects of a stream."""
    events = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n\n")
    found = [data_of(event + b"\n\n") for event in events]
    return [json.loads(each) for each in found if each and each.endswith(b"}")]


def event(**members: object) -> bytes:
    return b"data: " + json.dumps(members).encode() + b"\n\n"


def text(content: str, finish: str | None = None, **members: object) -> bytes:
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": finish}
    return event(id="c", created=5, model="m", choices=[choice], **members)


def use(prompt: object, completion: object) -> dict[str, object]:
    return {"prompt_tokens": prompt, "completion_tokens": completion}


# ── recordings ────────────────────────────────────────────────────────────────────────────────

TALLIES = {
    "azure": Tally(usage=Usage(input_tokens=11, output_tokens=2), output_text_bytes=5),
    "cr_two_lines": Tally(usage=Usage(input_tokens=2, output_tokens=1), output_text_bytes=1),
    "crlf": Tally(usage=Usage(input_tokens=3, output_tokens=1), output_text_bytes=2),
    "error_midway": Tally(error_seen=True, done_seen=False, output_text_bytes=4),
    "malformed": Tally(malformed_events=1, output_text_bytes=10),
    "mistral": Tally(usage=Usage(input_tokens=5, output_tokens=3), output_text_bytes=10),
    "no_done": Tally(usage=Usage(input_tokens=4, output_tokens=1), output_text_bytes=3),
    "no_usage": Tally(output_text_bytes=23),
    "openai": Tally(
        usage=Usage(input_tokens=9, output_tokens=12, cache_read_tokens=4), output_text_bytes=28
    ),
    "openai_tools": Tally(usage=Usage(input_tokens=61, output_tokens=17), output_text_bytes=29),
    "openai_two_choices": Tally(usage=Usage(input_tokens=8, output_tokens=5), output_text_bytes=16),
    "openrouter": Tally(
        usage=Usage(input_tokens=7, output_tokens=31, reasoning_tokens=28), output_text_bytes=15
    ),
    "running_usage": Tally(usage=Usage(input_tokens=6, output_tokens=4), output_text_bytes=7),
    "vllm_short_end": Tally(usage=Usage(input_tokens=20, output_tokens=6), output_text_bytes=6),
}


@pytest.mark.parametrize("name", RECORDINGS)
@pytest.mark.parametrize("asked", [True, False])
def test_a_recording_is_metered(name: str, asked: bool) -> None:
    out, _, tally = run(RECORDINGS[name], [], asked=asked)
    expected = replace(
        TALLIES[name],
        finish_seen=True,
        output_seen=True,
        done_seen=name not in ("error_midway", "no_done"),
        bytes_out=len(out),
    )
    assert tally == expected


@pytest.mark.parametrize("name", RECORDINGS)
@pytest.mark.parametrize("asked", [True, False])
def test_no_chunking_changes_bytes_or_tally(name: str, asked: bool) -> None:
    data = RECORDINGS[name]
    whole = run(data, [], asked=asked)
    assert run(data, list(range(len(data))), asked=asked) == whole
    for cut in range(1, len(data)):
        assert run(data, [cut], asked=asked) == whole


@given(st.sampled_from(sorted(RECORDINGS)), st.lists(st.integers(0, 2_500)), st.booleans())
def test_no_several_cuts_change_bytes_or_tally(name: str, cuts: list[int], asked: bool) -> None:
    data = RECORDINGS[name]
    inside = [cut for cut in cuts if cut < len(data)]
    assert run(data, inside, asked=asked) == run(data, [], asked=asked)


@pytest.mark.parametrize("name", sorted(RECORDINGS.keys() - {"error_midway"}))
def test_asked_for_only_the_cost_is_added(name: str) -> None:
    """Taking out what we put in gives back the upstream's bytes."""
    out, end, tally = run(RECORDINGS[name], [], asked=True)
    sent = (out + end).replace(b"id:\n\n" + COMMENT, COMMENT)  # after events with an id
    assert sent.count(COMMENT) == 1
    assert sent.count(COST) == 1
    without = sent.replace(COMMENT, b"").replace(b"," + COST, b"")
    recorded = RECORDINGS[name]
    if tally.usage is None:  # ours stands in
        assert without.count(USAGE) == 1
        without = without.replace(b',"usage":' + USAGE, b"")
    if name == "openrouter":  # the vendor's own price is not the client's
        said = b',"cost":9.12e-05,"is_byok":false,"cost_details":{"upstream_inference_cost":null}'
        assert said in recorded
        recorded = recorded.replace(said, b',"is_byok":false')
    if name == "vllm_short_end":
        recorded += b"\n\n"
    if name == "no_done":
        recorded += b"data: [DONE]\n\n"
    assert without == recorded
    assert sent.rstrip().endswith(b"data: [DONE]")


@pytest.mark.parametrize("name", sorted(RECORDINGS.keys() - {"error_midway"}))
def test_not_asked_for_there_is_no_extra_chunk(name: str) -> None:
    out, end, tally = run(RECORDINGS[name], [], asked=False)
    sent = chunks(out + end)
    with_cost = [chunk for chunk in sent if "cost" in str(chunk.get("usage"))]
    assert len(with_cost) == 1
    assert with_cost == sent[-1:]
    choices = with_cost[0]["choices"]
    assert isinstance(choices, list)
    assert choices[0]["finish_reason"]
    usage = with_cost[0]["usage"]
    assert isinstance(usage, dict)
    tokens = (usage["prompt_tokens"], usage["completion_tokens"])
    known = tally.usage or Usage(input_tokens=1, output_tokens=2)
    assert tokens == (known.input_tokens, known.output_tokens)
    assert all(chunk["choices"] for chunk in sent if "prompt_filter_results" not in chunk)


def test_the_upstreams_error_is_kept_for_the_node_to_tell() -> None:
    metered = meter()
    out = metered.feed(RECORDINGS["error_midway"] + text("more"))
    assert out == RECORDINGS["error_midway"].split(b"\n\n")[0] + b"\n\n"
    assert metered.is_over
    assert metered.error == {"code": 502, "message": "Provider disconnected"}
    error = b'data: {"error":{"message":"cut"}}\n\n'
    assert metered.error_end({"message": "cut"}, COMMENT) == COMMENT + error


# ── what is held, dropped and passed ──────────────────────────────────────────────────────────


def test_the_finish_is_held_until_output_follows() -> None:
    metered = meter()
    first, second = text("", "stop"), text("", "length")
    assert metered.feed(first) == b""
    assert metered.finish_seen
    assert metered.feed(text("a")) == first + text("a")
    assert metered.feed(second) == b""
    assert metered.feed(first) == second
    assert metered.finish(None, b"") == first + b"data: [DONE]\n\n"


def test_comments_stay_behind_what_is_held() -> None:
    metered = meter()
    assert metered.feed(b": a\n\n") == b": a\n\n"
    assert metered.feed(text("", "stop") + b": b\n\n" + b"data:\n\n") == b""
    end = metered.finish(None, COMMENT)
    assert end == text("", "stop") + b": b\n\ndata:\n\n" + COMMENT + b"data: [DONE]\n\n"
    assert metered.tally.malformed_events == 0


@pytest.mark.parametrize("trail", [b": x\n\n", event(choices=[], usage=use(1, 1))])
def test_an_endless_trail_is_not_held(trail: bytes) -> None:
    metered = meter(event_bytes_max=200)
    sent = text("", "stop") + trail * 100
    assert len(sent) - 200 - len(trail) <= len(metered.feed(sent)) <= len(sent)
    assert metered.tally.finish_seen


def test_malformed_events_pass_and_are_counted() -> None:
    metered = meter()
    bad = b"data: {oops\n\n"
    assert metered.feed(bad + b"data: 5\n\n") == bad + b"data: 5\n\n"
    assert metered.feed(text("", "stop") + bad) == text("", "stop") + bad
    assert metered.tally.malformed_events == 3


def test_nothing_passes_after_done() -> None:
    metered = meter()
    assert metered.feed(text("a") + b"data: [DONE] \n\n" + text("b")) == text("a")
    assert metered.is_over
    assert metered.feed(text("c")) == metered.close() == b""
    assert metered.tally.output_text_bytes == 1
    assert metered.finish(COST, COMMENT) == COMMENT + b"data: [DONE] \n\n"


def test_a_usage_event_before_more_output_is_released() -> None:
    metered = meter()
    usage = event(choices=[], usage=use(1, 1))
    assert metered.feed(usage) == b""
    assert metered.feed(text("a")) == usage + text("a")
    dropping = meter(asked=False)
    assert dropping.feed(usage + text("a")) == text("a")


def test_a_role_with_running_usage_is_no_usage_event() -> None:
    role = event(choices=[{"index": 0, "delta": {"role": "assistant"}}], usage=use(5, 0))
    assert meter(asked=False).feed(role) == role


def test_the_last_usage_counts() -> None:
    metered = meter()
    seen = []
    for data in (
        text("a", usage=use(5, 1)) + text("b", usage=use(5, 2)),
        event(choices=[], usage=use(5, 1_001)),
        event(choices=[], usage=use(5, 3)),
        event(choices=[], usage=None),
    ):
        metered.feed(data)
        seen.append((metered.tally.usage, metered.tally.usage_insane))
    three = Usage(input_tokens=5, output_tokens=3)
    two = Usage(input_tokens=5, output_tokens=2)
    assert seen == [(two, False), (None, True), (three, False), (three, False)]


def test_an_insane_usage_is_not_repeated_to_who_did_not_ask() -> None:
    metered = meter(asked=False)
    metered.feed(text("a", "stop") + event(choices=[], usage=use(-5, 1)))
    (chunk,) = chunks(metered.finish(COST, b"", usage=USED))
    assert chunk["usage"] == {**json.loads(USAGE), "cost": {"total_msats": 7}}


def test_an_insane_usage_stays_as_it_is_for_who_asked() -> None:
    metered = meter()
    metered.feed(text("a", "stop") + event(choices=[], usage=use(-5, 1)))
    _, chunk = chunks(metered.finish(COST, b"", usage=USED))
    assert chunk["usage"] == {**use(-5, 1), "cost": {"total_msats": 7}}


def test_without_any_usage_or_stand_in_there_is_only_the_comment() -> None:
    metered = meter()
    metered.feed(text("a", "stop"))
    assert metered.finish(COST, COMMENT) == text("a", "stop") + COMMENT + b"data: [DONE]\n\n"


def test_the_running_estimate() -> None:
    metered = meter()
    assert metered.output_tokens_estimate == 0
    metered.feed(text("abcde"))
    assert metered.output_tokens_estimate == 2
    metered.feed(text("f", usage=use(1, 90)))
    assert metered.output_tokens_estimate == 90


def test_an_oversized_event_cuts_the_stream() -> None:
    metered = meter(event_bytes_max=300)
    with pytest.raises(EventTooLarge) as error:
        metered.feed(text("a") + b"data: " + b"x" * 300)
    assert error.value.ready == text("a")
    assert metered.tally.bytes_out == len(text("a"))
    assert metered.is_over
    assert metered.feed(text("b")) == metered.close() == b""


@pytest.mark.parametrize(
    ("tail", "done", "given"),
    [
        (b"data: [DONE]", True, b""),
        (b"data: [DONE]\r\n", True, b""),
        (text("b")[:-2], False, text("b")),
        (text("b")[:-1], False, text("b")),
        (text("b")[:-5], False, b""),
        (b": comm", False, b""),
        (b"", False, b""),
    ],
)
def test_the_last_event_may_lack_its_empty_line(tail: bytes, done: bool, given: bytes) -> None:
    metered = meter()
    assert metered.feed(text("a") + tail) == text("a")
    assert metered.close() == given
    assert metered.tally.done_seen is done
    assert metered.tally.malformed_events == 0
    assert metered.close() == b""


# ── ends that the node makes ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("asked", [True, False])
def test_a_clean_end_is_one_that_clients_know(asked: bool) -> None:
    metered = meter(asked=asked)
    second = event(id="c", choices=[{"index": 1, "delta": {"content": "b"}}])
    metered.feed(text("a") + second + text("", "stop"))
    end = metered.clean_end(USED, COST, COMMENT)
    assert end.startswith(text("", "stop"))
    assert end.endswith(COMMENT + b"data: [DONE]\n\n")
    _, finish, *last = chunks(end)
    usage = {**json.loads(USAGE), "cost": {"total_msats": 7}}
    identity = {"object": "chat.completion.chunk", "id": "c", "created": 5, "model": "m"}
    choices = [{"index": 1, "delta": {}, "finish_reason": "length"}]
    if asked:
        assert finish == {**identity, "choices": choices}
        assert last == [{**identity, "choices": [], "usage": usage}]
    else:
        assert finish == {**identity, "choices": choices, "usage": usage}
        assert last == []


def test_an_answer_is_complete_when_all_of_it_ended() -> None:
    metered = meter()
    second = event(id="c", choices=[{"index": 1, "delta": {"content": "b"}}])
    ended = event(id="c", choices=[{"index": 1, "delta": {}, "finish_reason": "stop"}])
    steps = [text("a", ""), second, text("", "stop"), ended, text("more", "stop")]
    seen = []
    for step in steps:
        metered.feed(step)
        seen.append(metered.is_complete)
    assert seen == [False, False, False, True, False]
    metered.feed(text("", "stop", usage=use(1, 2)))
    assert metered.is_complete
    reasons = [
        choice["finish_reason"]
        for chunk in chunks(metered.clean_end(USED, COST, COMMENT))
        for choice in chunk["choices"]  # type: ignore[attr-defined]  # a list, as was sent
    ]
    assert reasons == ["stop"], "it said by itself why it ended"


def test_a_clean_end_before_any_chunk() -> None:
    metered = meter(asked=False)
    (chunk,) = chunks(metered.clean_end(USED, COST, b""))
    assert chunk["choices"] == [{"index": 0, "delta": {}, "finish_reason": "length"}]


def test_bytes_out_count_every_end() -> None:
    metered = meter()
    out = metered.feed(text("a", "stop")) + metered.error_end({}, COMMENT)
    assert metered.tally.bytes_out == len(out)


# ── JSON answers ──────────────────────────────────────────────────────────────────────────────


def test_a_body_is_metered() -> None:
    message = {"role": "assistant", "content": "four", "tool_calls": None}
    body = {
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": use(9, 2),
    }
    assert meter_body(json.dumps(body).encode(), usage_cap=1_000) == Tally(
        usage=Usage(input_tokens=9, output_tokens=2),
        finish_seen=True,
        done_seen=True,
        output_seen=True,
        output_text_bytes=4,
    )


@pytest.mark.parametrize(
    ("body", "tally"),
    [
        (b"<html>", Tally(malformed_events=1)),
        (b"[]", Tally(malformed_events=1)),
        (b"", Tally(malformed_events=1)),
        (b"{}", Tally(done_seen=True)),
        (b'{"error":{"message":"x"}}', Tally(done_seen=True, error_seen=True)),
        (
            b'{"usage":{"prompt_tokens":1001,"completion_tokens":1}}',
            Tally(done_seen=True, usage_insane=True),
        ),
    ],
)
def test_odd_bodies(body: bytes, tally: Tally) -> None:
    assert meter_body(body, usage_cap=1_000) == tally
