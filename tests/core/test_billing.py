from pathlib import Path

from docs.make_billing import billing_page
from routstr.core.billing import ROWS, Rule
from routstr.core.outcome import Outcome

PAGE = Path(__file__).parents[2] / "docs" / "billing.md"
NEVER_JUDGED = {Outcome.OVER_RESERVE}  # a completed use, once its cost is known


def test_the_page_is_the_table() -> None:
    """`make docs` writes it."""
    assert PAGE.read_text(encoding="utf-8") == billing_page()


def test_every_outcome_has_a_row_and_the_last_row_fits_all() -> None:
    assert {row.outcome for row in ROWS} == set(Outcome) - NEVER_JUDGED
    assert all(row.situation for row in ROWS)
    assert Rule.IMPOSSIBLE not in (ROWS[-1].body, ROWS[-1].stream)
