"""Speech from text (OpenAI): sold by the characters of `input`, and of `instructions`, if any.

An answer of sound reports no tokens, so a model that has no price by characters is not sold here;
`stream_format: "sse"`, which would report them, is refused.
"""

from dataclasses import replace
from typing import Final

from routstr.core.dialects.units import error_in, refuse_others, refuse_unless, text_in
from routstr.core.dialects.whole import WholeDialect
from routstr.core.order import Order, model_id_in
from routstr.core.outcome import Tally
from routstr.core.pricing import CHARACTERS_MAX, NOTHING_USED
from routstr.core.receipt import Receipt
from routstr.core.strict_json import parse_strictly
from routstr.core.unsupported import stored_input
from routstr.errors import InvalidParameter

_FIELDS: Final = frozenset(
    {
        "model", "input", "voice", "instructions", "response_format", "speed", "stream_format",
        "language", "sample_rate",
    }
)  # fmt: skip


class SpeechDialect(WholeDialect):
    """POST /audio/speech."""

    path: Final = "/audio/speech"

    def parse(self, body: bytes, *, content_type: str, depth_max: int) -> Order:
        """The order; null means absent. Raises as `Dialect.parse`."""
        value, serialised = parse_strictly(body, depth_max)
        refuse_others(value, _FIELDS)
        refuse_unless(value, "stream_format", ("audio",))
        text = text_in(value, "input")
        text += text_in(value, "instructions") if value.get("instructions") else ""
        if len(text) > CHARACTERS_MAX:
            raise InvalidParameter("input is too long.", param="input")
        if not isinstance(value.get("voice"), str | None):
            raise stored_input("voice")  # a voice by its id
        return Order(
            model_id=model_id_in(value),
            prompt_bytes=len(serialised),
            prompt_text_bytes=len(text.encode()),
            writes=False,
            units=replace(NOTHING_USED, characters=len(text)),
            sold_by=("characters_msat_per_million",),
            body=value,
        )

    def meter_body(self, body: bytes, *, order: Order, content_type: str, usage_cap: int) -> Tally:
        """All characters, if there is any sound."""
        return Tally(
            usage=order.units if body else NOTHING_USED,
            done_seen=True,
            output_seen=bool(body),
            error_seen=error_in(body, content_type),
        )

    def with_cost(self, body: bytes, receipt: Receipt) -> bytes:
        """Sound has no place for a cost."""
        return body
