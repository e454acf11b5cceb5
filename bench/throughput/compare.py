"""`make bench-compare A=before.json B=after.json`: what changed between two runs, as ratios.

Two runs are two sessions, which differ by a third for no reason at all on a shared machine. So
every figure is divided by its fellow, and those of nginx and of nobody in between say how much of
it is the machine's.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from rich.table import Table

from bench.throughput.figures import Figures
from bench.throughput.machine import differences
from bench.throughput.report import console

# Ratios of these say something; of counts they do not.
COMPARED: Final = (
    ("per_second", "requests/s"),
    ("cpu_us", "CPU/request"),
    ("p50_ms", "p50"),
    ("p99_ms", "p99"),
    ("first_ms", "first token"),
    ("first_p99_ms", "first token p99"),
    ("chunk_us", "CPU/chunk"),
    ("idle_mib", "idle memory"),
    ("cpu_ms", "CPU/payment"),
)


def ratios(before: Figures, after: Figures) -> Figures:
    """after / before of each figure that both have; what was 0 has no ratio."""
    return {
        name: after[name] / before[name]
        for name, _ in COMPARED
        if name in after and before.get(name)
    }


def compared(before: Mapping[str, Figures], after: Mapping[str, Figures]) -> dict[str, Figures]:
    """The ratios of every question that both runs answered."""
    both = {name: ratios(before[name], after[name]) for name in before if name in after}
    return {name: found for name, found in both.items() if found}


def table(found: Mapping[str, Figures]) -> Table:
    """A row for each question, a column for each figure that any of them has."""
    shown = [each for each in COMPARED if any(each[0] in row for row in found.values())]
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="grey50")
    made.add_column("B / A")
    for _, heading in shown:
        made.add_column(heading, justify="right")
    for name, row in found.items():
        told = [f"{row[figure]:.2f}" if figure in row else "-" for figure, _ in shown]
        made.add_row(name, *told)
    return made


def main() -> int:
    """Compare the two files that are named; the exit status."""
    try:
        before, after = (_read(Path(name)) for name in sys.argv[1:3])
    except (OSError, ValueError) as error:
        print(f"Two files of make bench are needed: {error}", file=sys.stderr)
        return 2
    if different := differences(before["machine"], after["machine"]):
        print(f"Two machines: {', '.join(different)} differ, so compare with care.")
    console().print(table(compared(before["figures"], after["figures"])), soft_wrap=True)
    return 0


def _read(path: Path) -> dict[str, Any]:
    """A run. Raises ValueError for what is none."""
    run = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(run, dict) or not {"machine", "figures"} <= set(run):
        raise ValueError(f"{path} is no run")
    return run


if __name__ == "__main__":
    sys.exit(main())
