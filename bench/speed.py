"""The executor's speed, as `make bench-ledger` measures it."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Final

from bench.finding import Finding
from demo.process import ROOT

PAIRS_PER_S_MIN: Final = 5_000
NAME: Final = "pairs_per_s="
TIMEOUT_S: Final = 120


def prove() -> Iterator[Finding]:
    """One finding."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.ledger"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    last = done.stdout.strip().rpartition("\n")[2]
    pairs = int(last.removeprefix(NAME)) if last.startswith(NAME) else 0
    yield Finding(
        what="reserve + settle pairs, durable, one hot key",
        found=f"{pairs} a second",
        must=f"{PAIRS_PER_S_MIN} a second",
        ok=pairs >= PAIRS_PER_S_MIN,
        figures={"pairs_per_s": pairs},
        complaints=() if pairs else (done.stderr[-600:],),
    )
