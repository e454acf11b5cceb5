import json
import re
from collections.abc import Callable

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routstr.core.order import Order
from routstr.core.strict_json import parse_json_object
from routstr.errors import InvalidJson, InvalidParameter
from tests.core.ordering import forward_body, parse_chat_order

OrderOf = Callable[..., Order]


# ── JSON ──────────────────────────────────────────────────────────────────────────────────────


def nested(depth: int, opening: str = "[", closing: str = "]") -> bytes:
    """An object of `depth` levels."""
    return f'{{"a":{opening * (depth - 1)}{closing * (depth - 1)}}}'.encode()


ATTACKS = {
    "empty": (b"", "valid JSON"),
    "no json": (b"model=x", "valid JSON"),
    "trailing": (b"{} {}", "valid JSON"),
    "trailing comma": (b'{"a":1,}', "valid JSON"),
    "single quotes": (b"{'a':1}", "valid JSON"),
    "comment": (b'{"a":1} // x', "valid JSON"),
    "byte order mark": (b"\xef\xbb\xbf{}", "valid JSON"),
    "control character": (b'{"a":"\x00"}', "valid JSON"),
    "leading zero": (b'{"a":01}', "valid JSON"),
    "plus": (b'{"a":+1}', "valid JSON"),
    "hexadecimal": (b'{"a":0x10}', "valid JSON"),
    "wide digits": ('{"a":\uff11}'.encode(), "valid JSON"),
    "cut": (b'{"a":"b', "valid JSON"),
    "utf-16": ('{"a":1}'.encode("utf-16"), "UTF-8"),
    "latin-1": (b'{"a":"\xe9"}', "UTF-8"),
    "overlong": (b'{"a":"\xc0\xaf"}', "UTF-8"),
    "surrogate bytes": (b'{"a":"\xed\xa0\x80"}', "UTF-8"),
    "list": (b"[]", "object"),
    "string": (b'"a"', "object"),
    "null": (b"null", "object"),
    "same key": (b'{"model":"a","model":"b"}', "twice"),
    "same key, escaped": (b'{"model":"a","mod\\u0065l":"b"}', "twice"),
    "same key, inside": (b'{"a":[{"b":{"c":1,"c":1}}]}', "twice"),
    "NaN": (b'{"a":NaN}', "NaN"),
    "Infinity": (b'{"a":Infinity}', "Infinity"),
    "-Infinity": (b'{"a":-Infinity}', "-Infinity"),
    "2^53": (b'{"a":9007199254740992}', "2^53"),
    "-2^53": (b'{"a":[-9007199254740992]}', "2^53"),
    "2^64": (b'{"a":18446744073709551616}', "2^53"),
    "5000 digits": (b'{"a":' + b"9" * 5_000 + b"}", "2^53"),
    "overflow": (b'{"a":1e999}', "too large"),
    "-overflow": (b'{"a":-1.5E+400}', "too large"),
    "lone surrogate": (b'{"a":"\\ud800"}', "surrogate"),
    "lone low surrogate": (b'{"a":"x\\udc00"}', "surrogate"),
    "surrogates in a key": (b'{"\\udc00\\ud800":1}', "surrogate"),
    "65 lists": (nested(65), "deeper than 64"),
    "65 objects": (nested(65, '{"a":', "}").replace(b":}", b":{}}"), "deeper than 64"),
    "a million lists": (b"[" * 1_000_000, "deeper than 64"),
    "a million objects": (b'{"a":' * 1_000_000, "deeper than 64"),
    "900 lists": (nested(900), "deeper than 64"),
}


@pytest.mark.parametrize(("body", "word"), ATTACKS.values(), ids=ATTACKS.keys())
def test_what_another_parser_could_read_differently_is_refused(body: bytes, word: str) -> None:
    with pytest.raises(InvalidJson, match=word.replace("^", r"\^")) as refusal:
        parse_json_object(body)
    assert (refusal.value.status, refusal.value.code) == (400, "invalid_json")
    assert len(refusal.value.message) < 120


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b" {} \r\n", {}),
        (b'{"a":9007199254740991,"b":-9007199254740991}', {"a": 2**53 - 1, "b": 1 - 2**53}),
        (b'{"a":0.7,"b":1e2,"c":-0.0}', {"a": 0.7, "b": 100.0, "c": 0.0}),
        (b'{"a":"\\ud83c\\udf89 \\u0000"}', {"a": "🎉 \0"}),
        (b'{"a":{"x":1},"b":{"x":1}}', {"a": {"x": 1}, "b": {"x": 1}}),
        (b'{"":"","a":[true,false,null]}', {"": "", "a": [True, False, None]}),
    ],
)
def test_what_every_parser_reads_alike_passes(body: bytes, value: object) -> None:
    assert parse_json_object(body) == value


def test_depth_counts_from_the_object() -> None:
    assert parse_json_object(nested(64))
    assert parse_json_object(nested(3), depth_max=3)
    with pytest.raises(InvalidJson, match="deeper than 2"):
        parse_json_object(nested(3), depth_max=2)
    with pytest.raises(InvalidJson, match="deeper than 2"):
        parse_chat_order(nested(3), depth_max=2)


@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode()))
def test_no_bytes_raise_anything_else(body: bytes) -> None:
    for wrapped in (body, b'{"a":' + body + b"}", b'{"messages":[{"content":' + body + b"}]}"):
        try:
            parse_chat_order(wrapped)
        except (InvalidJson, InvalidParameter):
            continue


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(1 - 2**53, 2**53 - 1) | st.text() | st.just(0.5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), JSON, max_size=4), st.booleans())
def test_sane_objects_are_read_exactly(value: dict[str, object], ascii_only: bool) -> None:
    assert parse_json_object(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


# ── orders ────────────────────────────────────────────────────────────────────────────────────


def test_an_order_by_default(order_of: OrderOf) -> None:
    order = order_of()
    assert (order.model_id, order.stream, order.usage_asked, order.n) == ("m", False, False, 1)
    assert (order.output_limit, order.output_limit_field) == (None, None)
    assert (order.has_tools, order.input_unbounded) == (False, False)
    assert order.prompt_text_bytes == 2
    assert order.prompt_bytes == len(b'{"model":"m","messages":[{"role":"user","content":"hi"}]}')
    assert "hi" not in repr(order)


def test_prompt_bytes_do_not_depend_on_the_clients_spelling() -> None:
    tight = b'{"model":"m","messages":[{"content":"\xc3\xbc"}]}'
    loose = b'{ "model" : "\\u006d",\n"messages": [ {"content": "\\u00fc"} ] }'
    assert (
        parse_chat_order(tight).prompt_bytes == parse_chat_order(loose).prompt_bytes == len(tight)
    )


@pytest.mark.parametrize(
    ("members", "limit", "field"),
    [
        ({"max_tokens": 5}, 5, "max_tokens"),
        ({"max_completion_tokens": 6}, 6, "max_completion_tokens"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, 6, "max_completion_tokens"),
        ({"max_tokens": 7, "max_completion_tokens": 6}, 7, "max_tokens"),
        ({"max_tokens": None, "max_completion_tokens": 6}, 6, "max_completion_tokens"),
        ({"max_tokens": None}, None, None),
    ],
)
def test_the_larger_limit_counts(
    members: dict[str, object], limit: int | None, field: str | None, order_of: OrderOf
) -> None:
    order = order_of(**members)
    assert (order.output_limit, order.output_limit_field) == (limit, field)


@pytest.mark.parametrize(
    ("members", "asked"),
    [
        ({"stream": True}, False),
        ({"stream": True, "stream_options": None}, False),
        ({"stream": True, "stream_options": {}}, False),
        ({"stream": True, "stream_options": {"include_usage": None}}, False),
        ({"stream": True, "stream_options": {"include_usage": True}}, True),
        ({"stream": False, "stream_options": {"include_usage": True}}, False),
    ],
)
def test_asking_for_usage(members: dict[str, object], asked: bool, order_of: OrderOf) -> None:
    assert order_of(**members).usage_asked is asked


WRONG: dict[str, list[object]] = {
    "model": [None, "", 1, ["m"], "x" * 257],
    "messages": [None, [], {}, "hi", [1], [{}, None]],
    "stream": [1, 0, "true", []],
    "stream_options": [True, [], "x"],
    "n": [0, -1, 129, True, 1.0, "1"],
    "max_tokens": [0, -1, True, 5.0, "5", []],
    "max_completion_tokens": [0, False, 1e3],
    "tools": [{}, "x", 1],
    "functions": [{}, "x", True],
}


@pytest.mark.parametrize(
    ("param", "value"), [(param, value) for param, values in WRONG.items() for value in values]
)
def test_wrong_values_are_named(param: str, value: object, order_of: OrderOf) -> None:
    with pytest.raises(InvalidParameter) as refusal:
        order_of(**{param: value})
    assert refusal.value.param == param
    assert refusal.value.status == 400


@pytest.mark.parametrize("value", [1, "true", []])
def test_a_wrong_stream_option_is_named(value: object, order_of: OrderOf) -> None:
    with pytest.raises(InvalidParameter) as refusal:
        order_of(stream_options={"include_usage": value})
    assert refusal.value.param == "stream_options.include_usage"


@pytest.mark.parametrize("n", [1, 128, None])
def test_numbers_of_choices(n: int | None, order_of: OrderOf) -> None:
    assert order_of(n=n).n == (n or 1)


@pytest.mark.parametrize(
    ("members", "has_tools"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, True),
        ({"functions": [{"name": "f"}]}, True),
        ({"tools": [], "functions": None}, False),
    ],
)
def test_tools(members: dict[str, object], has_tools: bool, order_of: OrderOf) -> None:
    order = order_of(**members)
    assert order.has_tools is has_tools
    assert (order.prompt_text_bytes > 2) is has_tools


TEXT = {"type": "text", "text": "hé"}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


@pytest.mark.parametrize(
    ("message", "unbounded", "text_bytes"),
    [
        ({"content": "hé"}, False, 3),
        ({"content": None}, False, 0),
        ({"content": []}, False, 0),
        ({"content": [TEXT, TEXT, "hé"]}, False, 9),
        ({"content": [{**TEXT, "cache_control": {"type": "ephemeral"}}]}, False, 3),
        ({"content": [{"type": "refusal", "refusal": "no"}]}, False, 0),
        ({"content": "x", "reasoning_content": "y", "audio": None}, False, 1),
        ({"content": [TEXT, IMAGE]}, True, 3),
        ({"content": [{"type": "input_audio"}]}, True, 0),
        ({"content": [{"type": "file", "file": {"file_data": "f"}}]}, True, 0),
        ({"content": [{"text": "no type"}]}, True, 7),
        ({"content": [{**TEXT, "Image_url": {"url": "u"}}]}, True, 3),
        ({"content": [{"type": "text", "text": 1}, 5]}, True, 0),
        ({"content": {"type": "text"}}, True, 0),
        ({"content": "x", "audio": {"data": "a"}}, True, 1),
        ({"content": "x", "Content": "y"}, True, 1),
        ({"content": "x", "file_ids": []}, True, 1),
    ],
)
def test_how_much_prompt_a_message_is(
    message: dict[str, object], unbounded: bool, text_bytes: int, order_of: OrderOf
) -> None:
    order = order_of(messages=[{"role": "user", "content": "1"}, {"role": "user", **message}])
    assert order.input_unbounded is unbounded
    assert order.prompt_text_bytes == text_bytes + 1


def test_tool_calls_are_prompt(order_of: OrderOf) -> None:
    calls = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    order = order_of(messages=[{"role": "assistant", "tool_calls": calls}])
    assert order.prompt_text_bytes == len(json.dumps(calls, separators=(",", ":")))
    assert not order.input_unbounded


# ── what is forwarded ─────────────────────────────────────────────────────────────────────────


def forwarded(order: Order, output_limit: int | None = None) -> dict[str, object]:
    body: dict[str, object] = json.loads(
        forward_body(order, forwarded_model_id="vendor/x", output_limit=output_limit)
    )
    return body


def test_everything_else_is_forwarded_as_ordered(order_of: OrderOf) -> None:
    order = order_of(temperature=0.7, seed=5, user="ü", response_format={"type": "json_object"})
    assert forwarded(order) == {**order.body, "model": "vendor/x"}


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({}, {"max_completion_tokens": 20}),
        ({"max_tokens": 50}, {"max_tokens": 20}),
        ({"max_completion_tokens": 50}, {"max_completion_tokens": 20}),
        (
            {"max_tokens": 50, "max_completion_tokens": 10},
            {"max_tokens": 20, "max_completion_tokens": 10},
        ),
        ({"max_tokens": None}, {"max_tokens": None, "max_completion_tokens": 20}),
        ({"max_tokens": 5}, {"max_tokens": 5}),
    ],
)
def test_a_lowered_limit_is_injected(
    given: dict[str, object], sent: dict[str, object], order_of: OrderOf
) -> None:
    body = forwarded(order_of(**given), 20)
    assert {name: value for name, value in body.items() if name.startswith("max_")} == sent


@pytest.mark.parametrize(
    "options",
    [None, {}, {"include_usage": False}, {"include_usage": True, "Include-Usage": False}],
)
def test_a_stream_always_asks_for_usage(
    options: dict[str, object] | None, order_of: OrderOf
) -> None:
    body = forwarded(order_of(stream=True, stream_options=options))
    assert body["stream_options"] == {"include_usage": True}


def test_other_stream_options_stay(order_of: OrderOf) -> None:
    order = order_of(stream=True, stream_options={"include_obfuscation": False})
    sent = {"include_obfuscation": False, "include_usage": True}
    assert forwarded(order)["stream_options"] == sent
    assert order.body["stream_options"] == {"include_obfuscation": False}


def test_no_stream_asks_for_nothing(order_of: OrderOf) -> None:
    assert "stream_options" not in forwarded(order_of())


@pytest.mark.parametrize(
    ("part", "has_files"),
    [
        ({"type": "file", "file": {"file_data": "data:application/pdf;base64,AA"}}, True),
        ({"type": "document_url", "document_url": "https://a.example/b.pdf"}, True),
        ({"type": "image_url", "image_url": {"url": "DATA:application/pdf;base64,AA"}}, True),
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}, False),
        ({"type": "image_url", "image_url": "https://a.example/b.png"}, False),
        ({"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}, False),
        ({"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AA"}}, False),
        ({"type": "text", "text": "a"}, False),
    ],
)
def test_documents_are_known(part: dict[str, object], has_files: bool, order_of: OrderOf) -> None:
    given = order_of(messages=[{"role": "user", "content": [part]}])
    assert given.has_files is has_files


def test_tools_are_bounded_however_a_template_writes_them(order_of: OrderOf) -> None:
    function = {"name": "f", "enum": [1, [2, {"a": ["é" * 9]}]] * 99}
    given = order_of(tools=[{"type": "function", "function": function}])
    rest = len(orjson.dumps({**given.body, "tools": None})) - len("null")
    for is_ascii in (True, False):
        written = json.dumps(given.body["tools"], indent=4, ensure_ascii=is_ascii)
        shortest = re.sub(r"\n *", "\n ", written)  # an indent is one token, however wide
        assert given.prompt_bytes - rest >= len(shortest.encode())
