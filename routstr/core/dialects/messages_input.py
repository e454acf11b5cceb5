"""How much prompt the blocks of a message are, and which of them are not taken (Anthropic).

Law: every block is bounded by the body's bytes, or unbounded, or refused; a block that this node
does not know could be any input, of any account, so it is refused.
"""

from collections.abc import Iterator, Mapping
from typing import Final

import orjson

from routstr.core.dialects.prompt import Prompt, names_no_image
from routstr.core.unsupported import refuse_file_ids
from routstr.errors import InvalidParameter, UnsupportedParameter

_MESSAGE_FIELDS: Final = frozenset({"role", "content"})
_TEXT_FIELDS: Final = ("text", "thinking", "title", "context", "source", "data", "name")
# What is made of text alone, where its text may be among `_TEXT_FIELDS`.
_TEXT_BLOCKS: Final = (
    *("text", "thinking", "redacted_thinking", "tool_use", "tool_result", "search_result"),
)
_MEDIA_BLOCKS: Final = ("image", "document")
_TEXT_SOURCES: Final = ("text", "content")
_MEDIA_SOURCES: Final = ("base64", "url")


def prompt_of_messages(value: object) -> Prompt:
    """The messages' prompt. Raises InvalidParameter, and UnsupportedParameter for stored input."""
    if not isinstance(value, list) or not value:
        raise InvalidParameter("messages must be a list of at least one.", param="messages")
    prompt = Prompt()
    for message in value:
        if not isinstance(message, dict):
            raise InvalidParameter("Each of messages must be an object.", param="messages")
        is_known = all(message[name] is None for name in message.keys() - _MESSAGE_FIELDS)
        prompt += Prompt(is_bounded=is_known)
        prompt += prompt_of_content(message.get("content"), "messages")
    return prompt


def prompt_of_content(value: object, param: str) -> Prompt:
    """The prompt in a string or a list of blocks. Raises as `prompt_of_messages`."""
    if isinstance(value, str):
        return Prompt(text_bytes=len(value.encode()))
    if not isinstance(value, list):
        raise InvalidParameter(f"content in {param} must be a string or a list.", param=param)
    prompt = Prompt()
    for block in value:
        if not isinstance(block, dict):
            raise InvalidParameter(f"Each block in {param} must be an object.", param=param)
        prompt += _prompt_of_block(block, param)
    return prompt


def _prompt_of_block(block: Mapping[str, object], param: str) -> Prompt:
    kind = block.get("type")
    refuse_file_ids(block, param)
    prompt = Prompt(is_bounded=not _is_cited(block), text_bytes=sum(_texts(block)))
    if kind in _MEDIA_BLOCKS:
        return prompt + _prompt_of_source(block.get("source"), kind, param)
    if kind not in _TEXT_BLOCKS:
        raise UnsupportedParameter(
            f"Blocks of type {kind} are not supported here: nothing bounds what they add.",
            param=param,
        )
    if kind == "tool_use":
        return prompt + Prompt(text_bytes=len(orjson.dumps(block.get("input"))))
    inner = block.get("content")
    return prompt if inner is None else prompt + prompt_of_content(inner, param)


def _is_cited(block: Mapping[str, object]) -> bool:
    """Whether the API may number every sentence of it, which can take more than the sentence."""
    citations = block.get("citations")
    return isinstance(citations, dict) and citations.get("enabled") is not False


def _prompt_of_source(source: object, block_kind: object, param: str) -> Prompt:
    """Media: their tokens follow from pixels and pages, which the body's bytes do not bound."""
    if not isinstance(source, dict):
        raise InvalidParameter(f"source in {param} must be an object.", param=param)
    kind = source.get("type")
    refuse_file_ids(source, param)
    if kind in _MEDIA_SOURCES:
        is_image = block_kind == "image" and not names_no_image(source)
        return Prompt(is_bounded=False, has_files=not is_image)
    if kind not in _TEXT_SOURCES:
        raise UnsupportedParameter(
            f"A source of type {kind} is not supported here: nothing bounds what it adds.",
            param=param,
        )
    prompt = Prompt(text_bytes=sum(_texts(source)))
    return prompt + prompt_of_content(source["content"], param) if "content" in source else prompt


def _texts(block: Mapping[str, object]) -> Iterator[int]:
    for name in _TEXT_FIELDS:
        text = block.get(name)
        if isinstance(text, str):
            yield len(text.encode())
