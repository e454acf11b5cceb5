"""`make prove-ecash`: everything promised about ecash, at real mints, with real faults and kills.

`python -m bench.ecash [PART …]` runs some of the parts: faults, instant, crowd, melts, restore,
interop. The last line tells the worst of what the rows found. Exits 1 if anything falls short.
"""

import sys
from collections.abc import Mapping
from typing import Final

from bench import crowd, faults, instant, interop, melts, proof, restore

PARTS: Final[Mapping[str, proof.Part]] = {
    "faults": faults.prove,
    "instant": instant.prove,
    "crowd": crowd.prove,
    "melts": melts.prove,
    "restore": restore.prove,
    "interop": interop.prove,
}
LAST: Final = ("lost_msat", "double_credits", "drained_s", "instant_ms", "xcashu_served")

if __name__ == "__main__":
    sys.exit(proof.run(PARTS, sys.argv[1:], last=LAST))
