"""The demo's books find the first msat that is not where it must be."""

import pytest

from demo.books import Books, DoesNotAddUp, expect


@pytest.mark.parametrize("found_msat", [499_999, 500_001, 0, 1_000_000])
def test_a_balance_off_by_anything_is_found(found_msat: int) -> None:
    books = Books()
    books.move("wallet", 1_000_000, 1_000_000)
    with pytest.raises(DoesNotAddUp, match=rf"wallet is {found_msat}, and must be 500000"):
        books.move("wallet", -500_000, found_msat)


def test_what_requests_cost_is_part_of_the_total() -> None:
    books = Books()
    books.move("key", 1_000, 1_000)
    line = books.pay("key", 16, 984)
    assert (line.before_msat, line.after_msat, line.change_msat) == (1_000, 984, -16)
    assert books.total_msat() == 1_000


def test_equal_is_fine() -> None:
    expect("the fee", 0, 0)
