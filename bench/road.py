"""`make prove-road`: everything the paid road promises, on a real mint and with real kills.

`python -m bench.road [PART …]` runs some of the parts: clone, kills, races, leaving, speed. A row
is printed as soon as it is known; the last line names all figures. Exits 1 if anything falls short.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench import clone, kills, leaving, races, speed
from bench.finding import Finding

Part = Callable[[], Iterator[Finding]]

PARTS: Final[Mapping[str, Part]] = {
    "kills": kills.prove,
    "races": races.prove,
    "leaving": leaving.prove,
    "speed": speed.prove,
    "clone": clone.prove,
}
GREY: Final = "grey50"
WIDTH_PIPED: Final = 120


def main() -> int:
    """Prove the parts that were named, or all; the exit status."""
    names = sys.argv[1:] or list(PARTS)
    if unknown := set(names) - set(PARTS):
        print(
            f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}", file=sys.stderr
        )
        return 2
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, WIDTH_PIPED)
    console.print(_row("", "what", "found", "must be", style=GREY))
    findings = [_shown(console, finding) for name in names for finding in _run(console, name)]
    figures = {name: value for finding in findings for name, value in finding.figures.items()}
    short = sum(not finding.ok for finding in findings)
    console.print()
    told = " ".join(f"{name}={value}" for name, value in {**figures, "fell_short": short}.items())
    console.print(told, soft_wrap=True)
    return 1 if short else 0


def _run(console: Console, name: str) -> Iterator[Finding]:
    """The findings of a part, with a word about it while the next one is being found."""
    findings = PARTS[name]()
    while True:
        with console.status(Text(f"{name} …", style=GREY)):
            finding = next(findings, None)
        if finding is None:
            return
        yield finding


def _shown(console: Console, finding: Finding) -> Finding:
    mark = "[green]✓[/green]" if finding.ok else "[bold red]✗[/bold red]"
    console.print(_row(mark, finding.what, finding.found, finding.must))
    for complaint in finding.complaints:
        console.print(Text(complaint, style="red"), soft_wrap=True)
    return finding


def _row(mark: str, what: str, found: str, must: str, *, style: str = "") -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False, expand=True)
    table.add_column(width=1)
    for _ in range(3):
        table.add_column(ratio=1)
    table.add_row(mark, what, found, must, style=style)
    return table


if __name__ == "__main__":
    sys.exit(main())
