"""What people read: a table of each part, the table of targets, and the last line."""

from collections.abc import Mapping, Sequence
from typing import Final

from rich.console import Console
from rich.table import Table

from bench.throughput.figures import Figures
from bench.throughput.targets import Reached

WIDTH_PIPED: Final = 140

# The columns: figure, heading, digits behind the point.
WHOLE: Final = (
    ("per_second", "requests/s", 0),
    ("cpu_us", "CPU µs/request", 0),
    ("p50_ms", "p50 ms", 2),
    ("added_ms", "added p50 ms", 2),
    ("p99_ms", "p99 ms", 2),
    ("commands_per_commit", "commands/commit", 1),
    ("failed", "failed", 0),
)
STREAMS: Final = (
    ("first_ms", "first token p50 ms", 2),
    ("added_ms", "added ms", 2),
    ("first_p99_ms", "p99 ms", 2),
    ("chunk_us", "CPU µs/chunk", 1),
    ("streams", "streams", 0),
    ("failed", "failed", 0),
)
OTHERS: Final = (
    ("idle_mib", "idle MiB", 0),
    ("grown_mib", "grown MiB", 1),
    ("requests", "requests", 0),
    ("cpu_ms", "CPU ms", 2),
    ("p50_ms", "p50 ms", 2),
    ("failed", "failed", 0),
    ("reserved_msat", "reserved msat", 0),
)
COLUMNS: Final = {"whole": WHOLE, "stream": STREAMS}
Columns = Sequence[tuple[str, str, int]]


def console() -> Console:
    """The terminal, or a pipe wide enough for the tables."""
    made = Console(highlight=False)
    if not made.is_terminal:
        made.width = max(made.width, WIDTH_PIPED)
    return made


def cells(columns: Columns, figures: Figures) -> list[str]:
    """A row's figures as text, `-` for what was not measured."""
    return [
        f"{figures[name]:,.{digits}f}" if name in figures else "-" for name, _, digits in columns
    ]


def columns_of(part: str, found: Mapping[str, Figures]) -> Columns:
    """The columns of a part, of the others those that any of them has."""
    columns = COLUMNS.get(part, OTHERS)
    names = {name for figures in found.values() for name in figures}
    return [each for each in columns if each[0] in names]


def part_table(part: str, found: Mapping[str, Figures]) -> Table:
    """One part's figures, a row for each question."""
    columns = columns_of(part, found)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="grey50")
    table.add_column("")
    for _, heading, _ in columns:
        table.add_column(heading, justify="right")
    for name, figures in found.items():
        table.add_row(name, *cells(columns, figures))
    return table


def target_cells(row: Reached) -> list[str]:
    """What, found, must, aim, reached."""
    target = row.target
    found = "not measured" if row.found is None else target.told(row.found)
    how_far = "aim" if row.aim else "must" if row.must else "no" if row.found is not None else ""
    return [target.what, found, target.limit(target.must), target.limit(target.aim), how_far]


def target_table(rows: Sequence[Reached]) -> Table:
    """Every target beside what was found of it."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="grey50")
    for heading in ("what", "found", "must", "aim", "reached"):
        table.add_column(heading)
    styles = {"aim": "green", "must": "yellow", "no": "bold red"}
    for row in rows:
        told = target_cells(row)
        table.add_row(*told[:-1], f"[{styles[told[-1]]}]{told[-1]}" if told[-1] else "")
    return table
