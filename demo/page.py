"""What the demo prints: each step with its accounts before and after, as one running table.

Amounts are shown in sat with three decimals, which is to the msat.
"""

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from rich.console import Console, Group
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from demo.books import Line

AMBER: Final = "#f7a01d"
GREY: Final = "grey50"
WIDTH_MAX: Final = 112
WIDTH_PIPED: Final = 100
THIN_SPACE: Final = "\u2009"
MINUS: Final = "\u2212"

# Heading, width and side of each column; the first two are the step's number and the step itself.
COLUMNS: Final = (
    ("account", 9, "left"),
    ("before", 9, "right"),
    ("after", 9, "right"),
    ("change", 10, "right"),
    ("fee", 5, "right"),
    ("", 1, "right"),
)


def sat(amount_msat: int, *, signed: bool = False) -> Text:
    """An amount in sat: thin spaces between thousands, an even amount's decimals in grey."""
    sign = MINUS if amount_msat < 0 else "+" if signed and amount_msat else ""
    whole, decimals = divmod(abs(amount_msat), 1_000)
    thousands = f"{whole:,}".replace(",", THIN_SPACE)
    return Text.assemble(f"{sign}{thousands}", (f".{decimals:03d}", "" if decimals else GREY))


@dataclass(slots=True, kw_only=True)
class Entry:
    """A step in the making: what happened, in grey, and the accounts it changed."""

    number: int
    title: str
    details: list[str] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)

    def note(self, detail: str) -> None:
        self.details.append(detail)

    def add(self, *lines: Line) -> None:
        self.lines.extend(lines)


class StepFailed(Exception):
    """A step did not end well; `suspects` are the names of the servers to ask, `why` says why."""

    def __init__(self, entry: Entry, suspects: Sequence[str], cause: Exception) -> None:
        super().__init__(f"Step {entry.number} failed: {entry.title}.")
        self.suspects = tuple(suspects)
        self.why = f"{type(cause).__name__}: {cause}"


class Page:
    """A console, and how many steps it has shown."""

    def __init__(self, console: Console) -> None:
        self._console = console
        if not console.is_terminal and console.width < WIDTH_PIPED:
            console.width = WIDTH_PIPED  # a log has no margin
        self._width = min(console.width, WIDTH_MAX)
        self._steps = 0

    def title(self, text: str) -> None:
        self._console.print()
        self._console.print(Text(text, style=f"bold {AMBER}"))

    def fact(self, name: str, value: str, comment: str = "") -> None:
        """A name, what it is, and a word about it in grey."""
        text = Text.assemble((f"  {name:<9} ", GREY), value, (f"  {comment}", GREY))
        self._console.print(text, soft_wrap=True)

    def verbatim(self, text: str) -> None:
        """Text to copy: never wrapped, never styled."""
        self._console.print(Text(text), soft_wrap=True)

    @contextmanager
    def busy(self, doing: str) -> Iterator[None]:
        """A word about what is going on; only a terminal shows it."""
        with self._console.status(Text(f"{doing} …", style=GREY)):
            yield

    def heading(self) -> None:
        """The table's head."""
        self._console.print()
        table = self._table()
        table.add_row(
            "", "step, amounts in sat", *(Text(heading) for heading, _, _ in COLUMNS), style=GREY
        )
        self._console.print(table)
        self._console.print(Rule(style="grey35"), width=self._width)

    @contextmanager
    def step(self, title: str, *suspects: str) -> Iterator[Entry]:
        """Show a step when it is over. Raises StepFailed with what broke it."""
        self._steps += 1
        entry = Entry(number=self._steps, title=title)
        try:
            with self.busy(title):
                yield entry
        except Exception as error:
            self._show(entry, Text("✗", style="bold red"))
            raise StepFailed(entry, suspects, error) from error
        self._show(entry, Text("✓", style="green"))

    def _show(self, entry: Entry, mark: Text) -> None:
        said = [Text(entry.title), *(Text(detail, style=GREY) for detail in entry.details)]
        fees = [Text("") if each.fee_msat is None else sat(each.fee_msat) for each in entry.lines]
        table = self._table()
        table.add_row(
            Text(str(entry.number), style=GREY),
            Group(*said),
            Group(*(Text(each.account) for each in entry.lines)),
            Group(*(sat(each.before_msat) for each in entry.lines)),
            Group(*(sat(each.after_msat) for each in entry.lines)),
            Group(*(sat(each.change_msat, signed=True) for each in entry.lines)),
            Group(*fees),
            mark,
        )
        self._console.print(table)

    def _table(self) -> Table:
        table = Table(
            box=None, show_header=False, padding=(0, 1, 0, 0), pad_edge=False, width=self._width
        )
        table.add_column(width=2, justify="right")
        table.add_column(ratio=1)
        for _, width, side in COLUMNS:
            table.add_column(width=width, justify="right" if side == "right" else "left")
        return table

    def sum_up(self, parts: Sequence[tuple[str, int, str]], total_msat: int) -> None:
        """Where the money is: a name, an amount in msat and a word about it; and all together."""
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
        table.add_column()
        table.add_column(justify="right", width=9)
        table.add_column(style=GREY)
        for name, amount_msat, comment in parts:
            table.add_row(name, sat(amount_msat), comment)
        table.add_row("", Text("─" * 9, style="grey35"), "")
        table.add_row("together", sat(total_msat), "sat: what was minted at first")
        self._console.print(Padding(table, (0, 0, 0, 2)))

    def verdict(self, text: str) -> None:
        self._console.print()
        self._console.print(Text.assemble(("✓ ", "green"), (text, "bold")))

    def failure(self, text: str, why: str, logs: Sequence[tuple[str, str]]) -> None:
        """What failed, why, and the end of the logs that may tell more."""
        self._console.print()
        self._console.print(Text.assemble(("✗ ", "bold red"), (text, "bold")))
        self._console.print(Text(f"  {why}"), soft_wrap=True)
        for name, log in logs:
            self._console.print(Text(f"\n  The end of the {name}'s log:", style=GREY))
            self._console.print(Text(log or "(it printed nothing)", style=GREY), soft_wrap=True)


def curl(url: str, key: str, body: str) -> str:
    """A request to copy into a shell."""
    return (
        f"curl {url} \\\n"
        f"  -H {shlex.quote(f'Authorization: Bearer {key}')} \\\n"
        f"  -H 'Content-Type: application/json' \\\n"
        f"  -d {shlex.quote(body)}"
    )
