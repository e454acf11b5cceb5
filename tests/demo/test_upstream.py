"""The demo's upstream answers as OpenAI does, and the same request twice the same."""

import json

import httpx
import pytest

from demo.servers import DemoUpstream

ORDER: dict[str, object] = {
    "model": "demo/small",
    "messages": [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "say hello to me"}]},
    ],
}


def post(upstream: DemoUpstream, **changes: object) -> httpx.Response:
    return httpx.post(f"{upstream.api_url}/chat/completions", json=ORDER | changes)


def events(response: httpx.Response) -> list[str]:
    return [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]


def test_an_answer_repeats_byte_for_byte(demo_upstream: DemoUpstream) -> None:
    first, second = post(demo_upstream), post(demo_upstream)
    assert first.content == second.content
    assert first.json()["usage"] == {
        "prompt_tokens": 6,
        "completion_tokens": 24,
        "total_tokens": 30,
    }


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_the_output_limit_holds_for_each_choice(demo_upstream: DemoUpstream, name: str) -> None:
    answer = post(demo_upstream, n=2, **{name: 3}).json()
    assert [each["finish_reason"] for each in answer["choices"]] == ["length", "length"]
    assert [len(each["message"]["content"].split()) for each in answer["choices"]] == [3, 3]
    assert answer["usage"]["completion_tokens"] == 6


def test_a_stream_says_the_same_words(demo_upstream: DemoUpstream) -> None:
    *chunks, done = events(post(demo_upstream, stream=True, max_tokens=5))
    assert done == "[DONE]"
    deltas = [json.loads(chunk)["choices"][0]["delta"] for chunk in chunks]
    whole = post(demo_upstream, max_tokens=5).json()["choices"][0]["message"]["content"]
    assert "".join(delta.get("content", "") for delta in deltas) == whole


def test_a_stream_tells_its_usage_only_when_asked(demo_upstream: DemoUpstream) -> None:
    silent = events(post(demo_upstream, stream=True, max_tokens=5))
    asked = events(
        post(demo_upstream, stream=True, max_tokens=5, stream_options={"include_usage": True})
    )
    assert not any("usage" in json.loads(chunk) for chunk in silent[:-1])
    last = json.loads(asked[-2])
    assert last["choices"] == []
    assert last["usage"] == {"prompt_tokens": 6, "completion_tokens": 5, "total_tokens": 11}


def test_a_client_that_leaves_is_noticed(demo_upstream: DemoUpstream) -> None:
    def cut() -> int:
        count: int = httpx.get(f"{demo_upstream.url}/stats").json()["streams_cut"]
        return count

    before = cut()
    url = f"{demo_upstream.api_url}/chat/completions"
    with httpx.stream("POST", url, json=ORDER | {"stream": True}) as response:
        next(response.iter_raw())
    for _ in range(200):  # each a round trip, so the upstream's loop has turned that often
        if cut() == before + 1:
            return
    pytest.fail("the upstream went on for nobody")


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"model": "none"}, 404),
        ({"messages": "hello"}, 400),
        ({"max_tokens": 0}, 400),
        ({"max_tokens": True}, 400),
        ({"n": 99}, 400),
    ],
)
def test_nonsense_is_refused(
    demo_upstream: DemoUpstream, changes: dict[str, object], status: int
) -> None:
    response = post(demo_upstream, **changes)
    assert response.status_code == status
    assert response.json()["error"]["type"] == "invalid_request_error"


def test_the_models_are_those_of_the_price_list(demo_upstream: DemoUpstream) -> None:
    listed = httpx.get(f"{demo_upstream.api_url}/models").json()["data"]
    assert [each["id"] for each in listed] == ["demo/small", "demo/large"]
