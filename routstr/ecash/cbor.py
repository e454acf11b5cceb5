"""The only CBOR we read: what a token or a payment request needs (RFC 8949), and nothing more.

cbor2 builds dates, big numbers and regular expressions out of tags; so a byte walk over the shape
comes first, and cbor2 never meets a construct that the walk has not allowed.
"""

from typing import Final

import cbor2

DEPTH_MAX: Final = 8
FIELDS_MAX: Final = 64
"""The most fields of one map: room for unknown ones, none for colliding hashes."""

_BYTES, _TEXT, _ARRAY, _MAP, _TAG, _SIMPLE = 2, 3, 4, 5, 6, 7
_FIRST_SIZED, _LAST_SIZED = 24, 27
_FALSE_TO_UNDEFINED: Final = range(20, 24)


class InvalidCbor(ValueError):
    """Not one complete CBOR value of the allowed kinds."""


def decode(data: bytes) -> object:
    """The value `data` holds: dict, list, str, bytes, int, bool or None. Raises InvalidCbor.

    `undefined`, which some encoders write for an absent field, comes back as None where it is a
    field's value.
    """
    check_shape(data)
    try:
        value: object = cbor2.loads(
            data, max_depth=DEPTH_MAX, allow_indefinite=False, allow_duplicate_keys=False
        )
    except (cbor2.CBORError, TypeError, ValueError):  # duplicate keys, bad UTF-8, odd keys
        raise InvalidCbor("the CBOR is malformed") from None
    return value


def encode(value: object) -> bytes:
    """Definite-length CBOR of plain values, maps in their own order. Raises InvalidCbor."""
    try:
        return cbor2.dumps(value)
    except (cbor2.CBORError, UnicodeEncodeError):  # lone surrogates
        raise InvalidCbor("the value does not fit CBOR") from None


def field(mapping: dict[object, object], name: str) -> object:
    """A field's value; None if it is absent, null or undefined."""
    value = mapping.get(name)
    return None if value is cbor2.undefined else value


def check_shape(data: bytes) -> None:
    """Walk over `data` without building anything, so that nothing unwanted is ever built.

    Depth at most 8, definite lengths, no tags, no floats, one value and nothing behind it. Raises
    InvalidCbor.
    """
    at = 0
    open_counts = [1]  # how many items each open container still wants
    while open_counts:
        if open_counts[-1] == 0:
            open_counts.pop()
            continue
        open_counts[-1] -= 1
        major, argument, at = _head(data, at)
        if major in (_BYTES, _TEXT):
            at += argument
        if major in (_ARRAY, _MAP):
            if argument > (FIELDS_MAX if major == _MAP else len(data) - at):
                raise InvalidCbor("a CBOR container is too large")
            if len(open_counts) > DEPTH_MAX:
                raise InvalidCbor("the CBOR is nested too deep")
            open_counts.append(2 * argument if major == _MAP else argument)
    if at != len(data):
        raise InvalidCbor("the CBOR ends too early or has bytes behind its value")


def _head(data: bytes, at: int) -> tuple[int, int, int]:
    """Major type, argument and where the content starts (RFC 8949 §3)."""
    if at >= len(data):
        raise InvalidCbor("the CBOR ends too early")
    major, info = data[at] >> 5, data[at] & 31
    if info > _LAST_SIZED or major == _TAG:
        raise InvalidCbor("CBOR tags and indefinite lengths are not accepted")
    if major == _SIMPLE and info not in _FALSE_TO_UNDEFINED:
        raise InvalidCbor("CBOR floats and simple values are not accepted")
    if info < _FIRST_SIZED:
        return major, info, at + 1
    size = 1 << (info - _FIRST_SIZED)
    return major, int.from_bytes(data[at + 1 : at + 1 + size]), at + 1 + size
