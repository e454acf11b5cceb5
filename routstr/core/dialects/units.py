"""What the dialects share that are sold by the unit: images, characters, seconds.

Laws: only the fields named here are taken, because a price by unit knows nothing of the others;
what could raise the upstream's bill beyond that price is refused (guarantees, SR-10); units are
counted in the answer, so that an answer without any costs nothing.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import replace

from routstr.core.dialects.base import Media
from routstr.core.dialects.chat_answer import json_object
from routstr.core.dialects.whole import WholeDialect
from routstr.core.form import form_bytes
from routstr.core.order import Order
from routstr.core.outcome import Tally
from routstr.core.pricing import NOTHING_USED, Usage
from routstr.core.usage import INSANE, normalise_usage
from routstr.errors import InvalidParameter, UnsupportedParameter


class FormDialect(WholeDialect):
    """A form in, whole out; what is sent is our own form."""

    media: Media = "multipart"

    def forward_body(
        self, order: Order, *, forwarded_model_id: str, output_limit: int | None = None
    ) -> bytes:
        """The parts as parsed, with the upstream's model id; there is no limit to lower."""
        return form_bytes({**order.body, "model": forwarded_model_id}, order.content_type)


# ── what is ordered ───────────────────────────────────────────────────────────────────────────


def refuse_others(value: Mapping[str, object], known: Collection[str]) -> None:
    """Raise UnsupportedParameter for a member that is not among `known`; null means absent."""
    for name, given in value.items():
        if name not in known and given is not None:
            shown = name[:100]
            raise UnsupportedParameter(f"{shown} is not supported here.", param=shown)


def refuse_unless(value: Mapping[str, object], name: str, harmless: tuple[object, ...]) -> None:
    """Raise UnsupportedParameter unless a member is absent or harmless, true and 1 told apart."""
    given = value.get(name)
    if given is None or any(given == each and type(given) is type(each) for each in harmless):
        return
    raise UnsupportedParameter(
        f"{name} is not supported here: this endpoint is answered whole.", param=name
    )


def text_in(value: Mapping[str, object], name: str) -> str:
    """A text that is not empty. Raises InvalidParameter."""
    given = value.get(name)
    if not isinstance(given, str) or not given:
        raise InvalidParameter(f"{name} must be a text that is not empty.", param=name)
    return given


def form_count(form: Mapping[str, object], name: str) -> dict[str, object]:
    """A form's number as JSON would have it, for `count_in`; what is none stays text."""
    given = form.get(name)
    is_number = isinstance(given, str) and given.isascii() and given.isdigit() and len(given) < 10
    return {name: int(given) if isinstance(given, str) and is_number else given}


# ── what was delivered ────────────────────────────────────────────────────────────────────────


def tally_of(
    value: Mapping[str, object], *, units: Usage, usage_cap: int, output_seen: bool
) -> Tally:
    """The tally of a whole JSON answer with `units` counted in it, and the tokens it reports."""
    said = normalise_usage(value.get("usage"), usage_cap)
    reported = NOTHING_USED if said is INSANE or said is None else said
    return Tally(
        usage=replace(
            reported,
            images=units.images,
            seconds=reported.seconds or units.seconds,
            characters=units.characters,
        ),
        usage_insane=said is INSANE,
        done_seen=True,
        output_seen=output_seen,
        error_seen=bool(value.get("error")),
    )


def error_in(body: bytes, content_type: str) -> bool:
    """Whether an answer that should be no JSON is an error object after all."""
    value = json_object(body) if content_type == "application/json" else None
    return value is not None and bool(value.get("error"))


def seconds_in(value: object) -> int | None:
    """A JSON number of seconds, begun ones whole; None if it is none."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        seconds = float(value)  # inexact: seconds, rounded up below; some say "3.27"
    except (ValueError, OverflowError):
        return None
    return math.ceil(seconds) if math.isfinite(seconds) and seconds > 0 else None
