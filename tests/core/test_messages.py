import json

import pytest

from routstr.core.dialects import DIALECTS
from routstr.core.order import Order
from routstr.core.outcome import Tally
from routstr.core.pricing import NO_COST, Model, Price
from routstr.core.quote import quote_of
from routstr.core.receipt import Receipt
from routstr.errors import InvalidParameter, RoutstrError, UnsupportedParameter

MESSAGES = DIALECTS["/messages"]
COUNT = DIALECTS["/messages/count_tokens"]
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA"}}
FILE = {"type": "document", "source": {"type": "file", "file_id": "file_1"}}
MODEL = Model(
    id="m",
    name="M",
    context_length=200_000,
    max_output_tokens=8_000,
    price=Price(
        version="v1",
        input_msat_per_mtok=3_000_000,
        output_msat_per_mtok=15_000_000,
        request_msat=1_000,
        cache_creation_msat_per_mtok=3_750_000,
        image_input_msat_per_mtok=4_000_000,
    ),
)


def body(**members: object) -> bytes:
    said = {"model": "m", "max_tokens": 10, "messages": [{"role": "user", "content": "hi"}]}
    merged = {**said, **members}
    return json.dumps({name: value for name, value in merged.items() if value != "gone"}).encode()


def order(**members: object) -> Order:
    return MESSAGES.parse(body(**members), content_type="application/json", depth_max=64)


def asked(*blocks: object) -> list[dict[str, object]]:
    return [{"role": "user", "content": list(blocks)}]


def tool(**members: object) -> list[object]:
    return [{"name": "f", "input_schema": {"type": "object"}, **members}]


def test_an_order_is_read() -> None:
    given = order(
        system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        messages=[
            {"role": "user", "content": "12345"},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "abc", "signature": "s" * 90},
                    {"type": "redacted_thinking", "data": ""},
                    {"type": "tool_use", "id": "t", "name": "f", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "t", "content": "1234"},
                    {"type": "tool_result", "content": [{"type": "text", "text": "12"}]},
                    {"type": "document", "source": {"type": "text", "data": "é"}},
                    {"type": "search_result", "source": "u", "title": "t", "content": []},
                ],
            },
        ],
        stream=True,
    )
    assert (given.model_id, given.stream, given.n) == ("m", True, 1)
    assert (given.output_limit, given.output_limit_field) == (10, "max_tokens")
    assert not given.input_unbounded
    assert given.media == frozenset()
    assert (
        given.prompt_bytes == len(json.dumps(given.body, separators=(",", ":"))) - 4
    )  # é: 2 for 6
    assert given.prompt_text_bytes == 9 + 5 + (3 + 1 + 2) + (4 + 2 + 2 + 2)


CITED = {"citations": {"enabled": True}}
TEXT = {"type": "text", "media_type": "text/plain", "data": "A. B. C."}


@pytest.mark.parametrize(
    ("block", "is_bounded"),
    [
        ({"type": "document", "source": TEXT, **CITED}, False),
        ({"type": "search_result", "source": "u", "title": "t", "content": [], **CITED}, False),
        ({"type": "document", "source": TEXT, "citations": {"enabled": False}}, True),
        ({"type": "document", "source": TEXT, "citations": None}, True),
        ({"type": "text", "text": "a", "citations": [{"type": "char_location"}]}, True),
    ],
)
def test_what_is_cited_is_numbered_by_the_sentence(
    block: dict[str, object], is_bounded: bool
) -> None:
    assert order(messages=asked(block)).input_unbounded is not is_bounded


@pytest.mark.parametrize(
    "block",
    [
        IMAGE,
        {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}},
        {"type": "document", "source": {"type": "base64", "data": "AA"}},
        {"type": "tool_result", "tool_use_id": "t", "content": [IMAGE]},
        {"type": "document", "source": {"type": "content", "content": [IMAGE]}},
    ],
)
def test_media_are_quoted_at_the_whole_context(block: dict[str, object]) -> None:
    given = order(messages=asked(block))
    assert given.input_unbounded
    assert given.media == {"image_input"}
    assert given.has_files is ('"base64", "data": "AA"}' in json.dumps(block))
    quote = quote_of(given, MODEL)
    assert quote.input_tokens_max == MODEL.context_length
    assert quote.prompt_rate_msat == 4_000_000


@pytest.mark.parametrize(
    ("members", "param"),
    [
        # dearer, or with a bill of its own
        ({"service_tier": "auto"}, "service_tier"),
        ({"service_tier": "priority"}, "service_tier"),
        ({"speed": "fast"}, "speed"),
        ({"inference_geo": "us"}, "inference_geo"),
        ({"container": "c_1"}, "container"),
        ({"mcp_servers": []}, "mcp_servers"),
        ({"context_management": {"edits": [{"type": "compact_20260112"}]}}, "context_management"),
        ({"context_management": {"edits": [], "compact": {}}}, "context_management"),
        ({"context_management": []}, "context_management"),
        ({"fallbacks": []}, "fallbacks"),
        ({"betas": ["context-1m-2025-08-07"]}, "betas"),
        ({"anthropic_beta": []}, "anthropic_beta"),
        # whatever the API does not have
        ({"n": 2}, "n"),
        ({"max_completion_tokens": 5}, "max_completion_tokens"),
        ({"user_profile_id": "x"}, "user_profile_id"),
        ({"api_key": "x"}, "api_key"),
        ({"maxTokens": 5}, "maxTokens"),
        ({"Thinking": {}}, "Thinking"),
        # tools that run there
        ({"tools": tool(type="web_search_20250305")}, "tools"),
        ({"tools": tool(type="web_fetch_20250910")}, "tools"),
        ({"tools": tool(type="code_execution_20250825")}, "tools"),
        ({"tools": tool(type="tool_search_tool_regex_20251119")}, "tools"),
        ({"tools": tool(type="mcp_toolset")}, "tools"),
        ({"tools": tool(type="computer_use")}, "tools"),
        ({"tools": tool(type="custom", Type="web_search_20250305")}, "tools"),
        ({"tools": tool(type=None)}, "tools"),
        ({"tools": ["web_search"]}, "tools"),
        # stored or unknown input
        ({"messages": asked(FILE)}, "messages"),
        ({"messages": asked({"type": "tool_result", "content": [FILE]})}, "messages"),
        ({"messages": asked({"type": "container_upload", "file_id": "f"})}, "messages"),
        ({"messages": asked({"type": "text", "text": "", "fileId": "f"})}, "messages"),
        ({"messages": asked({"type": "image", "source": {"type": "s3"}})}, "messages"),
        ({"messages": asked({"type": "web_search_tool_result", "content": []})}, "messages"),
        ({"messages": asked({"type": "compaction", "content": "x"})}, "messages"),
        ({"system": [{**FILE}]}, "system"),
        ({"messages": asked({"type": []})}, "messages"),
        ({"messages": asked({"type": "image", "source": {"type": {}}})}, "messages"),
        ({"context_management": {"edits": [{"type": []}]}}, "context_management"),
        # caches that live longer than their price
        ({"cache_control": {"type": "ephemeral", "ttl": "1h"}}, "cache_control.ttl"),
        ({"tools": tool(cache_control={"type": "ephemeral", "ttl": "1h"})}, "cache_control.ttl"),
        (
            {"messages": asked({"type": "text", "text": "", "cacheControl": {"TTL": "24h"}})},
            "cacheControl.TTL",
        ),
    ],
)
def test_what_has_no_price_is_refused(members: dict[str, object], param: str) -> None:
    with pytest.raises(UnsupportedParameter) as refusal:
        order(**members)
    assert refusal.value.param == param


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"max_tokens": "gone"}, "max_tokens"),
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": "5"}, "max_tokens"),
        ({"model": "gone"}, "model"),
        ({"messages": "gone"}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": ["hi"]}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages"),
        ({"messages": asked("hi")}, "messages"),
        ({"messages": asked({"type": "image"})}, "messages"),
        ({"system": 5}, "system"),
        ({"stream": "yes"}, "stream"),
        ({"tools": {}}, "tools"),
        ({"thinking": 5}, "thinking"),
        ({"output_config": []}, "output_config"),
    ],
)
def test_what_is_malformed_is_refused(members: dict[str, object], param: str) -> None:
    with pytest.raises(InvalidParameter) as refusal:
        order(**members)
    assert refusal.value.param == param


@pytest.mark.parametrize(
    "members",
    [
        {"service_tier": "standard_only", "speed": "standard", "inference_geo": "global"},
        {"cache_control": {"type": "ephemeral", "ttl": "5m"}},
        {"messages": asked({"type": "tool_use", "input": {"ttl": "1h", "file_id": "mine"}})},
        {"tools": tool(type="custom", cache_control={"type": "ephemeral"})},
        {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}},
        {"temperature": 0.5, "top_k": 3, "top_p": 1, "stop_sequences": ["x"], "metadata": {}},
        {"context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}},
        {"container": None, "mcp_servers": None, "n": None},
    ],
)
def test_what_does_no_harm_passes(members: dict[str, object]) -> None:
    assert order(**members).body.items() >= members.items()


def test_a_tool_that_the_api_describes_has_room_in_the_quote() -> None:
    plain, own = order(tools=tool()), order(tools=tool(type="text_editor_20250728"))
    assert own.prompt_bytes >= plain.prompt_bytes + 2_048
    assert plain.has_tools
    assert not order().has_tools


def test_unknown_members_of_a_message_bound_nothing() -> None:
    message = {"role": "user", "content": "hi", "attachment": "x"}
    assert order(messages=[message]).input_unbounded
    assert not order(messages=[{**message, "attachment": None}]).input_unbounded


def budget(tokens: int) -> dict[str, object]:
    return {"type": "enabled", "budget_tokens": tokens}


@pytest.mark.parametrize(
    ("thinking", "limit", "expected"),
    [
        (None, 500, None),
        ({"type": "adaptive"}, 500, {"type": "adaptive"}),
        (budget(1_024), 2_000, budget(1_024)),
        (budget(3_000), 2_000, budget(1_999)),
        (budget(3_000), 1_024, {"type": "disabled"}),
    ],
)
def test_a_lowered_limit_lowers_the_thinking(
    thinking: object, limit: int, expected: object
) -> None:
    given = order(max_tokens=5_000, thinking=thinking, stream=True)
    sent = json.loads(MESSAGES.forward_body(given, forwarded_model_id="up", output_limit=limit))
    assert (sent["model"], sent["max_tokens"], sent["thinking"]) == ("up", limit, expected)
    left = json.loads(MESSAGES.forward_body(given, forwarded_model_id="up"))
    assert left == {**given.body, "model": "up"}


# ── counting costs nothing ────────────────────────────────────────────────────────────────────


def count(**members: object) -> Order:
    given = body(max_tokens="gone", **members)
    return COUNT.parse(given, content_type="application/json", depth_max=64)


def test_a_count_is_quoted_at_nothing() -> None:
    given = count(messages=asked(IMAGE), system="s", tools=tool())
    quote = quote_of(given, MODEL)
    assert (quote.total_msat, quote.minimum_msat, quote.output_limit) == (0, 0, 0)
    assert json.loads(COUNT.forward_body(given, forwarded_model_id="up"))["model"] == "up"


@pytest.mark.parametrize("members", [{"max_tokens": 5}, {"stream": True}, {"mcp_servers": []}])
def test_a_count_takes_no_more_than_what_is_counted(members: dict[str, object]) -> None:
    with pytest.raises(RoutstrError) as refusal:
        COUNT.parse(body(**{"max_tokens": "gone"} | members), content_type="", depth_max=64)
    assert refusal.value.code == "unsupported_parameter"


def test_a_count_has_used_nothing_whatever_it_says() -> None:
    given = count()
    said = b'{"input_tokens":14,"content":[{"type":"text","text":"a"}],"usage":{"output_tokens":5}}'
    tally = COUNT.meter_body(said, order=given, content_type="", usage_cap=10)
    assert tally == Tally(done_seen=True, finish_seen=True)
    assert COUNT.with_cost(said, Receipt(cost=NO_COST, estimated=False)) == said
    for bad in (b"x", b'{"type":"error","error":{}}'):
        tally = COUNT.meter_body(bad, order=given, content_type="", usage_cap=10)
        assert tally.malformed_events or tally.error_seen
