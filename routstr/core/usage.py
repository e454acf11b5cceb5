"""What an upstream says was used, in whatever dialect, as one `Usage`.

Laws: nothing here raises, whatever an upstream sends; a count is believed if it is an integer in
[0, cap], else the whole report is insane; a part is never larger than its whole.

Sources: OpenAI's API reference (`usage` of chat, completions, responses, embeddings, images,
transcriptions), Anthropic's (`usage` of messages), and the vendors' own names for the same counts.
"""

from collections.abc import Iterable, Mapping
from enum import Enum
from math import ceil, isfinite
from typing import Final

from routstr.core.pricing import UNITS_MAX, Usage


class Insane(Enum):
    """A usage that cannot be: not an integer in [0, cap]."""

    INSANE = "insane"


INSANE: Final = Insane.INSANE

# Where each count may stand, the usual place first. The parts lie within prompt and completion.
_PROMPT: Final = (("prompt_tokens",), ("input_tokens",))
_COMPLETION: Final = (("completion_tokens",), ("output_tokens",))
_IN_DETAILS: Final = ("prompt_tokens_details", "input_tokens_details", "input_token_details")
_OUT_DETAILS: Final = ("completion_tokens_details", "output_tokens_details", "output_token_details")
_Places = tuple[tuple[str] | tuple[str, str], ...]


def _within(details: Iterable[str], count: str) -> _Places:
    return tuple((name, count) for name in details)


_INPUT_PARTS: Final[Mapping[str, _Places]] = {
    "cache_read_tokens": (
        *_within(_IN_DETAILS, "cached_tokens"),
        ("prompt_cache_hit_tokens",),  # DeepSeek
        ("cached_tokens",),  # Moonshot
        ("cache_read_input_tokens",),
    ),
    "cache_creation_tokens": (
        *_within(_IN_DETAILS, "cache_write_tokens"),  # OpenRouter
        *_within(_IN_DETAILS, "cache_creation_tokens"),
        ("cache_creation_input_tokens",),
    ),
    "audio_input_tokens": _within(_IN_DETAILS, "audio_tokens"),
    "image_input_tokens": _within(_IN_DETAILS, "image_tokens"),
}
_OUTPUT_PARTS: Final[Mapping[str, _Places]] = {
    "reasoning_tokens": _within(_OUT_DETAILS, "reasoning_tokens"),
    "audio_output_tokens": _within(_OUT_DETAILS, "audio_tokens"),
    "image_output_tokens": _within(_OUT_DETAILS, "image_tokens"),
}
# The members that any of them stands in: of a usage without these, no place is looked at.
_INPUT_HEADS: Final = frozenset(place[0] for places in _INPUT_PARTS.values() for place in places)
_OUTPUT_HEADS: Final = frozenset(place[0] for places in _OUTPUT_PARTS.values() for place in places)
_SEARCHES: Final = (
    ("server_tool_use", "web_search_requests"),
    ("web_search_requests",),
    ("num_search_queries",),  # Perplexity
)
_SECONDS: Final = (("seconds",), ("prompt_audio_seconds",))

# Anthropic counts these beside `input_tokens`, not within it.
_BESIDE: Final = ("cache_read_input_tokens", "cache_creation_input_tokens")


def normalise_usage(value: object, usage_cap: int, *, writes: bool = True) -> Usage | Insane | None:
    """The usage in OpenAI's shapes and those of its imitators; `writes` unless there is no output.

    None if it reports none: absent, null, or a count that is neither given nor follows from the
    total (some vendors leave out zeros). INSANE if a count is not an integer in [0, `usage_cap`].
    """
    if value is None:
        return None
    if not isinstance(value, dict):
        return INSANE
    seconds = _seconds(value)
    if seconds is not None and _at(value, _PROMPT) is None:
        if type(seconds) is not int or not 0 <= seconds <= UNITS_MAX:
            return INSANE
        return Usage(input_tokens=0, output_tokens=0, seconds=seconds)
    prompt, completion = _prompt_and_completion(value, writes=writes)
    return _usage(
        prompt,
        completion,
        _parts(value, _INPUT_PARTS, _INPUT_HEADS),
        _parts(value, _OUTPUT_PARTS, _OUTPUT_HEADS),
        _at(value, _SEARCHES),
        usage_cap,
    )


def messages_usage(value: object, usage_cap: int) -> Usage | Insane | None:
    """The usage in Anthropic's shape, whose `input_tokens` leave the cached ones out.

    None and INSANE as `normalise_usage`; a stream's parts are put together by `merged_usage`.
    """
    if value is None:
        return None
    if not isinstance(value, dict):
        return INSANE
    counts = [value.get(name) for name in ("input_tokens", *_BESIDE)]
    given = [0 if count is None else count for count in counts]
    if counts[0] is None or not all(type(count) is int and count >= 0 for count in given):
        return None if counts[0] is None else INSANE
    parts = dict(zip(("cache_read_tokens", "cache_creation_tokens"), given[1:], strict=True))
    searches = _at(value, _SEARCHES)
    return _usage(sum(given), value.get("output_tokens"), parts, {}, searches, usage_cap)


def merged_usage(known: Mapping[str, object], said: object) -> dict[str, object]:
    """What a stream reported so far: of each member the last that was not null counts."""
    if not isinstance(said, dict):
        return dict(known)
    return {**known, **{name: count for name, count in said.items() if count is not None}}


def _usage(
    prompt: object,
    completion: object,
    input_parts: Mapping[str, object],
    output_parts: Mapping[str, object],
    searches: object,
    usage_cap: int,
) -> Usage | Insane | None:
    """The usage, each part cut to what its side has left."""
    for count in (prompt, completion, searches, *input_parts.values(), *output_parts.values()):
        if count is not None and not (type(count) is int and 0 <= count <= usage_cap):
            return INSANE
    if not isinstance(prompt, int) or not isinstance(completion, int):
        return None
    return Usage(
        input_tokens=prompt,
        output_tokens=completion,
        web_searches=searches if isinstance(searches, int) else 0,
        **_cut(input_parts, prompt),
        **_cut(output_parts, completion),
    )


def _parts(
    value: Mapping[str, object], wanted: Mapping[str, _Places], heads: frozenset[str]
) -> dict[str, object]:
    """The counts of those parts; a part that is not told may be left out."""
    if heads.isdisjoint(value):
        return {}
    return {name: _at(value, places) for name, places in wanted.items()}


def _cut(parts: Mapping[str, object], whole: int) -> dict[str, int]:
    left, cut = whole, {}
    for name, count in parts.items():
        if count and isinstance(count, int):
            cut[name] = min(count, left)
            left -= cut[name]
    return cut


def _prompt_and_completion(usage: Mapping[str, object], *, writes: bool) -> tuple[object, object]:
    """Both counts; one that is missing follows from the total."""
    prompt, completion = _at(usage, _PROMPT), _at(usage, _COMPLETION)
    total = usage.get("total_tokens")
    if completion is None and not writes:
        completion = 0
    if type(total) is not int:
        return prompt, completion
    if prompt is None and type(completion) is int:
        prompt = total - completion
    elif completion is None and type(prompt) is int:
        completion = total - prompt
    elif writes and type(prompt) is int and type(completion) is int:
        beside = total - prompt - completion
        completion += _hidden(usage, beside) if beside else 0
    return prompt, completion


def _hidden(usage: Mapping[str, object], beside: int) -> int:
    """How much of what the total has beside prompt and completion is output all the same.

    xAI counts thoughts there and tells how many; Gemini counts them and does not. What some count
    there of caches is input.
    """
    thoughts = _at(usage, _OUTPUT_PARTS["reasoning_tokens"])
    if thoughts is not None:
        return beside if beside == thoughts else 0
    caches = [_at(usage, places) for name, places in _INPUT_PARTS.items() if "cache" in name]
    counts = [count for count in caches if type(count) is int]
    is_input = beside in (*counts, sum(counts)) or "citation_tokens" in usage  # Perplexity
    return 0 if is_input else max(beside, 0)


def _seconds(usage: Mapping[str, object]) -> object:
    """Seconds of audio, begun ones whole; None if none are told."""
    if usage.get("type") not in (None, "duration"):
        return None
    seconds = _at(usage, _SECONDS)
    if isinstance(seconds, float) and isfinite(seconds):
        return ceil(seconds)
    return seconds


def _at(usage: Mapping[str, object], places: _Places) -> object:
    """The first count that is there."""
    for place in places:
        found = usage.get(place[0])
        if len(place) > 1:
            found = found.get(place[1]) if isinstance(found, dict) else None
        if found is not None:
            return found
    return None
