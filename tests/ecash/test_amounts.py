import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routstr.ecash.amounts import AMOUNT_MAX, split, split_for_float
from routstr.ecash.errors import InvalidAmount

POWERS = [1 << bit for bit in range(64)]


def payable(coins: list[int]) -> set[int]:
    sums = {0}
    for coin in coins:
        sums |= {each + coin for each in sums}
    return sums


@given(st.integers(0, AMOUNT_MAX))
def test_split_is_the_ascending_binary_one(amount: int) -> None:
    coins = split(amount)
    assert sum(coins) == amount
    assert coins == sorted(set(coins))
    assert all(coin in POWERS for coin in coins)


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 3000), st.integers(0, 12))
def test_every_smaller_amount_is_payable_from_a_float(amount: int, highest: int) -> None:
    coins = split_for_float(amount, POWERS[: highest + 1] if amount < 300 else POWERS)
    assert coins == sorted(coins)
    assert payable(coins) == set(range(amount + 1))


@given(st.integers(0, AMOUNT_MAX))
def test_a_float_of_any_size_is_exact_and_without_gaps(amount: int) -> None:
    coins = split_for_float(amount, POWERS)
    assert sum(coins) == amount
    held = 0
    for coin in coins:
        assert coin <= held + 1  # so the sums up to held + coin have no gap either
        held += coin
    assert len(coins) <= 2 * 54


def test_a_float_of_13() -> None:
    assert split_for_float(13, POWERS) == [1, 2, 2, 4, 4]


def test_only_powers_of_two_that_the_keyset_has_are_used() -> None:
    assert split_for_float(11, [1, 2, 8, 3, 5]) == [1, 2, 8]
    assert split_for_float(12, [4, 8, -4, 0]) == [4, 8]
    assert split_for_float(9, [1, 2, 4]) == [1, 2, 2, 4]
    for available in ([], [2, 4], [3]):
        with pytest.raises(InvalidAmount):
            split_for_float(9, available)


@pytest.mark.parametrize("amount", [-1, AMOUNT_MAX + 1])
def test_amounts_out_of_range(amount: int) -> None:
    with pytest.raises(InvalidAmount):
        split(amount)
    with pytest.raises(InvalidAmount):
        split_for_float(amount, POWERS)


def test_small_denominations_do_not_make_endless_outputs() -> None:
    with pytest.raises(InvalidAmount):
        split_for_float(1_000_000, [1])
