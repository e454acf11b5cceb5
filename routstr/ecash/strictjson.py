"""The only JSON we read from strangers (RFC 8259): no name twice, no floats, no lone surrogates.

Two parsers that disagree about a text let one party mean what another does not see; so whatever
parsers are known to disagree about is refused.
"""

import json
from typing import NoReturn


class InvalidJson(ValueError):
    """Not JSON that every parser reads alike."""


def decode(text: str) -> object:
    """The value of `text`: dict, list, str, int, bool or None. Raises InvalidJson."""
    try:
        text.encode()
        value: object = json.loads(
            text, object_pairs_hook=_unique, parse_float=_refuse, parse_constant=_refuse
        )
    except (ValueError, RecursionError):  # RecursionError: thousands of opening brackets
        raise InvalidJson("the JSON is malformed") from None
    return value


def is_text(value: object) -> bool:
    r"""Whether this is a string that UTF-8 can carry; JSON's \ud800 alone is not."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise InvalidJson("a name appears twice")
    return fields


def _refuse(_: str) -> NoReturn:
    raise InvalidJson("floats are not accepted")
