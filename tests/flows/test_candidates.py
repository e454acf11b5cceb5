"""Who may serve an order, and how equally dear upstreams share the requests."""

from collections import Counter
from dataclasses import replace

import pytest

from routstr.core.order import Order
from routstr.core.quote import quote_of
from routstr.errors import InvalidModel, UnsupportedParameter
from routstr.flows.candidates import candidates_for, spread
from routstr.flows.catalog import Candidate, Listing, listed
from tests.failover.pair import candidate
from tests.harness.shop import CHAT_MODEL

CHAT = "/chat/completions"
ORDER = Order(
    model_id=CHAT_MODEL.id,
    stream=False,
    n=1,
    output_limit=1_000,
    output_limit_field="max_tokens",
    prompt_bytes=100,
    prompt_text_bytes=50,
)


def names(listing: Listing, *, path: str = CHAT, loss_ppm_max: int = 500_000) -> list[str]:
    quote = quote_of(ORDER, listing.model)
    found = candidates_for(listing, ORDER, quote, path=path, loss_ppm_max=loss_ppm_max)
    return [each.upstream_slug for each in found]


def test_those_serve_who_speak_it_can_take_it_and_are_not_too_dear() -> None:
    each = [
        candidate("cheap"),
        candidate("dearer", 50),
        candidate("too dear", 51),
        candidate("mute", 1, paths=frozenset({"/messages"})),
        replace(candidate("short", 1), max_output_tokens=999),
    ]
    listing = listed(CHAT_MODEL, each)
    assert names(listing) == ["cheap", "dearer"]
    assert names(listing, loss_ppm_max=499_999) == ["cheap"]
    assert names(listing, path="/messages") == ["cheap", "mute", "dearer"]
    with pytest.raises(InvalidModel):
        names(listing, path="/nowhere")


def test_documents_go_only_where_they_cost_tokens_alone() -> None:
    each = [replace(candidate("reader", 0), reads_files=False), candidate("other", 50)]
    order = replace(ORDER, has_files=True)

    def served(*candidates: Candidate) -> list[str]:
        listing = listed(CHAT_MODEL, candidates)
        quote = quote_of(order, listing.model)
        found = candidates_for(listing, order, quote, path=CHAT, loss_ppm_max=500_000)
        return [each.upstream_slug for each in found]

    assert served(*each) == ["other"]
    with pytest.raises(UnsupportedParameter):
        served(each[0])


def test_equally_dear_ones_share_by_weight_and_the_rest_stays_in_order() -> None:
    each = [
        candidate("three", weight=3),
        candidate("one", weight=1),
        candidate("none"),
        candidate("dear", 5, weight=9),
    ]
    turns = [spread(each, f"req_{number}") for number in range(4_000)]
    assert all([turn[2].upstream_slug, turn[3].upstream_slug] == ["none", "dear"] for turn in turns)
    firsts = Counter(first(turn) for turn in turns)
    assert 2_800 < firsts["three"] < 3_200
    assert firsts["three"] + firsts["one"] == 4_000
    assert spread(each, "req_1") == spread(each, "req_1")


def first(turn: list[Candidate]) -> str:
    return turn[0].upstream_slug
