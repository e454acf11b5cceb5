"""`make prove-scale`: many nodes, growth, overload, ten thousand streams, half an hour of load.

`python -m bench.scale [PART …]` runs some of the parts: nodes, growth, overload, streams, soak
(SOAK_MINUTES=5 for a shorter one). A row is printed as soon as it is known; the last line names
all figures. Exits 1 if anything falls short.
"""

import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Final

from bench import proof
from bench.finding import Finding


def _part(name: str) -> proof.Part:
    """The proof in `bench/{name}.py`, imported when its turn comes: they need different things."""

    def prove() -> Iterator[Finding]:
        yield from import_module(f"bench.{name}").prove()

    return prove


PARTS: Final[Mapping[str, proof.Part]] = {
    name: _part(name) for name in ("nodes", "growth", "overload", "streams", "soak")
}

if __name__ == "__main__":
    sys.exit(proof.run(PARTS, sys.argv[1:]))
