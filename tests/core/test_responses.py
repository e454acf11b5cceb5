import json

import pytest

from routstr.core.dialects import DIALECTS
from routstr.core.order import Order
from routstr.errors import InvalidParameter, UnsupportedParameter

RESPONSES = DIALECTS["/responses"]


def order(**members: object) -> Order:
    said = {"model": "m", "input": "hi", **members}
    given = {name: value for name, value in said.items() if value != "gone"}
    body = json.dumps(given).encode()
    return RESPONSES.parse(body, content_type="application/json", depth_max=64)


def asked(*parts: object) -> list[object]:
    return [{"role": "user", "content": list(parts)}]


def test_an_order_is_read() -> None:
    given = order(
        instructions="12345",
        input=[
            {"role": "user", "content": "123"},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "é"}]},
            {
                "type": "message",
                "role": "assistant",
                "id": "msg_1",
                "content": [{"type": "output_text", "text": "ab", "annotations": []}],
            },
            {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "xxxx"},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "1234"},
            {"type": "custom_tool_call_output", "output": [{"type": "input_text", "text": "a"}]},
        ],
        max_output_tokens=30,
        stream=True,
    )
    assert (given.model_id, given.stream, given.n, given.usage_asked) == ("m", True, 1, True)
    assert (given.output_limit, given.output_limit_field) == (30, "max_output_tokens")
    assert not given.input_unbounded
    assert given.media == frozenset()
    assert given.prompt_text_bytes == 5 + 3 + 2 + 2 + 3 + 4 + 1
    assert given.prompt_bytes == len(json.dumps(given.body, separators=(",", ":"))) - 4  # é


@pytest.mark.parametrize(
    ("items", "media"),
    [
        (asked({"type": "input_image", "image_url": "https://example.org/a.png"}), {"image_input"}),
        (asked({"type": "input_image", "image_url": "data:", "file_id": None}), {"image_input"}),
        (asked({"type": "input_file", "file_data": "data:"}), {"image_input"}),
        (asked({"type": "input_audio", "input_audio": {}}), {"audio_input"}),
        (
            [{"type": "function_call_output", "output": [{"type": "input_image"}]}],
            {"image_input"},
        ),
        ([{"type": "reasoning", "id": "rs_1", "summary": []}], set()),
    ],
)
def test_what_the_body_does_not_bound(items: list[object], media: set[str]) -> None:
    given = order(input=items)
    assert given.input_unbounded
    assert given.media == media


@pytest.mark.parametrize(
    ("members", "param"),
    [
        # dearer, or with a bill of its own
        ({"service_tier": "auto"}, "service_tier"),
        ({"service_tier": "ultrafast"}, "service_tier"),
        ({"background": True}, "background"),
        ({"reasoning": {"mode": "pro"}}, "reasoning.mode"),
        ({"moderation": {"model": "x"}}, "moderation"),
        ({"context_management": [{"type": "compaction"}]}, "context_management"),
        ({"access_programs": {}}, "access_programs"),
        ({"prompt_cache_options": {"ttl": "12h"}}, "prompt_cache_options.ttl"),
        (
            {"input": asked({"type": "input_text", "prompt_cache_breakpoint": {"ttl": "12h"}})},
            "prompt_cache_breakpoint.ttl",
        ),
        # stored, of whatever account
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input"),
        ({"input": [{"id": "msg_1"}]}, "input"),
        ({"input": asked({"type": "input_file", "file_id": "file_1"})}, "input"),
        ({"input": asked({"type": "input_image", "fileId": "file_1"})}, "input"),
        # whatever the API does not have
        ({"n": 2}, "n"),
        ({"max_tokens": 5}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"maxOutputTokens": 5}, "maxOutputTokens"),
        ({"api_key": "x"}, "api_key"),
        ({"image": {}}, "image"),
        # tools that run there
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"tools": [{"type": "file_search", "vector_store_ids": []}]}, "tools"),
        ({"tools": [{"type": "namespace", "tools": []}]}, "tools"),
        ({"tools": [{"name": "f"}]}, "tools"),
        ({"input": [{"type": "additional_tools", "role": "developer", "tools": []}]}, "input"),
        ({"input": [{"type": "web_search_call", "id": "ws_1"}]}, "input"),
        ({"input": [{"type": []}]}, "input"),
        ({"input": asked({"type": "computer_screenshot"})}, "input"),
        ({"input": asked({"type": {}})}, "input"),
    ],
)
def test_what_has_no_price_is_refused(members: dict[str, object], param: str) -> None:
    with pytest.raises(UnsupportedParameter) as refusal:
        order(**members)
    assert refusal.value.param == param


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"model": "gone"}, "model"),
        ({"input": "gone"}, "input"),
        ({"input": []}, "input"),
        ({"input": ["hi"]}, "input"),
        ({"input": [{"role": "user"}]}, "input"),
        ({"input": [{"role": "user", "content": [5]}]}, "input"),
        ({"instructions": ["x"]}, "instructions"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"stream": 1}, "stream"),
        ({"store": "no"}, "store"),
        ({"tools": {}}, "tools"),
        ({"reasoning": "high"}, "reasoning"),
        ({"text": []}, "text"),
    ],
)
def test_what_is_malformed_is_refused(members: dict[str, object], param: str) -> None:
    with pytest.raises(InvalidParameter) as refusal:
        order(**members)
    assert refusal.value.param == param


@pytest.mark.parametrize(
    "members",
    [
        {"service_tier": "default", "background": False, "truncation": "auto"},
        {"reasoning": {"effort": "low", "mode": "standard", "summary": "auto"}},
        {"tools": [{"type": "function", "name": "f"}, {"type": "custom", "name": "g"}]},
        {"include": ["reasoning.encrypted_content"], "parallel_tool_calls": False},
        {"text": {"verbosity": "low"}, "temperature": 0.5, "prompt_cache_options": {"ttl": "30m"}},
        {"previous_response_id": None, "n": None},
    ],
)
def test_what_does_no_harm_passes(members: dict[str, object]) -> None:
    assert order(**members).body.items() >= members.items()


@pytest.mark.parametrize("store", ["gone", True, False, None])
def test_nothing_is_stored_whatever_is_asked(store: object) -> None:
    given = order(store=store, max_output_tokens=500)
    sent = json.loads(RESPONSES.forward_body(given, forwarded_model_id="up", output_limit=40))
    assert sent == {**given.body, "model": "up", "store": False, "max_output_tokens": 40}


def test_a_limit_is_added_where_none_was_given() -> None:
    sent = RESPONSES.forward_body(order(), forwarded_model_id="up", output_limit=40)
    assert json.loads(sent)["max_output_tokens"] == 40
