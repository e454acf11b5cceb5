"""The whole fault matrix (T-8): every fault at every call of every flow, at real mints.

`python -m bench.faults [FLOW …]`. Each endpoint of a flow has a node, a customer and a database of
its own; two are tried at once, each at its own mint, because a mint's money is counted in all. A
fault happens once or until healed, by turns. The mints charge input fees.
"""

import asyncio
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from bench.finding import Finding, complaint
from bench.proof import run
from demo.mint import RealMint
from routstr.ledger.migrate import migrate
from routstr.log import configure
from tests.faults.flows import Flow
from tests.faults.matrix import FLOWS, Case, Row, cases, rows_of
from tests.faults.stand import DRAIN_MAX_S, open_stand
from tests.harness.databases import SQLITE

AT_ONCE: Final = 2
FEE_PPK: Final = 100
SHOWN_MAX: Final = 5


def prove(*names: str) -> Iterator[Finding]:
    """One finding per flow; names choose some of them."""
    configure("CRITICAL", json=False)  # what the node says of all this would fill the screen
    with ExitStack() as running:
        home = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="routstr-faults-")))
        mints = [
            running.enter_context(RealMint(home / f"mint-{number}", fee_ppk=FEE_PPK))
            for number in range(AT_ONCE)
        ]
        template = home / "template.db"
        asyncio.run(migrate(SQLITE + str(template)))
        for flow in FLOWS:
            if not names or flow().name in names:
                yield _finding(flow, template, mints)


def _finding(flow: type[Flow], template: Path, mints: Sequence[RealMint]) -> Finding:
    started_s = time.monotonic()
    rows, broken = asyncio.run(_rows(flow, template, mints))
    took_s = time.monotonic() - started_s
    bad = [row for row in rows if not row.ok]
    lost_msat = sum(abs(row.lost_msat) for row in rows)
    doubles = sum(abs(row.double_credits) for row in rows)
    drained_s = max((row.drained_s for row in rows), default=0.0)
    return Finding(
        what=f"{len(rows)} faults in: {flow().name}",
        found=f"{lost_msat} msat lost, {doubles} double, at rest in {drained_s:.0f} s"
        f" ({len(rows) - len(bad)} whole, {took_s:.0f} s)",
        must=f"0 lost, 0 double, < {DRAIN_MAX_S:.0f} s",
        ok=bool(rows) and not bad and not broken,
        figures={
            "lost_msat": lost_msat,
            "double_credits": doubles,
            "drained_s": round(drained_s),
        },
        complaints=(*broken, *(str(row) for row in bad[:SHOWN_MAX])),
    )


async def _rows(
    flow: type[Flow], template: Path, mints: Sequence[RealMint]
) -> tuple[list[Row], list[str]]:
    """The rows of a flow, endpoint by endpoint, and what broke off the count of one."""
    free: asyncio.Queue[RealMint] = asyncio.Queue()
    for mint in mints:
        free.put_nowait(mint)
    broken: list[str] = []

    async def try_endpoint(endpoint: str) -> list[Row]:
        mint = await free.get()
        rows: list[Row] = []
        with tempfile.TemporaryDirectory(dir=template.parent) as directory:
            path = Path(directory) / "routstr.db"
            shutil.copyfile(template, path)
            try:
                async with open_stand(SQLITE + str(path), mint) as stand:
                    async for row in rows_of(stand, by_turns(flow, endpoint)):
                        rows.append(row)
            except Exception as error:  # noqa: BLE001 - one endpoint's; the others are counted
                notes = getattr(error, "__notes__", [])
                broken.append(f"{complaint(error)} {notes}")
        free.put_nowait(mint)
        return rows

    tried = await asyncio.gather(*(try_endpoint(each) for each in flow().endpoints))
    return [row for rows in tried for row in rows], broken


def by_turns(flow: type[Flow], endpoint: str) -> list[Case]:
    """Each fault at that endpoint, once or until healed."""
    both = list(cases(flows=[flow], endpoints=[endpoint]))
    return [case for number, case in enumerate(both) if number % 2 == number // 2 % 2]


if __name__ == "__main__":
    parts = {"faults": lambda: prove(*sys.argv[1:])}
    sys.exit(run(parts, (), last=("lost_msat", "double_credits", "drained_s")))
