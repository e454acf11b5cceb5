"""Images: generations from JSON, edits and variations from a form (OpenAI).

Sold by the image, or by the tokens of the images where the upstream reports those. One price per
image covers every size and quality, so whoever sets it sets the dearest. Images are counted as
they were delivered; images in parts (streams) are refused, because each part is billed again.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from routstr.core.dialects.chat_answer import json_object
from routstr.core.dialects.units import (
    FormDialect,
    form_count,
    refuse_others,
    refuse_unless,
    tally_of,
    text_in,
)
from routstr.core.dialects.whole import WholeDialect
from routstr.core.form import FormFile, form_type, parse_form
from routstr.core.order import Medium, Order, choices_in, model_id_in
from routstr.core.outcome import Tally
from routstr.core.pricing import NOTHING_USED
from routstr.core.strict_json import parse_strictly
from routstr.errors import InvalidParameter

SOLD_BY: Final = ("image_msat", "image_output_msat_per_mtok")

_DRAWN: Final[frozenset[Medium]] = frozenset({"image_output"})
_REDRAWN: Final[frozenset[Medium]] = frozenset({"image_input", "image_output"})

_GENERATION_FIELDS: Final = frozenset(
    {
        "model", "prompt", "n", "size", "quality", "style", "response_format", "user", "background",
        "moderation", "output_compression", "output_format", "partial_images", "stream",
        "negative_prompt", "seed",
    }
)  # fmt: skip
_EDIT_TEXTS: Final = (
    "model", "prompt", "n", "size", "quality", "response_format", "user", "background",
    "input_fidelity", "output_compression", "output_format", "partial_images", "stream",
)  # fmt: skip
_VARIATION_TEXTS: Final = ("model", "n", "size", "response_format", "user")


class _Drawing(WholeDialect):
    """What the three have in common: their answer."""

    def meter_body(self, body: bytes, *, order: Order, content_type: str, usage_cap: int) -> Tally:
        """Each delivered image, never more than were ordered; tokens if they are reported."""
        value = json_object(body)
        if value is None:
            return Tally(malformed_events=1)
        data = value.get("data")
        delivered = sum(_is_image(entry) for entry in data) if isinstance(data, list) else 0
        images = min(delivered, order.units.images)
        units = replace(NOTHING_USED, images=images)
        tally = tally_of(value, units=units, usage_cap=usage_cap, output_seen=images > 0)
        usage = tally.usage
        if not images or usage is None or usage.image_output_tokens:
            return tally if images else replace(tally, usage=NOTHING_USED)
        # Who gives no details here means images alone.
        return replace(tally, usage=replace(usage, image_output_tokens=usage.output_tokens))


class GenerationDialect(_Drawing):
    """POST /images/generations."""

    path: Final = "/images/generations"

    def parse(self, body: bytes, *, content_type: str, depth_max: int) -> Order:
        """The order; null means absent. Raises as `Dialect.parse`."""
        value, serialised = parse_strictly(body, depth_max)
        refuse_others(value, _GENERATION_FIELDS)
        refuse_unless(value, "stream", (False,))
        refuse_unless(value, "partial_images", (0,))
        images = choices_in(value)
        return Order(
            model_id=model_id_in(value),
            prompt_bytes=len(serialised),
            prompt_text_bytes=len(text_in(value, "prompt").encode()),
            n=images,
            is_fixed=True,
            media=_DRAWN,
            units=replace(NOTHING_USED, images=images),
            sold_by=SOLD_BY,
            body=value,
        )


class _Redrawing(FormDialect, _Drawing):
    """Images from images: a form, whose images the body's bytes do not bound in tokens."""

    _texts: tuple[str, ...]
    _files: tuple[str, ...]
    _needs_prompt: bool

    def parse(self, body: bytes, *, content_type: str, depth_max: int) -> Order:
        """The order. Raises as `Dialect.parse`."""
        form = parse_form(body, content_type=content_type, texts=self._texts, files=self._files)
        refuse_unless(form, "stream", ("false",))
        refuse_unless(form, "partial_images", ("0",))
        if not any(isinstance(form.get(name), FormFile | list) for name in ("image", "image[]")):
            raise InvalidParameter("image must be a file.", param="image")
        prompt = text_in(form, "prompt") if self._needs_prompt else ""
        images = choices_in(form_count(form, "n"))
        return Order(
            model_id=model_id_in(form),
            prompt_bytes=len(body),
            prompt_text_bytes=len(prompt.encode()),
            input_unbounded=True,
            n=images,
            is_fixed=True,
            media=_REDRAWN,
            units=replace(NOTHING_USED, images=images),
            sold_by=SOLD_BY,
            content_type=form_type(body),
            body=form,
        )


class EditDialect(_Redrawing):
    """POST /images/edits."""

    path: Final = "/images/edits"
    _texts = _EDIT_TEXTS
    _files = ("image", "image[]", "mask")
    _needs_prompt = True


class VariationDialect(_Redrawing):
    """POST /images/variations."""

    path: Final = "/images/variations"
    _texts = _VARIATION_TEXTS
    _files = ("image",)
    _needs_prompt = False


def _is_image(entry: object) -> bool:
    """Whether an entry of `data` holds an image or its address."""
    return isinstance(entry, Mapping) and any(
        isinstance(entry.get(name), str) and entry[name] for name in ("b64_json", "url")
    )
