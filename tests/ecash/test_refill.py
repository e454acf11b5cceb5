"""Which coins the node swaps for small change: always worth it, never more than it has."""

from hypothesis import given
from hypothesis import strategies as st

from routstr.ecash.amounts import FILL_MAX, FloatGoal, split_for_float
from routstr.ecash.keyset import fee
from routstr.ecash.refill import INPUTS_MAX, OUTPUTS_MAX, fewest, plan_refill
from routstr.ecash.selection import choose_exact, worth

POWERS = tuple(1 << bit for bit in range(20))
GOAL = FloatGoal(denominations=POWERS, coins=32, coin_max=1024)
PURSES = st.dictionaries(st.sampled_from(POWERS), st.integers(0, 400), max_size=12)


def test_targets_tie_up_at_most_half() -> None:
    assert GOAL.targets(0) == dict.fromkeys(POWERS[:11], 0)
    small = GOAL.targets(1_000)
    assert (small[1], small[2], small[16], small[64]) == (32, 22, 2, 0)
    assert worth(small) <= 500
    assert GOAL.targets(10**6) == dict.fromkeys(POWERS[:11], 32)


def test_a_large_coin_becomes_change_once() -> None:
    counts = {2**17: 1}
    planned = plan_refill(GOAL, counts, fee_ppk=0)
    assert planned is not None
    assert planned.inputs == counts
    after = _swapped(counts, planned.inputs, [*planned.wanted, *_rest(planned, 0)])
    while (planned := plan_refill(GOAL, after, fee_ppk=0)) is not None:
        after = _swapped(after, planned.inputs, [*planned.wanted, *_rest(planned, 0)])
    assert all(2 * after[coin] >= target for coin, target in GOAL.targets(2**17).items())
    assert worth(after) == 2**17


def _rest(planned: object, ppk: int) -> list[int]:
    inputs, wanted = planned.inputs, planned.wanted  # type: ignore[attr-defined]  # a Refill
    return fewest(worth(inputs) - fee([ppk] * sum(inputs.values())) - sum(wanted), POWERS)


def _swapped(counts: dict[int, int], inputs: object, outputs: list[int]) -> dict[int, int]:
    taken = dict(inputs)  # type: ignore[call-overload]  # counts
    left = {coin: counts.get(coin, 0) - taken.get(coin, 0) for coin in {*counts, *outputs}}
    return {coin: count + outputs.count(coin) for coin, count in left.items()}


@given(counts=PURSES, ppk=st.sampled_from([0, 100, 1000]))
def test_a_plan_is_within_its_means_and_helps(counts: dict[int, int], ppk: int) -> None:
    planned = plan_refill(GOAL, counts, fee_ppk=ppk)
    if planned is None:
        return
    targets = GOAL.targets(worth(counts))
    inputs = sum(planned.inputs.values())
    assert 0 < inputs <= INPUTS_MAX
    assert len(planned.wanted) <= OUTPUTS_MAX
    for coin, count in planned.inputs.items():
        assert count <= counts[coin] - targets.get(coin, 0)
    for coin in planned.wanted:
        assert counts.get(coin, 0) + planned.wanted.count(coin) <= targets[coin]
    rest = worth(planned.inputs) - fee([ppk] * inputs) - sum(planned.wanted)
    assert rest >= 0
    if not planned.wanted:
        assert len(fewest(rest, POWERS)) < inputs


@given(amount=st.integers(1, 9_000), held=st.integers(200_000, 10**6))
def test_a_full_float_gives_exact_change(amount: int, held: int) -> None:
    """Without a single coin beyond it, and in a token of at most 100 proofs."""
    full = GOAL.targets(held)
    chosen = choose_exact(full, amount, proofs_max=100)
    assert chosen is not None
    assert worth(chosen) == amount


def test_the_small_change_of_a_crowd_is_melted_together() -> None:
    planned = plan_refill(GOAL, {1: 3_000}, fee_ppk=0)
    assert planned is not None
    assert planned.inputs == {1: INPUTS_MAX} or planned.wanted
    counts = {1: 3_000}
    for _ in range(40):
        planned = plan_refill(GOAL, counts, fee_ppk=0)
        if planned is None:
            break
        counts = _swapped(counts, planned.inputs, [*planned.wanted, *_rest(planned, 0)])
    assert planned is None
    assert max(counts.values()) <= 4 * 32 + 32
    assert worth(counts) == 3_000


def test_nothing_is_melted_into_what_the_keyset_has_not() -> None:
    ones = FloatGoal(denominations=(1,), coins=32, coin_max=1024)
    assert plan_refill(ones, {1: 3_000}, fee_ppk=0) is None


@given(
    amount=st.integers(0, 5_000),
    lacking=st.dictionaries(st.sampled_from(POWERS[:11]), st.integers(1, 32)),
)
def test_a_payment_fills_the_float_and_makes_every_smaller_amount(
    amount: int, lacking: dict[int, int]
) -> None:
    coins = split_for_float(amount, POWERS, lacking)
    assert sum(coins) == amount
    rest_max = amount.bit_length()
    assert len(coins) <= len(split_for_float(amount, POWERS)) + FILL_MAX + rest_max
    reach = 0
    for coin in coins:
        assert coin <= reach + 1
        reach += coin


def test_what_lacks_comes_round_by_round() -> None:
    assert split_for_float(21, POWERS) == [1, 2, 2, 4, 4, 8]
    assert split_for_float(21, POWERS, {1: 3, 2: 2, 8: 1}) == [1, 1, 1, 2, 2, 2, 4, 8]
    goal = FloatGoal(denominations=POWERS, coins=4, coin_max=4)
    assert goal.split(40, {1: 4, 2: 1, 4: 9}).count(2) == 3
