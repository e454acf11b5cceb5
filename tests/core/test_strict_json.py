"""The quick reader of JSON never differs from the careful one; sources: RFC 8259, RFC 7493."""

import json
from collections.abc import Callable
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routstr.core.strict_json import _read_carefully, _read_quickly, parse_strictly
from routstr.errors import InvalidJson

DEPTH_MAX: Final = 4


class Pairs(dict[str, object]):
    """An object that may be written with one of its keys twice."""


# Small alphabets, so that equal keys, escapes beside quotes and numbers at the limits are common.
texts = st.text(alphabet='ab\\"\u0001é😀{[,:0', max_size=4)
numbers = st.one_of(
    st.integers(-(2**54), 2**54),
    st.sampled_from([2**53 - 1, 2**53, 2**64, -(2**63), 10**30]),
    st.integers(-3, 3),
    st.floats(),
)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3).map(Pairs)
    ),
    max_leaves=8,
)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Objects as a client writes them: spelled in one way or another, sometimes broken."""
    text = _written(draw, Pairs(draw(st.dictionaries(texts, values, max_size=3))))
    body = text.encode(errors="surrogatepass")
    if draw(st.integers(0, 3)) == 0:
        at = draw(st.integers(0, len(body)))
        body = (
            body[:at]
            + draw(st.sampled_from([b"", b"\\", b'"', b"9", b",", b"\xff"]))
            + body[at + 1 :]
        )
    return body


def _written(draw: st.DrawFn, value: object) -> str:
    if isinstance(value, Pairs):
        pairs = list(value.items())
        if pairs and draw(st.integers(0, 4)) == 0:
            pairs.append(draw(st.sampled_from(pairs)))
        space = draw(st.sampled_from(["", " ", "\n"]))
        return (
            f"{{{space}" + ",".join(f"{_text(draw, k)}:{_written(draw, v)}" for k, v in pairs) + "}"
        )
    if isinstance(value, list):
        return "[" + ",".join(_written(draw, each) for each in value) + "]"
    return _text(draw, value) if isinstance(value, str) else json.dumps(value)


def _text(draw: st.DrawFn, text: str) -> str:
    """A string with few escapes, or with all that there are."""
    if draw(st.booleans()):
        return json.dumps(text, ensure_ascii=False)
    units = text.encode("utf-16-be", errors="surrogatepass").hex()
    return '"' + "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4)) + '"'


@given(bodies(), st.integers(1, DEPTH_MAX))
def test_the_quick_reader_never_differs_from_the_careful_one(body: bytes, depth_max: int) -> None:
    careful = _came_to(_read_carefully, body, depth_max)
    assert _came_to(parse_strictly, body, depth_max) == careful


def _came_to(read: Callable[[bytes, int], object], body: bytes, depth_max: int) -> str:
    """What was read, with the types and signs of its numbers, or why it was refused."""
    try:
        return repr(read(body, depth_max))
    except InvalidJson as error:
        return error.message


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":1,"a":2}',
        b'{"a":1,"\\u0061":1}',
        b'{"":[{"\\"":1,"\\u0022":1}]}',
        b'{"a\\\\":1,"a\\\\":"\\\\"}',
        b'{"a":9007199254740992}',
        b'{"a":-9007199254740992}',
        b'{"a":18446744073709551616}',
        b'{"a":1e400}',
        b'{"a":NaN}',
        b'{"a":"\\ud800"}',
        b'{"a":"\xed\xa0\x80"}',
        b'{"a":[[[[1]]]]}',
        b"\xef\xbb\xbf{}",
        b"[]",
        b"",
    ],
)
def test_what_parsers_read_differently_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidJson):
        parse_strictly(body, DEPTH_MAX)


def test_an_ordinary_body_is_read_quickly() -> None:
    body = b'{"model":"m","messages":[{"role":"user","content":"a \\"b\\" \\\\ \\n {[:"}],"n":-0}'
    assert _read_quickly(body, 64) == _read_carefully(body, 64)
