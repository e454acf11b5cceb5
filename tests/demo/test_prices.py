"""The demo's arithmetic of a cost is its own, exact, and rounded up once."""

import json
from pathlib import Path

import pytest

from demo.prices import Price, PriceList


@pytest.mark.parametrize(
    ("words_in", "words_out", "request_msat", "cost_msat"),
    [
        (0, 0, 0, 0),
        (0, 0, 1_000, 1_000),
        (1, 0, 0, 1),  # 0.15, and a debt is never rounded down
        (8, 24, 0, 16),  # 1.2 + 14.4, rounded once: each part up would be 17
        (20, 0, 0, 3),  # 3.0 exactly
        (8, 24, 1_000, 1_016),
    ],
)
def test_a_cost_is_rounded_up_once(
    words_in: int, words_out: int, request_msat: int, cost_msat: int
) -> None:
    price = Price(
        input_msat_per_mtok=150_000, output_msat_per_mtok=600_000, request_msat=request_msat
    )
    assert price.cost_msat(words_in=words_in, words_out=words_out) == cost_msat


def test_the_list_is_the_nodes_own_file(tmp_path: Path) -> None:
    path = tmp_path / "models.json"
    rates = {"input_msat_per_mtok": 1, "output_msat_per_mtok": 2, "request_msat": 3}
    path.write_text(json.dumps({"models": [{"id": "a/b", "context_length": 4, **rates}]}))
    assert PriceList.load(path)["a/b"] == Price(**rates)
