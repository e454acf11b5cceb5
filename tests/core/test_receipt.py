import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routstr.core.pricing import Cost, Usage
from routstr.core.receipt import (
    Receipt,
    add_usage,
    changed_within,
    comment_line,
    cost_headers,
    cost_members,
    cost_object,
    splice_cost,
    usage_in,
    usage_object,
)

RECEIPT = Receipt(
    cost=Cost(
        base_msat=4,
        input_msat=100,
        output_msat=100,
        cache_read_msat=3,
        cache_creation_msat=2,
        usage=Usage(input_tokens=9, output_tokens=5, cache_read_tokens=4, cache_creation_tokens=1),
    ),
    estimated=False,
    btc_usd=Decimal("63725.49"),
    remaining_balance_msat=998_796,
)
NO_RATE = Receipt(cost=RECEIPT.cost, estimated=True)
COST = {
    "base_msats": 4,
    "input_msats": 100,
    "output_msats": 100,
    "total_msats": 204,
    "cache_read_msats": 3,
    "cache_creation_msats": 2,
    "total_usd": Decimal("0.00013"),
    "input_tokens": 9,
    "output_tokens": 5,
    "cache_read_input_tokens": 4,
    "cache_creation_input_tokens": 1,
    "estimated": False,
    "remaining_balance_msats": 998_796,
}


def load(data: bytes) -> object:
    return json.loads(data, parse_float=Decimal)


def test_the_cost_object() -> None:
    assert load(cost_object(RECEIPT)) == COST


def test_the_members_of_usage() -> None:
    members = load(b"{" + cost_members(RECEIPT) + b"}")
    assert members == {
        "cost": COST,
        "cost_sats": Decimal("0.204"),
        "remaining_balance_msats": 998_796,
    }


def test_what_is_not_known_is_not_said() -> None:
    members = load(b"{" + cost_members(NO_RATE) + b"}")
    cost = {**COST, "total_usd": None, "estimated": True}
    del cost["remaining_balance_msats"]
    assert members == {"cost": cost, "cost_sats": Decimal("0.204")}
    assert "X-Routstr-Cost-Usd" not in cost_headers(NO_RATE)


def test_the_headers() -> None:
    assert cost_headers(RECEIPT) == {
        "X-Routstr-Cost-Msats": "204",
        "X-Routstr-Input-Cost-Msats": "100",
        "X-Routstr-Output-Cost-Msats": "100",
        "X-Routstr-Cost-Usd": "0.00013",
    }


@pytest.mark.parametrize("change", [None, "cashuBo2F0gaJha"])
def test_the_comment_is_one_line(change: str | None) -> None:
    line = comment_line("req_1", RECEIPT, change)
    assert line.startswith(b": routstr {")
    assert line.endswith(b"}\n\n")
    assert line.count(b"\n") == 2
    said = {"request_id": "req_1", "cost": COST}
    assert load(line[len(b": routstr ") :]) == (said | {"change": change} if change else said)


def test_a_usage_of_ours() -> None:
    assert load(usage_object(RECEIPT.cost.usage)) == {
        "prompt_tokens": 9,
        "completion_tokens": 5,
        "total_tokens": 14,
    }


# ── splicing ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('{"usage":{}}', '{"usage":{C}}'),
        ('{"usage":{"a":1}}', '{"usage":{"a":1,C}}'),
        # blanks stay where they are
        (
            '{ "id" : 1 ,\n "usage" : { "a" : 1 } \r\n}',
            '{ "id" : 1 ,\n "usage" : { "a" : 1,C } \r\n}',
        ),
        ('\n {"usage":{ }}\n', '\n {"usage":{C }}\n'),
        # replaced and dropped
        ('{"usage":{"cost":1.5,"a":1}}', '{"usage":{"a":1,C}}'),
        ('{"usage":{"a":1, "cost":{"x":[1]} , "b":2}}', '{"usage":{"a":1 , "b":2,C}}'),
        ('{"usage":{"a":1,"cost":null}}', '{"usage":{"a":1,C}}'),
        ('{"usage":{"cost":1}}', '{"usage":{C}}'),
        (
            '{"usage":{"cost_details":{"u":1},"cost_sats":2,"remaining_balance_msats":3,"a":1}}',
            '{"usage":{"a":1,C}}',
        ),
        ('{"usage":{"cost":1,"cost":2,"a":1,"cost":3}}', '{"usage":{"a":1,C}}'),
        ('{"usage":{"c\\u006fst":1}}', '{"usage":{C}}'),
        # the last top-level usage object only
        ('{"usage":{"a":1},"usage":{"b":2}}', '{"usage":{"a":1},"usage":{"b":2,C}}'),
        (
            '{"choices":[{"usage":{"cost":1}}],"x":{"usage":{}},"usage":{},"y":"\\"usage\\":{}"}',
            '{"choices":[{"usage":{"cost":1}}],"x":{"usage":{}},"usage":{C},"y":"\\"usage\\":{}"}',
        ),
        ('{"us\\u0061ge":{}}', '{"us\\u0061ge":{C}}'),
        # what looks like it, near the end
        ('{"usage":{},"a\\"usage":{}}', '{"usage":{C},"a\\"usage":{}}'),
        ('{"usage":{},"us\\u0061ge":{"b":2}}', '{"usage":{},"us\\u0061ge":{"b":2,C}}'),
        ('{"usage":{},"x":{"y":1,"usage":{}}}', '{"usage":{C},"x":{"y":1,"usage":{}}}'),
        ('{"usage":{},"x":["y","usage"]}', '{"usage":{C},"x":["y","usage"]}'),
        ('{"usage":{},"x":1}}', '{"usage":{C},"x":1}}'),
        # numbers, unicode and escapes are not rewritten
        (
            '{"n":1.50e+2,"big":123456789012345678901234567890,"s":"ü\\u00fc\\/🎉","usage":{"t":0.10}}',
            '{"n":1.50e+2,"big":123456789012345678901234567890,"s":"ü\\u00fc\\/🎉","usage":{"t":0.10,C}}',
        ),
    ],
)
def test_a_cost_is_spliced_in(before: str, after: str) -> None:
    spliced = splice_cost(before.encode(), b'"cost":9')
    assert spliced.decode() == after.replace("C", '"cost":9')


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"not json",
        b'{"id":1}',
        b'{"usage":null}',
        b'{"usage":{},"usage":null}',
        b'{"usage":[]}',
        b'{"usage":{"a":1}',
        b'{"usage":{"a" 1}}',
        b'{"usage":{"a":1,}}',
        b'{"usage":{} "a":1}',
        b'{"x":\xff,"usage":{}}',
        b'{"x":' + b"[" * 100_000 + b',"usage":{}}',
        b'{"choices":{"usage":{}}}',
    ],
)
def test_what_has_no_usage_is_left_alone(body: bytes) -> None:
    assert splice_cost(body, b'"cost":9') == body


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)
NAMES = st.sampled_from(["cost", "cost_sats", "cost_details", "prompt_tokens", "x", "usage"])


@given(
    st.dictionaries(st.text() | NAMES, JSON, max_size=4),
    st.dictionaries(NAMES, JSON, max_size=5),
    st.sampled_from([None, 1, 3]),
    st.booleans(),
)
def test_a_splice_changes_nothing_else(
    top: dict[str, object], usage: dict[str, object], indent: int | None, ascii_only: bool
) -> None:
    body = {**top, "usage": usage, "after": [top]}
    text = json.dumps(body, indent=indent, ensure_ascii=ascii_only)
    spliced = splice_cost(text.encode(), b'"cost":{"total_msats":1}')
    kept = {name: value for name, value in usage.items() if not name.startswith("cost")}
    assert json.loads(spliced) == {**body, "usage": {**kept, "cost": {"total_msats": 1}}}
    start = next(
        place
        for place, pair in enumerate(zip(text, spliced.decode(), strict=False))
        if pair[0] != pair[1]
    )
    assert '"usage": {' in text[: start + 1]
    end = text.rindex('"after"')
    assert spliced.decode().endswith(text[end:])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('{"id":1,"usage":null ,"x":2}', '{"id":1,"usage":{"t":1} ,"x":2}'),
        ('{"id":1 }', '{"id":1,"usage":{"t":1} }'),
        (" {}", ' {"usage":{"t":1}}'),
        ('{"usage":{"old":1}}', '{"usage":{"t":1}}'),
        ("[]", "[]"),
        ("", ""),
    ],
)
def test_a_usage_is_added(before: str, after: str) -> None:
    assert add_usage(before.encode(), b'{"t":1}').decode() == after


@pytest.mark.parametrize(
    ("body", "usage"),
    [
        (b'{"usage": { "a":1 } }', b'{ "a":1 }'),
        (b'{"usage":null}', None),
        (b"{}", None),
        (b"x", None),
    ],
)
def test_a_usage_is_found(body: bytes, usage: bytes | None) -> None:
    assert usage_in(body) == usage


@pytest.mark.parametrize(
    ("body", "after"),
    [
        ('{"a": { "b":1 }, "c":2}', '{"a": {é}, "c":2}'),
        ('{"é":{},"a":{},"a":{}}', '{"é":{},"a":{},"a":{é}}'),
        ('{"a":null}', None),
        ('{"b":{}}', None),
        ("[]", None),
        ('{"a":{}', None),
    ],
)
def test_a_member_is_changed_alone(body: str, after: str | None) -> None:
    changed = changed_within(body.encode(), "a", lambda _: "{é}".encode())
    assert changed.decode() == (body if after is None else after)
