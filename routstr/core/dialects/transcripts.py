"""Text from speech (OpenAI): transcriptions, and translations into English.

Sold by begun seconds of sound, or by tokens where the upstream reports those. Seconds are those
that the upstream reports, else those that the file has, and never less than the text that came
back must have taken to say, so that a file which lies about its length gains little.
"""

import re
from dataclasses import replace
from typing import Final

from routstr.core.dialects.chat_answer import json_object
from routstr.core.dialects.units import (
    FormDialect,
    error_in,
    refuse_unless,
    seconds_in,
    tally_of,
)
from routstr.core.duration import length_of
from routstr.core.form import FormFile, form_type, parse_form
from routstr.core.money import ceil_div
from routstr.core.order import Medium, Order, model_id_in
from routstr.core.outcome import Tally
from routstr.core.pricing import NOTHING_USED, UNITS_MAX, Usage
from routstr.errors import InvalidParameter, UnsupportedParameter

BY_SECOND: Final = ("second_msat",)  # all that text, which reports no tokens, is sold by
SOLD_BY: Final = (*BY_SECOND, "audio_input_msat_per_mtok")
TOKENS_PER_SECOND_MAX: Final = 50  # what hears speech makes 50 frames of a second
# A window of 30 seconds is answered with at most 448 tokens; nobody speaks that fast.
CHARACTERS_PER_SECOND_MAX: Final = 75

_JSON_FORMATS: Final = frozenset({"json", "verbose_json", "diarized_json"})
_TEXT_FORMATS: Final = frozenset({"text", "srt", "vtt"})
_HEARD: Final[frozenset[Medium]] = frozenset({"audio_input"})
_CUE: Final = re.compile(rb"--> *(?:([0-9]{2,4}):)?([0-9]{2}):([0-9]{2})[.,][0-9]{3}")
_CUE_TAIL_BYTES: Final = 16 * 1024


class _Hearing(FormDialect):
    """What both have in common."""

    _texts: tuple[str, ...]

    def parse(self, body: bytes, *, content_type: str, depth_max: int) -> Order:
        """The order. Raises as `Dialect.parse`."""
        form = parse_form(body, content_type=content_type, texts=self._texts, files=("file",))
        refuse_unless(form, "stream", ("false",))
        file, told = form.get("file"), form.get("response_format", "json")
        if not isinstance(file, FormFile) or not file.data:
            raise InvalidParameter("file must be a file that is not empty.", param="file")
        if told not in _JSON_FORMATS | _TEXT_FORMATS:
            raise UnsupportedParameter(
                "response_format must be json, verbose_json, text, srt or vtt.",
                param="response_format",
            )
        length = length_of(file.data)
        if told in _TEXT_FORMATS and length.seconds is None:
            # Text reports no seconds, so without them there would be nothing to charge by.
            raise UnsupportedParameter(
                f"{told} needs a file whose length can be read here (WAV, MP3, FLAC, Ogg, M4A): "
                "send one, or ask for json.",
                param="response_format",
            )
        texts = [given for given in form.values() if isinstance(given, str)]
        prompt_bytes = sum(len(text.encode()) for text in texts)
        return Order(
            model_id=model_id_in(form),
            prompt_bytes=prompt_bytes + length.seconds_max * TOKENS_PER_SECOND_MAX,
            prompt_text_bytes=prompt_bytes,
            is_fixed=True,
            media=_HEARD,
            units=replace(NOTHING_USED, seconds=length.seconds_max),
            counted=replace(NOTHING_USED, seconds=length.seconds or 0),
            sold_by=BY_SECOND if told in _TEXT_FORMATS else SOLD_BY,
            content_type=form_type(body),
            body=form,
        )

    def meter_body(self, body: bytes, *, order: Order, content_type: str, usage_cap: int) -> Tally:
        """Seconds, and tokens if they are reported."""
        if order.body.get("response_format") in _TEXT_FORMATS:
            return _text_tally(body, order, content_type)
        value = json_object(body)
        if value is None:
            return Tally(malformed_events=1)
        text = value.get("text")
        said = text if isinstance(text, str) else ""
        units = _counted(order, _spoken_s(said))
        reported = seconds_in(value.get("duration"))
        if reported is not None:  # believed, as `usage` is
            units = replace(units, seconds=min(reported, UNITS_MAX))
        return tally_of(value, units=units, usage_cap=usage_cap, output_seen=bool(said.strip()))


class TranscriptionDialect(_Hearing):
    """POST /audio/transcriptions."""

    path: Final = "/audio/transcriptions"
    _texts = (
        "model", "language", "prompt", "response_format", "temperature", "stream",
        "chunking_strategy", "timestamp_granularities[]", "include[]",
    )  # fmt: skip


class TranslationDialect(_Hearing):
    """POST /audio/translations."""

    path: Final = "/audio/translations"
    _texts = ("model", "prompt", "response_format", "temperature")


def _text_tally(body: bytes, order: Order, content_type: str) -> Tally:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return Tally(malformed_events=1)
    has_cues = order.body.get("response_format") != "text"
    least = _last_cue_s(body) if has_cues else _spoken_s(text)
    return Tally(
        usage=_counted(order, least),
        done_seen=True,
        output_seen=bool(text.replace("WEBVTT", "", 1).strip()),
        error_seen=error_in(body, content_type),
    )


def _counted(order: Order, least: int) -> Usage:
    """The file's seconds, if it cannot be shorter than `least`; never more than were quoted."""
    return replace(
        NOTHING_USED, seconds=min(max(order.counted.seconds, least), order.units.seconds)
    )


def _spoken_s(text: str) -> int:
    """The least that a text takes to say."""
    return ceil_div(len(text), CHARACTERS_PER_SECOND_MAX)


def _last_cue_s(subtitles: bytes) -> int:
    """Where the last cue ends (SRT, WebVTT), the begun second whole."""
    cues = _CUE.findall(subtitles[-_CUE_TAIL_BYTES:])
    if not cues:
        return 0
    hours, minutes, seconds = (int(part or 0) for part in cues[-1])
    return hours * 3_600 + minutes * 60 + seconds
