import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routstr.core.dialects.completions import CompletionsDialect
from routstr.core.order import Order
from routstr.core.outcome import Tally
from routstr.core.pricing import Usage
from routstr.errors import InvalidParameter, UnsupportedParameter

DIALECT = CompletionsDialect()
RECORDING = (Path(__file__).parents[1] / "recordings" / "completions" / "openai.sse").read_bytes()


def parse(**members: object) -> Order:
    body = json.dumps({"model": "m", "prompt": "hi", **members}).encode()
    return DIALECT.parse(body, content_type="application/json", depth_max=64)


@pytest.mark.parametrize(
    ("members", "n", "inputs", "text_bytes"),
    [
        ({}, 1, 1, 2),
        ({"prompt": ["one", "two"]}, 2, 2, 6),
        ({"prompt": [1, 2, 3]}, 1, 1, 12),
        ({"prompt": [[1, 2], [3]]}, 2, 2, 12),
        ({"n": 3}, 3, 1, 2),
        ({"n": 2, "best_of": 5}, 5, 1, 2),
        ({"prompt": ["a", "b"], "best_of": 4}, 8, 2, 2),
    ],
)
def test_every_answer_that_is_generated_is_ordered(
    members: dict[str, object], n: int, inputs: int, text_bytes: int
) -> None:
    order = parse(**members)
    assert (order.n, order.inputs, order.prompt_text_bytes) == (n, inputs, text_bytes)


@pytest.mark.parametrize(
    ("members", "refusal"),
    [
        ({"prompt": None}, InvalidParameter),
        ({"prompt": []}, InvalidParameter),
        ({"prompt": ["a", 1]}, InvalidParameter),
        ({"prompt": [[]]}, InvalidParameter),
        ({"prompt": ["a"] * 65, "n": 2}, InvalidParameter),
        ({"best_of": 0}, InvalidParameter),
        ({"Prompt": "a"}, UnsupportedParameter),
        ({"service_tier": "priority"}, UnsupportedParameter),
        ({"max_completion_tokens": 5}, UnsupportedParameter),
    ],
)
def test_refusals(members: dict[str, object], refusal: type[Exception]) -> None:
    with pytest.raises(refusal):
        parse(**members)


def test_a_lowered_limit_is_forwarded() -> None:
    body = DIALECT.forward_body(parse(stream=True), forwarded_model_id="u", output_limit=9)
    assert json.loads(body) == {
        "model": "u",
        "prompt": "hi",
        "stream": True,
        "max_tokens": 9,
        "stream_options": {"include_usage": True},
    }


def run(cuts: list[int]) -> tuple[bytes, Tally]:
    meter = DIALECT.stream_meter(usage_asked=True, usage_cap=1_000, event_bytes_max=4_096)
    places = sorted({0, len(RECORDING), *cuts})
    out = b"".join(meter.feed(RECORDING[start:end]) for start, end in pairwise(places))
    out += meter.close()
    tally = meter.tally
    return out + meter.finish(None, b""), tally


@given(st.lists(st.integers(0, len(RECORDING))))
def test_chunking_changes_neither_bytes_nor_tally(cuts: list[int]) -> None:
    out, tally = run(cuts)
    assert out == RECORDING
    assert tally.usage == Usage(input_tokens=4, output_tokens=7)
    assert tally.output_text_bytes == len("Once a time upon a dime")
    assert tally.finish_seen
    assert tally.done_seen


def test_a_clean_end_is_one_that_clients_know() -> None:
    meter = DIALECT.stream_meter(usage_asked=False, usage_cap=1_000, event_bytes_max=4_096)
    meter.feed(RECORDING.split(b"\n\n")[0] + b"\n\n")
    end = meter.clean_end(Usage(input_tokens=1, output_tokens=1), b'"cost":{}', b"")
    chunk = json.loads(end.split(b"\n\n")[0].removeprefix(b"data: "))
    assert chunk["object"] == "text_completion"
    assert chunk["choices"] == [
        {"index": 0, "text": "", "logprobs": None, "finish_reason": "length"}
    ]


def test_a_whole_answer() -> None:
    answer = {"choices": [{"text": "four", "index": 0, "finish_reason": "stop"}]}
    tally = DIALECT.meter_body(
        json.dumps(answer).encode(), order=parse(), content_type="application/json", usage_cap=9
    )
    assert (tally.output_seen, tally.output_text_bytes, tally.finish_seen) == (True, 4, True)
