from collections.abc import Callable

import pytest

from routstr.core.order import Order
from routstr.core.unsupported import HARMS, fold, refuse_unsupported
from routstr.errors import UnsupportedParameter

OrderOf = Callable[..., Order]

NAMES = [
    "service_tier",
    "background",
    "best_of",
    "use_beam_search",
    "web_search_options",
    "plugins",
    "models",
    "route",
    "provider",
    "fallbacks",
    "prediction",
    "audio",
    "modalities",
    "api_base",
    "base_url",
    "api_key",
    "api_version",
    "organization",
    "extra_headers",
    "headers",
    "extra_body",
    "custom_llm_provider",
    "mock_response",
    "deployment_id",
    "max_output_tokens",
    "max_new_tokens",
    "search_parameters",
    "chat_template",
    "previous_response_id",
    "input_cost_per_token",
    "aws_secret_access_key",
    "vertex_credentials",
    "azure_ad_token",
    "litellm_params",
    "webhook_url",
    "kv_transfer_params",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", ["x", {"a": 1}, ["audio"], 7, True])
def test_cost_and_redirection_are_refused(name: str, value: object, order_of: OrderOf) -> None:
    if name == "best_of" and value is True:
        value = 2  # true is read as 1, the one sample that there is anyway
    with pytest.raises(UnsupportedParameter) as refusal:
        order_of(**{name: value})
    assert refusal.value.param == name
    assert (refusal.value.status, refusal.value.code) == (400, "unsupported_parameter")
    assert name in refusal.value.message


@pytest.mark.parametrize("name", sorted(HARMS))
def test_every_name_of_the_table_is_refused(name: str) -> None:
    assert fold(name) == name
    with pytest.raises(UnsupportedParameter):
        refuse_unsupported({name: "x"}, {})


@pytest.mark.parametrize("name", NAMES)
def test_null_is_absent(name: str, order_of: OrderOf) -> None:
    assert order_of(**{name: None}).body[name] is None


@pytest.mark.parametrize(
    "members",
    [
        {"service_tier": "default"},
        {"background": False},
        {"best_of": 1},
        {"use_beam_search": False},
        {"modalities": ["text"]},
        {"tools": [{"type": "function"}, {"type": "custom"}]},
        {"prompt_cache_key": "k", "metadata": {"a": "b"}, "store": False, "user": "u"},
        {"reasoning_effort": "low", "top_k": 5, "min_p": 0.1, "logit_bias": {"5": 1}},
        {"chat_template_kwargs": {"enable_thinking": False}, "transforms": []},
        {"chat_template_kwargs": {"reasoning_effort": "high", "thinking_budget": 9, "x": None}},
        {"reasoning": {"effort": "high", "mode": "standard"}, "enable_code_interpreter": False},
    ],
)
def test_harmless_values_pass(members: dict[str, object], order_of: OrderOf) -> None:
    assert order_of(**members).body.items() >= members.items()


@pytest.mark.parametrize(
    "members",
    [
        {"prompt_cache_options": {"ttl": "12h"}},
        {"prompt_cache_options": {"TTL": 12}},
        {"messages": [{"role": "user", "content": [{"cache_control": {"ttl": "1h"}}]}]},
        {"tools": [{"type": "function", "function": {"cacheControl": {"ttl": "1h"}}}]},
    ],
)
def test_caches_that_live_longer_than_their_price_are_refused(
    members: dict[str, object], order_of: OrderOf
) -> None:
    with pytest.raises(UnsupportedParameter, match="cache"):
        order_of(**members)


@pytest.mark.parametrize(
    "members",
    [
        {"prompt_cache_options": {"ttl": "30m"}},
        {"messages": [{"role": "user", "content": [{"cache_control": {"ttl": "5m"}}]}]},
        {"metadata": {"ttl": "1h"}},
        {"tools": [{"type": "function", "function": {"name": "ttl", "ttl": "1h"}}]},
    ],
)
def test_other_lifetimes_pass(members: dict[str, object], order_of: OrderOf) -> None:
    assert order_of(**members).body.items() >= members.items()


@pytest.mark.parametrize(
    "members",
    [
        {"chat_template_kwargs": {"chat_template": "{% for _ in range(9999) %}a{% endfor %}"}},
        {"chat_template_kwargs": {"Chat-Template": "a"}},
        {"chat_template_kwargs": {"builtin_tools": ["browser"]}},
        {"chat_template_kwargs": {"documents": {"a": "b"}}},
        {"chat_template_kwargs": "x"},
        {"ChatTemplateKwargs": {"chat_template": "a"}},
        {"reasoning": {"effort": "high", "Mode": "pro"}},
        {"prompt_embeds": "UEsDBA=="},
        {"search_type": "pro"},
        {"enable_code_interpreter": True},
    ],
)
def test_what_writes_or_bills_more_than_the_body_shows_is_refused(
    members: dict[str, object], order_of: OrderOf
) -> None:
    with pytest.raises(UnsupportedParameter) as refusal:
        order_of(**members)
    assert (refusal.value.param or "").startswith(next(iter(members)))


@pytest.mark.parametrize("value", ["auto", "flex", "priority", "", "Default"])
def test_only_the_default_tier_passes(value: str, order_of: OrderOf) -> None:
    with pytest.raises(UnsupportedParameter):
        order_of(service_tier=value)


@pytest.mark.parametrize(
    "name",
    [
        "N",
        "Max_Tokens",
        "maxTokens",
        "max-completion-tokens",
        "STREAM",
        "me\u017f\u017fages",  # long s folds to s
        "Model",
        "serviceTier",
        "bac\u212aground",  # the Kelvin sign folds to k
        "apiKey",
        "baseURL",
        "Extra-Headers",
    ],
)
def test_other_spellings_are_refused(name: str, order_of: OrderOf) -> None:
    with pytest.raises(UnsupportedParameter) as refusal:
        order_of(**{name: 100})
    assert refusal.value.param == name


@pytest.mark.parametrize(
    "tool",
    [
        {"type": "web_search"},
        {"type": "code_interpreter"},
        {"type": "builtin_function", "function": {"name": "$web_search"}},
        {"googleSearch": {}},
        {"type": None},
        {"type": ["function"]},
        {"type": "function", "Type": "web_search"},
        "function",
        None,
    ],
)
def test_tools_that_run_upstream_are_refused(tool: object, order_of: OrderOf) -> None:
    with pytest.raises(UnsupportedParameter) as refusal:
        order_of(tools=[{"type": "function"}, tool])
    assert refusal.value.param == "tools"


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1"}}]},
        {"role": "user", "content": [{"type": "input_file", "fileId": "file-1"}]},
        {"role": "user", "content": "x", "file_ids": ["file-1"]},
        {"role": "assistant", "audio": {"id": "audio_1"}},
    ],
)
def test_stored_input_is_refused(message: object, order_of: OrderOf) -> None:
    with pytest.raises(UnsupportedParameter, match="Stored") as refusal:
        order_of(messages=[message])
    assert refusal.value.param == "messages"


def test_a_file_that_is_in_the_request_passes(order_of: OrderOf) -> None:
    file = {"type": "file", "file": {"file_data": "data:", "file_id": None}}
    assert order_of(messages=[{"role": "user", "content": [file]}]).input_unbounded
