"""What a request must cost, by an arithmetic of the demo's own: a price list and two counts.

Nothing of the node's is used here, so the two can disagree. A token is a word, as for the demo's
upstream; so whoever knows what was asked and what was answered knows the cost to the msat.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from demo.servers import MODELS_FILE

PER_MTOK: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """msat per million tokens in and out, and msat per request."""

    input_msat_per_mtok: int
    output_msat_per_mtok: int
    request_msat: int

    def cost_msat(self, *, words_in: int, words_out: int) -> int:
        """The exact cost, rounded up once."""
        parts = words_in * self.input_msat_per_mtok + words_out * self.output_msat_per_mtok
        return -(-(parts + self.request_msat * PER_MTOK) // PER_MTOK)


@dataclass(frozen=True, slots=True)
class PriceList:
    """The prices by model id."""

    prices: Mapping[str, Price]

    @classmethod
    def load(cls, path: Path = MODELS_FILE) -> Self:
        """Read the file that the node was given as MODELS_FILE."""
        return cls(
            {
                model["id"]: Price(**{name: model[name] for name in Price.__slots__})
                for model in json.loads(path.read_text())["models"]
            }
        )

    def __getitem__(self, model: str) -> Price:
        return self.prices[model]
