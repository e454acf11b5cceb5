"""`make prove-operator`: the operator's house under people, strangers and five million rows.

`python -m bench.operator [PART …]` runs some of the parts. A row is printed as soon as it is known;
the last line names the figures: pages that were timed, the slowest of them, the cells of the
authorisation matrix that are as they must be, and answers that the document does not know. Exits 1
if anything falls short.
"""

import sys
from collections.abc import Mapping
from typing import Final

from bench import doors, pages, proof, suites

PARTS: Final[Mapping[str, proof.Part]] = {
    "browser": suites.prove_pages,
    "doors": doors.prove,
    "pages": pages.prove,
}
LAST: Final = ("pages", "slowest_page_ms", "matrix", "undocumented")

if __name__ == "__main__":
    sys.exit(proof.run(PARTS, sys.argv[1:], last=LAST))
