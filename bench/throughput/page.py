"""`make bench-docs`: the results in docs/performance.md, from the JSON of a run.

Everything between the two marks of that page is written anew; what stands outside is by hand.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bench.throughput.figures import Figures, Found
from bench.throughput.report import cells, columns_of, target_cells
from bench.throughput.targets import last_line, reached
from demo.process import ROOT

PAGE: Final = ROOT / "docs" / "performance.md"
BEGIN: Final = "<!-- results: written by make bench-docs -->"
END: Final = "<!-- end of results -->"
PARTS: Final = {
    "whole": "Whole answers",
    "stream": "Streams of 53 events, one every 10 ms",
    "memory": "Memory",
    "instant": "Instant payments",
}


def results(run: Mapping[str, Any]) -> str:
    """The tables of a run, as Markdown."""
    found: Found = run["figures"]
    rows = reached(found)
    lines = [*_machine(run["machine"]), "", "### Targets", ""]
    lines += _table(("what", "found", "must", "aim", "reached"), [target_cells(r) for r in rows])
    lines += ["", f"`{last_line(rows)}`"]
    for part, title in PARTS.items():
        of_part = {name: each for name, each in found.items() if name.startswith(f"{part} ")}
        if of_part:
            lines += ["", f"### {title}", "", *_part(part, of_part)]
    return "\n".join(lines)


def with_results(page: str, made: str) -> str:
    """The page with those results in place of the ones it has. Raises ValueError without marks."""
    if BEGIN not in page or END not in page:
        raise ValueError(f"{PAGE.name} has no place for results")
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{made}\n\n{END}{rest.partition(END)[2]}"


def _machine(about: Mapping[str, Any]) -> Iterator[str]:
    libraries = ", ".join(f"{name} {version}" for name, version in about["libraries"].items())
    dirty = ", with changes that are in no commit" if about["dirty"] else ""
    yield (
        f"On {about['cores']} cores of {about['cpu']}, {about['memory_mib']} MiB, Linux"
        f" {about['kernel']}, {about['file_system']}; Python {about['python']}, nginx"
        f" {about['nginx']}, wrk {about['wrk']}, {libraries}. PostgreSQL {about['postgresql']}."
        f" Commit {about['commit'][:12]}{dirty}."
    )


def _part(part: str, found: Mapping[str, Figures]) -> Iterator[str]:
    columns = columns_of(part, found)
    headings = ["", *(heading for _, heading, _ in columns)]
    rows = [
        [name.removeprefix(f"{part} "), *cells(columns, figures)] for name, figures in found.items()
    ]
    yield from _table(headings, rows)


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(headings)} |"
    yield f"|{'---|' * len(headings)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def main() -> int:
    """Write the page; the exit status."""
    try:
        run = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
        PAGE.write_text(
            with_results(PAGE.read_text(encoding="utf-8"), results(run)), encoding="utf-8"
        )
    except (OSError, ValueError, KeyError) as error:
        print(f"no results to write: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
