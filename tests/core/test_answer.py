import pytest
from hypothesis import given
from hypothesis import strategies as st

from routstr.core.dialects.chat_answer import json_object, read_piece
from routstr.core.pricing import Usage
from routstr.core.usage import messages_usage, normalise_usage

CAP = 1_000


NAMES = st.sampled_from(
    [
        *("choices", "delta", "message", "content", "index", "finish_reason", "usage", "error"),
        *("prompt_tokens", "completion_tokens", "total_tokens", "tool_calls", "function"),
        *("arguments", "reasoning", "prompt_tokens_details", "cached_tokens", "input_tokens"),
        *("cache_read_input_tokens", "output_tokens", "audio_tokens", "image_tokens", "seconds"),
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=20,
)


@given(JSON)
def test_nothing_an_upstream_says_raises(value: object) -> None:
    for found in (normalise_usage(value, CAP), messages_usage(value, CAP)):
        if isinstance(found, Usage):
            assert found.is_sane
            assert max(found.input_tokens, found.output_tokens) <= CAP
    if isinstance(value, dict):
        for part in ("delta", "message"):
            piece = read_piece(value, part=part, usage_cap=CAP)
            assert piece.finished <= piece.indexes
            assert piece.output_seen or piece.output_text_bytes == 0


@pytest.mark.parametrize(
    ("delta", "seen", "text_bytes"),
    [
        ({}, False, 0),
        ({"role": "assistant", "content": ""}, False, 0),
        ({"content": None, "refusal": None, "tool_calls": []}, False, 0),
        ({"content": "hé"}, True, 3),
        ({"content": [{"type": "text", "text": "ab"}, "c"]}, True, 3),
        (
            {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "ab"}]}]},
            True,
            2,
        ),
        ({"refusal": "no"}, True, 2),
        ({"reasoning": "abc"}, True, 3),
        ({"reasoning_content": "abc", "content": "d"}, True, 4),
        # one thought under three names counts once
        (
            {
                "reasoning": "abc",
                "reasoning_content": "abcd",
                "reasoning_details": [{"type": "reasoning.text", "text": "abc"}],
            },
            True,
            4,
        ),
        ({"reasoning_details": [{"type": "reasoning.encrypted", "data": "xyz"}]}, True, 0),
        (
            {
                "tool_calls": [
                    {"index": 0, "id": "call", "function": {"name": "f", "arguments": "{}"}},
                    {"index": 1, "type": "custom", "custom": {"name": "g", "input": "xy"}},
                ]
            },
            True,
            6,
        ),
        ({"function_call": {"name": "f", "arguments": "{}"}}, True, 3),
        ({"audio": {"id": "a", "data": "AAAA", "transcript": "hi"}}, True, 2),
        ({"images": [{"type": "image_url", "image_url": {"url": "data:"}}]}, True, 0),
        ({"content": [[[[["deeper than any vendor"]]]]]}, True, 0),
        ({"content": 5}, True, 0),
    ],
)
def test_output(delta: dict[str, object], seen: bool, text_bytes: int) -> None:
    chunk = {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    piece = read_piece(chunk, part="delta", usage_cap=CAP)
    assert (piece.output_seen, piece.output_text_bytes) == (seen, text_bytes)
    assert read_piece(chunk, part="message", usage_cap=CAP).output_seen is False


@pytest.mark.parametrize(
    ("choices", "indexes", "finished"),
    [
        ([{"index": 0}, {"index": 3, "finish_reason": "stop"}], {0, 3}, {3}),
        ([{"finish_reason": "stop"}, {}], {0, 1}, {0}),
        ([{"index": -1}, {"index": 128}, {"index": True}, {"index": "0"}, 5], set(), set()),
        ({}, set(), set()),
        (None, set(), set()),
    ],
)
def test_choices(choices: object, indexes: set[int], finished: set[int]) -> None:
    piece = read_piece({"choices": choices}, part="delta", usage_cap=CAP)
    assert piece.indexes == frozenset(indexes)
    assert piece.finished == frozenset(finished)


def test_output_of_all_choices_adds_up() -> None:
    choices = [{"index": place, "message": {"content": "ab"}} for place in range(3)]
    piece = read_piece({"choices": choices}, part="message", usage_cap=CAP)
    assert piece.output_text_bytes == 6


@pytest.mark.parametrize(
    ("error", "is_error"), [({"message": "x"}, True), ("x", True), (None, False), ({}, False)]
)
def test_errors(error: object, is_error: bool) -> None:
    assert read_piece({"error": error}, part="delta", usage_cap=CAP).is_error is is_error


@pytest.mark.parametrize("data", [b"", b"[]", b"1", b"{", b"\xff", b'{"a":' + b"[" * 5_000])
def test_what_is_no_object(data: bytes) -> None:
    assert json_object(data) is None
