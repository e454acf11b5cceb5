import json
from dataclasses import replace

import pytest

from routstr.core.dialects import DIALECTS
from routstr.core.order import Order
from routstr.core.outcome import Tally
from routstr.core.pricing import Model, Price, Usage
from routstr.core.quote import quote_of
from routstr.errors import InvalidParameter, UnsupportedParameter

EMBEDDER = Model(
    id="e",
    name="e",
    context_length=50,
    max_output_tokens=0,
    price=Price(version="v", input_msat_per_mtok=1_000_000, output_msat_per_mtok=0),
)


def parse(path: str, **members: object) -> Order:
    body = json.dumps({"model": "e", **members}).encode()
    return DIALECTS[path].parse(body, content_type="application/json", depth_max=64)


def tally(path: str, answer: dict[str, object]) -> Tally:
    return DIALECTS[path].meter_body(
        json.dumps(answer).encode(),
        order=Order(model_id="e", prompt_bytes=0, prompt_text_bytes=0),
        content_type="application/json",
        usage_cap=1_000,
    )


def test_a_batch_may_fill_a_context_for_each_of_its_inputs() -> None:
    one = quote_of(parse("/embeddings", input="x" * 400), EMBEDDER)
    three = quote_of(parse("/embeddings", input=["x" * 400] * 3), EMBEDDER)
    assert (one.total_msat, three.total_msat) == (50, 150)
    assert one.minimum_msat == 50


def test_what_a_model_reads_around_each_input_is_quoted() -> None:
    """Short inputs of many: marks at both ends, or an instruction in front of each."""
    quote = quote_of(parse("/embeddings", input=["a"] * 2_000), EMBEDDER)
    assert quote.input_tokens_max >= 2_000 * 17
    order = parse("/rerank", query="q", documents=["a"] * 100)
    assert order.prompt_bytes >= 100 * 18


def test_long_documents_are_several_searches_where_searches_are_billed() -> None:
    searched = replace(EMBEDDER, price=replace(EMBEDDER.price, request_msat=2_000))
    long = parse("/rerank", query="q" * 100, documents=["a" * 1_950] * 60)
    assert quote_of(long, EMBEDDER).total_msat > 0
    with pytest.raises(InvalidParameter, match="2 requests"):
        quote_of(long, searched)
    short = parse("/rerank", query="q" * 100, documents=["a" * 1_900] * 100)
    assert quote_of(short, searched).base_msat == 2_000


def test_an_image_fills_the_context() -> None:
    order = parse("/embeddings", input=[{"image": "https://a.example/b.png"}, "text"])
    assert quote_of(order, EMBEDDER).total_msat == 100
    assert order.media == {"audio_input", "image_input"}


def test_every_document_is_read_beside_the_query() -> None:
    order = parse("/rerank", query="q" * 10, documents=["ab", {"text": "cd"}])
    assert (order.inputs, order.prompt_text_bytes) == (2, 2 * 10 + 4)
    assert order.prompt_bytes >= 24


@pytest.mark.parametrize(
    ("path", "members", "refusal"),
    [
        ("/embeddings", {}, InvalidParameter),
        ("/embeddings", {"input": []}, InvalidParameter),
        ("/embeddings", {"input": "a", "stream": True}, UnsupportedParameter),
        ("/embeddings", {"input": ["a"] * 2_049}, InvalidParameter),
        ("/embeddings", {"input": "a", "api_base": "https://x"}, UnsupportedParameter),
        ("/moderations", {"input": 5}, InvalidParameter),
        ("/rerank", {"query": "a", "documents": []}, InvalidParameter),
        ("/rerank", {"query": "", "documents": ["a"]}, InvalidParameter),
        ("/rerank", {"query": "a", "documents": ["a"] * 101}, InvalidParameter),
    ],
)
def test_refusals(path: str, members: dict[str, object], refusal: type[Exception]) -> None:
    with pytest.raises(refusal):
        parse(path, **members)


@pytest.mark.parametrize(
    ("path", "answer", "input_tokens"),
    [
        (
            "/embeddings",
            {"data": [{"embedding": [0.1]}], "usage": {"prompt_tokens": 8, "total_tokens": 8}},
            8,
        ),
        ("/embeddings", {"data": [{"embedding": [0.1]}], "usage": {"total_tokens": 9}}, 9),
        ("/moderations", {"results": [{"flagged": False}]}, None),
        ("/rerank", {"results": [{"index": 0}], "usage": {"total_tokens": 7}}, 7),
        (
            "/rerank",
            {"results": [{"index": 0}], "meta": {"tokens": {"input_tokens": 6}}},
            6,
        ),
    ],
)
def test_what_went_in_is_charged(
    path: str, answer: dict[str, object], input_tokens: int | None
) -> None:
    seen = tally(path, answer)
    expected = None
    if input_tokens is not None:
        expected = Usage(input_tokens=input_tokens, output_tokens=0)
    assert (seen.usage, seen.output_seen) == (expected, True)


@pytest.mark.parametrize("answer", [{"data": []}, {}, {"data": "x"}, {"error": {}, "data": None}])
def test_an_answer_without_vectors_is_empty(answer: dict[str, object]) -> None:
    assert not tally("/embeddings", answer).output_seen
