"""Running the parts of a proof: a row as soon as it is known, then one line of figures."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.finding import Finding

Part = Callable[[], Iterator[Finding]]

GREY: Final = "grey50"
WIDTH_PIPED: Final = 120


def run(parts: Mapping[str, Part], names: Sequence[str], *, last: Sequence[str] = ()) -> int:
    """Prove the parts that were named, or all; the exit status.

    The last line has all figures, or those of `last`, each as the worst that any row found.
    """
    if unknown := set(names) - set(parts):
        print(
            f"no part {', '.join(sorted(unknown))}; there are {', '.join(parts)}", file=sys.stderr
        )
        return 2
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, WIDTH_PIPED)
    console.print(_row("", "what", "found", "must be", style=GREY))
    findings = [
        _shown(console, finding)
        for name in names or list(parts)
        for finding in _found(console, name, parts[name])
    ]
    short = sum(not finding.ok for finding in findings)
    figures = _worst(findings, last) if last else _all(findings)
    console.print()
    told = " ".join(f"{name}={value}" for name, value in {**figures, "fell_short": short}.items())
    console.print(told, soft_wrap=True)
    return 1 if short else 0


def _all(findings: Sequence[Finding]) -> dict[str, object]:
    return {name: value for finding in findings for name, value in finding.figures.items()}


def _worst(findings: Sequence[Finding], names: Sequence[str]) -> dict[str, object]:
    """The largest of each, but of what is counted as served the smallest; `-` if nobody looked."""
    told: dict[str, object] = {}
    for name in names:
        values = [each.figures[name] for each in findings if name in each.figures]
        numbers = [value for value in values if isinstance(value, int | float)]
        words = [value for value in values if not isinstance(value, int | float)]
        pick = min if name.endswith("served") else max
        told[name] = pick(numbers) if numbers else next(iter(words), "-")
    return told


def _found(console: Console, name: str, part: Part) -> Iterator[Finding]:
    """The findings of a part, with a word about it while the next one is being found."""
    findings = part()
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
