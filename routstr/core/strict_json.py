"""JSON that every parser reads the same (RFC 8259, RFC 7493), or none at all.

Laws: what is forwarded is our serialisation of what was judged, never the client's bytes. The quick
reader only saves time: what it cannot vouch for, the careful one judges, and they never differ.
"""

import json
from math import isinf
from typing import Final

import orjson

from routstr.errors import InvalidJson

JSON_DEPTH_MAX: Final = 64


def parse_json_object(body: bytes, *, depth_max: int = JSON_DEPTH_MAX) -> dict[str, object]:
    """The JSON object in `body`, if every parser reads the same in it (RFC 8259, RFC 7493).

    Raises InvalidJson for what is no UTF-8, no object, or read differently elsewhere: a key given
    twice, NaN and infinities, integers beyond 2^53 - 1, lone surrogates, depth over `depth_max`.
    """
    value, _ = parse_strictly(body, depth_max)
    return value


def parse_strictly(body: bytes, depth_max: int) -> tuple[dict[str, object], bytes]:
    """The object and our serialisation of it. Raises as `parse_json_object`."""
    return _read_quickly(body, depth_max) or _read_carefully(body, depth_max)


# ── quickly: a fast parser, and proofs that it took nothing for something else ────────────────

_DIGITS: Final = bytes(ord("0") if byte in b"0123456789" else ord(" ") for byte in range(256))
_LONG_NUMBER: Final = b"0" * 16  # 2^53 has so many digits


def _read_quickly(body: bytes, depth_max: int) -> tuple[dict[str, object], bytes] | None:
    """What the body holds if that is beyond doubt; None for all else, valid or not."""
    if _LONG_NUMBER in body.translate(_DIGITS):
        return None
    try:
        value: object = orjson.loads(body)
        if not isinstance(value, dict):
            return None
        serialised = orjson.dumps(value, option=orjson.OPT_STRICT_INTEGER)
    except (orjson.JSONDecodeError, TypeError):
        return None
    # The parser keeps the last of equal keys. Each that it dropped took two quotes along, so
    # there was none if as many are left as there were.
    if _quotes(body) != _quotes(serialised):
        return None
    if serialised.count(b"{") + serialised.count(b"[") > depth_max:
        _refuse_depth(value, depth_max)
    return value, serialised


def _quotes(json_text: bytes) -> int:
    """How many quotes begin or end a string in valid JSON."""
    if b"\\" in json_text:
        json_text = json_text.replace(rb"\\", b"").replace(rb"\"", b"")
    return json_text.count(b'"')


# ── carefully: every pair and number passes through our hands ─────────────────────────────────


def _read_carefully(body: bytes, depth_max: int) -> tuple[dict[str, object], bytes]:
    try:
        value: object = _DECODER.decode(body.decode())
    except UnicodeDecodeError as error:
        raise InvalidJson("The request body is not valid UTF-8.") from error
    except json.JSONDecodeError as error:
        raise InvalidJson(
            f"The request body is not valid JSON: {error.msg} at character {error.pos}."
        ) from error
    except RecursionError as error:
        raise InvalidJson(f"The request body is nested deeper than {depth_max}.") from error
    except ValueError as error:  # the interpreter's limit of digits, far beyond 2^53
        raise InvalidJson(_TOO_LARGE) from error
    if not isinstance(value, dict):
        raise InvalidJson("The request body must be a JSON object.")
    _refuse_depth(value, depth_max)
    return value, _serialised(value)


_TOO_LARGE: Final = "The request body holds an integer beyond 2^53 - 1 or a lone surrogate."


def _serialised(value: dict[str, object]) -> bytes:
    try:
        return orjson.dumps(value, option=orjson.OPT_STRICT_INTEGER)
    except TypeError as error:
        raise InvalidJson(_TOO_LARGE) from error


def _refuse_depth(value: dict[str, object], depth_max: int) -> None:
    """Walk the containers level by level: no recursion that a body could exhaust."""
    level: list[dict[str, object] | list[object]] = [value]
    for _ in range(depth_max):
        level = [
            child
            for container in level
            for child in (container.values() if isinstance(container, dict) else container)
            if type(child) is dict or type(child) is list  # both exactly: parsers make no others
        ]
        if not level:
            return
    raise InvalidJson(f"The request body is nested deeper than {depth_max}.")


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise InvalidJson("An object in the request body has the same key twice.")
    return value


def _finite(text: str) -> float:
    number = float(text)  # inexact: JSON has such numbers; none of them is money
    if isinf(number):
        raise InvalidJson("The request body holds a number too large for a double.")
    return number


def _no_constant(text: str) -> object:
    raise InvalidJson(f"The request body holds {text}, which is not JSON.")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_unique_keys, parse_float=_finite, parse_constant=_no_constant
)
