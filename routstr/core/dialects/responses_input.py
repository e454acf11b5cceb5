"""How much prompt the items of a response's input are, and which of them are not taken (OpenAI).

Law: every item is bounded by the body's bytes, or unbounded, or refused; one that this node does
not know could be any input, of any account, or tools with a bill of their own.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from routstr.core.dialects.prompt import Prompt, names_no_image
from routstr.core.order import Medium
from routstr.core.unsupported import refuse_file_ids, stored_input
from routstr.errors import InvalidParameter, UnsupportedParameter

INPUT: Final = "input"

# Where each item has its parts, and its own text.
_PARTS: Final[Mapping[str, tuple[str, ...]]] = {
    "message": ("content",),
    "function_call": (),
    "function_call_output": ("output",),
    "custom_tool_call": (),
    "custom_tool_call_output": ("output",),
    "reasoning": ("content", "summary"),
}
_TEXTS: Final = ("name", "arguments", "input", "text", "refusal")
_TEXT_PARTS: Final = (
    *("input_text", "output_text", "text", "refusal", "reasoning_text", "summary_text"),
)
# Parts whose tokens follow from pixels, pages and seconds, which the body's bytes do not bound.
_MEDIA_PARTS: Final[Mapping[str, Medium]] = {
    "input_image": "image_input",
    "input_file": "image_input",
    "input_audio": "audio_input",
}


def prompt_of_input(value: object) -> tuple[Prompt, frozenset[Medium]]:
    """The input's prompt, and the media in it.

    Raises InvalidParameter, and UnsupportedParameter for stored input or what is not known.
    """
    if isinstance(value, str):
        return Prompt(text_bytes=len(value.encode())), frozenset()
    if not isinstance(value, list) or not value:
        raise InvalidParameter("input must be a text or a list of at least one.", param=INPUT)
    prompt, media = Prompt(), set[Medium]()
    for item in value:
        if not isinstance(item, dict):
            raise InvalidParameter("Each of input must be an object.", param=INPUT)
        kind = _kind_of(item)
        prompt += Prompt(is_bounded=_is_whole(kind, item), text_bytes=_text_bytes(item))
        for part in _parts_of(kind, item):
            prompt += Prompt(text_bytes=len(part.encode()) if isinstance(part, str) else 0)
            if isinstance(part, dict):
                prompt += _prompt_of_part(part, media)
    return prompt, frozenset(media)


def _kind_of(item: Mapping[str, object]) -> str:
    kind = item.get("type")
    if kind is None and "role" in item:
        return "message"
    if kind is None or kind == "item_reference":
        raise stored_input(INPUT)
    if not isinstance(kind, str) or kind not in _PARTS:
        raise UnsupportedParameter(
            f"Items of type {kind} are not supported here: nothing bounds what they add.",
            param=INPUT,
        )
    return kind


def _is_whole(kind: str, item: Mapping[str, object]) -> bool:
    """Whether all of the item is here: a thought may be named by its id alone."""
    return kind != "reasoning" or bool(item.get("encrypted_content") or item.get("content"))


def _parts_of(kind: str, item: Mapping[str, object]) -> Iterator[object]:
    """The item's parts, each a text or an object. Raises InvalidParameter for others."""
    for name in _PARTS[kind]:
        value = item.get(name)
        if value is None and kind == "reasoning":
            continue
        parts = [value] if isinstance(value, str) else value
        if not isinstance(parts, list) or not all(isinstance(part, str | dict) for part in parts):
            raise InvalidParameter(f"{name} in input must be a text or a list.", param=INPUT)
        yield from parts


def _prompt_of_part(part: Mapping[str, object], media: set[Medium]) -> Prompt:
    kind = part.get("type")
    refuse_file_ids(part, INPUT)
    medium = _MEDIA_PARTS.get(kind) if isinstance(kind, str) else None
    if medium is not None:
        media.add(medium)
        return Prompt(is_bounded=False, has_files=kind == "input_file" or names_no_image(part))
    if kind not in _TEXT_PARTS:
        raise UnsupportedParameter(
            f"Parts of type {kind} are not supported here: nothing bounds what they add.",
            param=INPUT,
        )
    return Prompt(text_bytes=_text_bytes(part))


def _text_bytes(value: Mapping[str, object]) -> int:
    texts = (value.get(name) for name in _TEXTS)
    return sum(len(text.encode()) for text in texts if isinstance(text, str))
