"""What a client orders, whatever the dialect: everything its price depends on.

Law: a body means the same to us and to every upstream, or it is refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from routstr.core.pricing import NOTHING_USED, Usage
from routstr.errors import InvalidParameter

MODEL_CHARACTERS_MAX: Final = 256
CHOICES_MAX: Final = 128

Medium = Literal["audio_input", "image_input", "audio_output", "image_output"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One request as ordered.

    `prompt_bytes` bounds the prompt's tokens unless `input_unbounded`; `prompt_text_bytes` is its
    text alone, for estimates. `inputs` prompts may fill a context each (an embedding's batch), `n`
    answers are written, each of at most `output_limit` tokens (None: the model's own limit), which
    `output_limit_field` said; none at all unless it `writes`. `units` are the most units it can
    use, `counted` those that the body itself shows; of the prices named in `sold_by` the model must
    have one. `media` other than text may occur, and it `has_files` if documents may. `is_fixed`: no
    limit makes it cheaper; it counts as `calls` where calls are billed. Only `is_free` (a count of
    tokens) may cost nothing. `body` is the JSON or the form that was parsed, a form is sent as
    `content_type`. What `is_opaque` is not read: it goes up with its `method` and `query`, and
    whatever comes back goes down.
    """

    model_id: str
    prompt_bytes: int
    prompt_text_bytes: int
    stream: bool = False
    usage_asked: bool = False
    n: int = 1
    inputs: int = 1
    writes: bool = True
    output_limit: int | None = None
    output_limit_field: str | None = None
    has_tools: bool = False
    input_unbounded: bool = False
    media: frozenset[Medium] = frozenset()
    has_files: bool = False
    calls: int = 1
    units: Usage = NOTHING_USED
    counted: Usage = NOTHING_USED
    sold_by: tuple[str, ...] = ()
    is_fixed: bool = False
    is_free: bool = False
    is_opaque: bool = False
    content_type: str = ""
    method: str = "POST"
    query: str = field(default="", repr=False)
    body: Mapping[str, object] = field(default_factory=dict, repr=False)


# ── members that several dialects have ────────────────────────────────────────────────────────


def model_id_in(value: Mapping[str, object]) -> str:
    """The model's id. Raises InvalidParameter."""
    model_id = value.get("model")
    if not isinstance(model_id, str) or not 0 < len(model_id) <= MODEL_CHARACTERS_MAX:
        raise InvalidParameter(
            f"model must be a string of 1 to {MODEL_CHARACTERS_MAX} characters.", param="model"
        )
    return model_id


def bool_in(value: Mapping[str, object], name: str, *, param: str | None = None) -> bool:
    """A truth that is false when absent or null. Raises InvalidParameter."""
    given = value.get(name)
    if given is not None and not isinstance(given, bool):
        raise InvalidParameter(f"{param or name} must be true or false.", param=param or name)
    return given is True


def count_in(value: Mapping[str, object], name: str, *, most: int | None = None) -> int | None:
    """An integer of at least 1, None when absent or null. Raises InvalidParameter."""
    given = value.get(name)
    if given is None:
        return None
    if not isinstance(given, int) or isinstance(given, bool) or given < 1:
        raise InvalidParameter(f"{name} must be an integer of at least 1.", param=name)
    if most is not None and given > most:
        raise InvalidParameter(f"{name} must be at most {most}.", param=name)
    return given


def choices_in(value: Mapping[str, object]) -> int:
    """How many answers are ordered. Raises InvalidParameter."""
    return count_in(value, "n", most=CHOICES_MAX) or 1


def output_limit_in(
    value: Mapping[str, object], names: tuple[str, ...]
) -> tuple[int | None, str | None]:
    """The larger of the limits given, and its field: an upstream may heed either."""
    limit: int | None = None
    limit_field: str | None = None
    for name in names:
        given = count_in(value, name)
        if given is not None and (limit is None or given > limit):
            limit, limit_field = given, name
    return limit, limit_field


def lowered_limits(
    body: Mapping[str, object], names: tuple[str, ...], output_limit: int
) -> dict[str, object]:
    """The limits to forward: each that was given is lowered, else the first of `names` is added."""
    given = {name: limit for name in names if isinstance(limit := body.get(name), int)}
    return {
        name: min(limit, output_limit)
        for name, limit in (given or {names[0]: output_limit}).items()
    }
