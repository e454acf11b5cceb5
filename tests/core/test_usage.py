from dataclasses import replace

import pytest

from routstr.core.pricing import UNITS_MAX, Usage
from routstr.core.usage import INSANE, Insane, merged_usage, messages_usage, normalise_usage

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
        # Gemini counts thoughts in the total alone
        ({"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 60}, usage(3, 57)),
        (
            {
                "prompt_tokens": 3,
                "completion_tokens": 4,
                "total_tokens": 60,
                "prompt_tokens_details": {"cached_tokens": 0},
            },
            usage(3, 57),
        ),
        # others have there what was read from a cache, or looked up
        (
            {
                "prompt_tokens": 3,
                "completion_tokens": 4,
                "total_tokens": 9,
                "cache_read_input_tokens": 2,
            },
            usage(3, 4, cached=2),
        ),
        (
            {
                "prompt_tokens": 3,
                "completion_tokens": 4,
                "total_tokens": 9,
                "citation_tokens": 2,
            },
            usage(3, 4),
        ),
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
                "prompt_tokens_details": {"cached_tokens": 2, "text_tokens": "x"},
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


# ── other vendors' words for it ───────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        # OpenAI: responses, with both parts
        (
            {
                "input_tokens": 50,
                "input_tokens_details": {"cached_tokens": 20},
                "output_tokens": 30,
                "output_tokens_details": {"reasoning_tokens": 10},
                "total_tokens": 80,
            },
            {"cache_read_tokens": 20, "reasoning_tokens": 10},
        ),
        # OpenAI: images, and sound in chat
        (
            {
                "input_tokens": 50,
                "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
                "output_tokens": 30,
                "output_tokens_details": {"image_tokens": 30, "text_tokens": 0},
            },
            {"image_input_tokens": 40, "image_output_tokens": 30},
        ),
        (
            {
                "prompt_tokens": 50,
                "prompt_tokens_details": {"audio_tokens": 45, "cached_tokens": 0},
                "completion_tokens": 30,
                "completion_tokens_details": {"audio_tokens": 25, "reasoning_tokens": 0},
            },
            {"audio_input_tokens": 45, "audio_output_tokens": 25},
        ),
        # OpenAI: a transcription by tokens
        (
            {
                "type": "tokens",
                "input_tokens": 50,
                "input_token_details": {"text_tokens": 0, "audio_tokens": 50},
                "output_tokens": 30,
                "total_tokens": 80,
            },
            {"audio_input_tokens": 50},
        ),
        # DeepSeek, Moonshot, OpenRouter
        (
            {"prompt_tokens": 50, "completion_tokens": 30, "prompt_cache_hit_tokens": 40,
             "prompt_cache_miss_tokens": 10},
            {"cache_read_tokens": 40},
        ),
        (
            {"prompt_tokens": 50, "completion_tokens": 30, "cached_tokens": 7},
            {"cache_read_tokens": 7},
        ),
        (
            {"prompt_tokens": 50, "completion_tokens": 30,
             "prompt_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 6}},
            {"cache_read_tokens": 5, "cache_creation_tokens": 6},
        ),
        # xAI counts thoughts beside the completion
        (
            {"prompt_tokens": 50, "completion_tokens": 10, "total_tokens": 80,
             "completion_tokens_details": {"reasoning_tokens": 20}},
            {"reasoning_tokens": 20},
        ),
        # Perplexity
        (
            {"prompt_tokens": 50, "completion_tokens": 30, "num_search_queries": 3},
            {"web_searches": 3},
        ),
    ],
)  # fmt: skip
def test_a_part_under_any_name(value: object, parts: dict[str, int]) -> None:
    whole = Usage(input_tokens=50, output_tokens=30)
    assert normalise_usage(value, CAP) == replace(whole, **parts)


def test_what_writes_nothing_needs_no_output_count() -> None:
    used = Usage(input_tokens=8, output_tokens=0)
    assert normalise_usage({"total_tokens": 8}, CAP, writes=False) == used
    more = {"prompt_tokens": 8, "total_tokens": 9}
    assert normalise_usage(more, CAP, writes=False) == used
    assert normalise_usage({"prompt_tokens": 8, "total_tokens": 8}, CAP) == used


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(12, 12), (12.1, 13), (0, 0), (-1, None), (UNITS_MAX + 1, None), ("9", None), (True, None)],
)
def test_seconds_of_audio(seconds: object, expected: int | None) -> None:
    found = normalise_usage({"type": "duration", "seconds": seconds}, CAP)
    if expected is None:
        assert found is INSANE
    else:
        assert found == Usage(input_tokens=0, output_tokens=0, seconds=expected)


# ── Anthropic ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"input_tokens": 5, "output_tokens": 4}, Usage(input_tokens=5, output_tokens=4)),
        (
            {
                "input_tokens": 5,
                "cache_read_input_tokens": 20,
                "cache_creation_input_tokens": 3,
                "output_tokens": 4,
                "server_tool_use": {"web_search_requests": 2},
            },
            Usage(
                input_tokens=28,
                output_tokens=4,
                cache_read_tokens=20,
                cache_creation_tokens=3,
                web_searches=2,
            ),
        ),
        ({"input_tokens": 5, "cache_read_input_tokens": None, "output_tokens": 0},
         Usage(input_tokens=5, output_tokens=0)),
        ({"input_tokens": 5}, None),
        ({"output_tokens": 5}, None),
        (None, None),
        ([], INSANE),
        ({"input_tokens": -5, "output_tokens": 4}, INSANE),
        ({"input_tokens": 5, "output_tokens": "4"}, INSANE),
        ({"input_tokens": CAP, "cache_read_input_tokens": 1, "output_tokens": 4}, INSANE),
    ],
)  # fmt: skip
def test_messages_usage(value: object, expected: Usage | Insane | None) -> None:
    assert messages_usage(value, CAP) == expected


def test_of_a_streams_reports_the_last_of_each_member_counts() -> None:
    known = merged_usage({}, {"input_tokens": 9, "output_tokens": 1})
    known = merged_usage(known, {"output_tokens": 5, "input_tokens": None})
    known = merged_usage(known, "nonsense")
    assert known == {"input_tokens": 9, "output_tokens": 5}
