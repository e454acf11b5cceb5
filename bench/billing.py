"""`make prove-billing`: what is charged, by every dialect, whatever the upstream does.

`python -m bench.billing [PART …]` runs some of the parts. A row is printed as soon as it is known;
the last line names the figures: faults of the failover list that were handled, client programs
that paid the listed price, requests that were left unsettled, charges above their quote. Exits 1
if anything falls short.
"""

import sys
from collections.abc import Mapping
from typing import Final

from bench import failover, offsets, proof, starving, suites

PARTS: Final[Mapping[str, proof.Part]] = {
    "clients": suites.prove_clients,
    "failover": failover.prove,
    "bounds": suites.prove_bounds,
    "offsets": offsets.prove,
    "starving": starving.prove,
}
LAST: Final = ("faults", "sdks", "unsettled", "above_quote")

if __name__ == "__main__":
    sys.exit(proof.run(PARTS, sys.argv[1:], last=LAST))
