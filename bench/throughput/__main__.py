"""`make bench`: the node under load, beside its yardsticks in the same run.

PEERS=1 also measures Portkey and LiteLLM, FULL=1 the whole matrix, OUT=FILE names the JSON. The
last line says how many targets are reached; the exit status is 1 only if something could not be
measured, or if money was lost: a failed request, an audit that is not clean, a sum still reserved.
"""

import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from bench.finding import STUMBLES
from bench.throughput import machine, report
from bench.throughput.figures import Found
from bench.throughput.run import Wanted, measure
from bench.throughput.targets import Reached, last_line, reached

OUT: Final = "bench.json"


def main() -> int:
    """Measure, print, write; the exit status."""
    console = report.console()
    wanted = Wanted(peers=bool(os.environ.get("PEERS")), full=bool(os.environ.get("FULL")))
    found: Found = {}
    complaint = ""
    try:
        machine.check_tools()
        with tempfile.TemporaryDirectory(prefix="routstr-bench-") as directory:
            home = Path(directory)
            about = machine.describe(machine.check_disk(home))
            cores = machine.cores()
            for part, more in measure(wanted, home, cores):
                console.print(report.part_table(part, more), "", soft_wrap=True)
                found |= more
    except machine.NotReady as missing:
        print(missing, file=sys.stderr)
        return 2
    except STUMBLES as error:
        complaint = f"{type(error).__name__}: {error}"
    rows = reached(found)
    written = as_json(about | {"postgresql": cores.database_place}, found, rows)
    Path(os.environ.get("OUT") or OUT).write_text(written, encoding="utf-8")
    console.print(report.target_table(rows), "", soft_wrap=True)
    if complaint:
        print(complaint, file=sys.stderr)
    print(last_line(rows))
    return 1 if complaint or any(found["books"].values()) else 0


def as_json(about: Mapping[str, object], found: Found, rows: Sequence[Reached]) -> str:
    """The whole run, for `make bench-compare` and for docs/performance.md."""
    targets = [
        {"what": row.target.what, "found": row.found, "must": row.must, "aim": row.aim}
        for row in rows
    ]
    told = {"machine": about, "figures": found, "targets": targets}
    return json.dumps(told, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.exit(main())
