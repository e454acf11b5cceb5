"""The sixteen public faults of an upstream, whole and streamed, with a dearer one beside it.

`python -m bench.failover` prints the table alone: what each request came to, and that it ended
once, was charged as the contract says and never above its quote.
"""

import asyncio
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench import proof
from bench.finding import Finding, complaint
from routstr.log import configure
from tests.failover.faults import FAULTS, FaultRow, Met, meet
from tests.failover.pair import open_pair
from tests.harness.databases import SQLITE, run_migrations

MUST: Final = "ended once, charged by the contract"


def prove() -> Iterator[Finding]:
    """One finding for each fault, then their number."""
    configure("ERROR", json=False)
    good = 0
    with tempfile.TemporaryDirectory(prefix="routstr-failover-") as home:
        url = SQLITE + str(Path(home) / "routstr.db")
        run_migrations(url)
        for row in FAULTS:
            finding = asyncio.run(_finding(url, row))
            good += finding.ok
            yield finding
    yield Finding(
        what="upstream faults, whole and streamed",
        found=f"{good} of {len(FAULTS)}",
        must=f"{len(FAULTS)} of {len(FAULTS)}",
        ok=good == len(FAULTS),
        figures={"faults": good},
    )


async def _finding(url: str, row: FaultRow) -> Finding:
    """Both answers of one fault."""
    met: list[Met] = []
    try:
        async with open_pair(url) as pair:
            for stream in (False, True):
                met.append(await meet(pair, row, stream=stream))
    except (AssertionError, OSError, ValueError) as error:
        met.append(Met(found="not finished", complaints=[complaint(error)]))
    complaints = tuple(said for each in met for said in each.complaints)
    return Finding(
        what=row.name,
        found=" | ".join(each.found for each in met),
        must=MUST,
        ok=not complaints,
        complaints=complaints,
    )


if __name__ == "__main__":
    sys.exit(proof.run({"failover": prove}, sys.argv[1:]))
