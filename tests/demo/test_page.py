"""What a person reads: amounts to the msat, a table that fits, and where to look if it fails."""

import io

import pytest
from rich.console import Console

from demo.books import Line
from demo.page import Page, StepFailed, curl, sat


def page_of(width: int) -> tuple[Page, io.StringIO]:
    printed = io.StringIO()
    return Page(Console(file=printed, width=width, force_terminal=True, no_color=True)), printed


@pytest.mark.parametrize(
    ("amount_msat", "text"),
    [
        (0, "0.000"),
        (1, "0.001"),
        (999, "0.999"),
        (1_000, "1.000"),
        (-15, "\u22120.015"),
        (1_234_567_890, "1\u2009234\u2009567.890"),
        (-1_000_000, "\u22121\u2009000.000"),
    ],
)
def test_an_amount_is_sat_to_the_msat(amount_msat: int, text: str) -> None:
    assert str(sat(amount_msat)) == text


def test_a_change_has_its_sign() -> None:
    assert [str(sat(each, signed=True)) for each in (5, 0, -5)] == [
        "+0.005",
        "0.000",
        "\u22120.005",
    ]


@pytest.mark.parametrize("width", [80, 100, 200])
def test_a_step_fits_the_terminal_and_names_both_balances(width: int) -> None:
    page, printed = page_of(width)
    with page.step("Chat completion, demo/small") as entry:
        entry.note("8 in, 24 out")
        entry.add(Line(account="key", before_msat=500_000, after_msat=499_984))
    lines = printed.getvalue().splitlines()
    assert max(len(line) for line in lines) <= width + 40  # escapes of the terminal included
    (row,) = [line for line in lines if "key" in line]
    assert row.index("500.000") < row.index("499.984") < row.index("\u22120.016") < row.index("✓")


def test_a_step_that_breaks_says_which_why_and_whom_to_ask() -> None:
    page, printed = page_of(100)
    with page.step("First"):
        pass
    with (
        pytest.raises(StepFailed, match="Step 2 failed: Second") as caught,
        page.step("Second", "node", "mint"),
    ):
        raise ValueError("no such thing")
    assert caught.value.suspects == ("node", "mint")
    assert caught.value.why == "ValueError: no such thing"
    page.failure(str(caught.value), caught.value.why, [("node", "a line of its log")])
    text = printed.getvalue()
    assert text.index("✗") < text.index("no such thing") < text.index("a line of its log")


def test_a_request_to_copy_survives_the_shell() -> None:
    command = curl("http://127.0.0.1:1/v1", "sk-1", '{"text": "it\'s"}')
    assert "'Authorization: Bearer sk-1'" in command
    assert command.endswith("""'{"text": "it'"'"'s"}'""")
