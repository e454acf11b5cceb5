from pathlib import Path

import pytest

from docs.make_billing import billing_page
from routstr.core.billing import ROWS, Rule, judge
from routstr.core.outcome import Ending, Evidence, Outcome, Tally
from routstr.core.pricing import Usage

PAGE = Path(__file__).parents[2] / "docs" / "billing.md"
NEVER_JUDGED = {Outcome.OVER_RESERVE}  # a completed use, once its cost is known


def test_the_page_is_the_table() -> None:
    """`make docs` writes it."""
    assert PAGE.read_text(encoding="utf-8") == billing_page()


def test_every_outcome_has_a_row_and_the_last_row_fits_all() -> None:
    assert {row.outcome for row in ROWS} == set(Outcome) - NEVER_JUDGED
    assert all(row.situation for row in ROWS)
    assert Rule.IMPOSSIBLE not in (ROWS[-1].body, ROWS[-1].stream)


@pytest.mark.parametrize("begun", [False, True])
def test_who_leaves_before_an_error_pays_for_it_as_little_as_who_stays(begun: bool) -> None:
    """An upstream may say what it used in the same body as its error."""
    used = Usage(input_tokens=10, output_tokens=5)
    tally = Tally(usage=used, done_seen=True, output_seen=True, error_seen=True)
    for ending in (Ending.CLIENT_LEFT, Ending.WHOLE):
        verdict = judge(
            ending,
            tally,
            stream=False,
            begun=begun,
            prompt_text_bytes=40,
            output_tokens_max=100,
        )
        assert verdict.evidence is Evidence.NONE
