import pytest
from hypothesis import given
from hypothesis import strategies as st

from routstr.core.dialects.chat_answer import (
    INSANE,
    Insane,
    json_object,
    normalise_usage,
    read_piece,
)
from routstr.core.pricing import Usage

CAP = 1_000


def usage(prompt: int, completion: int, cached: int = 0, reasoning: int = 0) -> Usage:
    return Usage(
        input_tokens=prompt,
        output_tokens=completion,
        cache_read_tokens=cached,
        reasoning_tokens=reasoning,
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}, usage(3, 4)),
        ({"prompt_tokens": 0, "completion_tokens": 0}, usage(0, 0)),
        ({"prompt_tokens": CAP, "completion_tokens": CAP}, usage(CAP, CAP)),
        # a missing count follows from the total
        ({"prompt_tokens": 3, "total_tokens": 7}, usage(3, 4)),
        ({"completion_tokens": 3, "total_tokens": 7}, usage(4, 3)),
        # no usage
        (None, None),
        ({}, None),
        ({"prompt_tokens": 3}, None),
        ({"completion_tokens": 3, "prompt_tokens": None}, None),
        ({"total_tokens": 3}, None),
        ({"prompt_tokens": 3, "total_tokens": "7"}, None),
        # a total that is not needed is not looked at
        ({"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": -1}, usage(3, 4)),
        # details lie within their sums
        (
            {
                "prompt_tokens": 5,
                "completion_tokens": 4,
                "prompt_tokens_details": {"cached_tokens": 2, "audio_tokens": "x"},
                "completion_tokens_details": {"reasoning_tokens": 3},
            },
            usage(5, 4, 2, 3),
        ),
        (
            {
                "prompt_tokens": 5,
                "completion_tokens": 4,
                "prompt_tokens_details": {"cached_tokens": 9},
                "completion_tokens_details": {"reasoning_tokens": 9},
            },
            usage(5, 4, 5, 4),
        ),
        (
            {
                "prompt_tokens": 5,
                "completion_tokens": 4,
                "prompt_tokens_details": None,
                "completion_tokens_details": {"reasoning_tokens": None},
            },
            usage(5, 4),
        ),
        # insane
        ([], INSANE),
        ("x", INSANE),
        (9, INSANE),
        ({"prompt_tokens": CAP + 1, "completion_tokens": 0}, INSANE),
        ({"prompt_tokens": 0, "completion_tokens": CAP + 1}, INSANE),
        ({"prompt_tokens": -1, "completion_tokens": 0}, INSANE),
        ({"prompt_tokens": True, "completion_tokens": 0}, INSANE),
        ({"prompt_tokens": 1.0, "completion_tokens": 0}, INSANE),
        ({"prompt_tokens": "1", "completion_tokens": 0}, INSANE),
        ({"prompt_tokens": [], "completion_tokens": None}, INSANE),
        ({"prompt_tokens": 8, "total_tokens": 7}, INSANE),
        ({"prompt_tokens": 1, "total_tokens": CAP + 2}, INSANE),
        (
            {
                "prompt_tokens": 1,
                "completion_tokens": 1,
                "prompt_tokens_details": {"cached_tokens": -1},
            },
            INSANE,
        ),
    ],
)
def test_usage(value: object, expected: Usage | Insane | None) -> None:
    assert normalise_usage(value, CAP) == expected


NAMES = st.sampled_from(
    [
        *("choices", "delta", "message", "content", "index", "finish_reason", "usage", "error"),
        *("prompt_tokens", "completion_tokens", "total_tokens", "tool_calls", "function"),
        *("arguments", "reasoning", "prompt_tokens_details", "cached_tokens"),
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=20,
)


@given(JSON)
def test_nothing_an_upstream_says_raises(value: object) -> None:
    found = normalise_usage(value, CAP)
    if isinstance(found, Usage):
        assert 0 <= found.cache_read_tokens <= found.input_tokens <= CAP
        assert 0 <= found.reasoning_tokens <= found.output_tokens <= CAP
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
