"""`make prove-road`: everything the paid road promises, on a real mint and with real kills.

`python -m bench.road [PART …]` runs some of the parts: clone, kills, races, leaving, speed. A row
is printed as soon as it is known; the last line names all figures. Exits 1 if anything falls short.
"""

import sys
from collections.abc import Mapping
from typing import Final

from bench import clone, kills, leaving, proof, races, speed

PARTS: Final[Mapping[str, proof.Part]] = {
    "kills": kills.prove,
    "races": races.prove,
    "leaving": leaving.prove,
    "speed": speed.prove,
    "clone": clone.prove,
}

if __name__ == "__main__":
    sys.exit(proof.run(PARTS, sys.argv[1:]))
