"""Which coins to break up, or to melt together, so that small change is at hand again.

Pure: counts per denomination in, counts out. A swap takes coins above what the float wants and
makes what it lacks; coins that the float wants are never broken up for others.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from routstr.ecash.amounts import FloatGoal
from routstr.ecash.keyset import fee
from routstr.ecash.selection import choose_cover, worth

INPUTS_MAX: Final = 250
OUTPUTS_MAX: Final = 128
"""Every output costs a tenth of a millisecond inside the ledger, where everybody waits."""

CROWDED: Final = 4
"""So many times the goal of one coin are more than anybody needs; they are made into larger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refill:
    """Counts to swap, and the coins to get for them; what is left over is the caller's to split."""

    inputs: Mapping[int, int]
    wanted: tuple[int, ...]


def plan_refill(goal: FloatGoal, counts: Mapping[int, int], *, fee_ppk: int) -> Refill | None:
    """What to swap, having those coins; None while no coin is below half its target, or crowded.

    `fee_ppk` is the highest fee of the keysets involved, so that the inputs cover the wanted.
    """
    targets = goal.targets(worth(counts))
    spare = {
        coin: count - targets.get(coin, 0)
        for coin, count in counts.items()
        if count > targets.get(coin, 0)
    }
    if any(2 * counts.get(coin, 0) < target for coin, target in targets.items()):
        found = _break_up(goal.lacking(counts, worth(counts)), spare, fee_ppk)
        if found is not None:
            return found
    return _melt_together(goal, spare, fee_ppk)


def fewest(amount: int, available: Iterable[int]) -> list[int]:
    """The fewest of the available coins that make `amount`, ascending; it must have a 1."""
    chosen: list[int] = []
    for coin in sorted(available, reverse=True):
        chosen += [coin] * (amount // coin)
        amount %= coin
    return chosen[::-1]


def _break_up(lacking: Mapping[int, int], spare: Mapping[int, int], ppk: int) -> Refill | None:
    """As much of the lacking as the spare coins make, the small before the large."""
    wanted = [coin for coin, count in sorted(lacking.items()) for _ in range(count)][:OUTPUTS_MAX]
    while wanted:
        inputs = choose_cover(spare, sum(wanted), fee_ppk=ppk)
        if inputs is not None and sum(inputs.values()) <= INPUTS_MAX:
            return Refill(inputs=inputs, wanted=tuple(wanted))
        wanted.pop()
    return None


def _melt_together(goal: FloatGoal, spare: Mapping[int, int], ppk: int) -> Refill | None:
    """The smallest crowded coin, where the keyset has larger ones."""
    for coin, count in sorted(spare.items()):
        if count > CROWDED * goal.coins and 2 * coin in goal.denominations:
            inputs = {coin: min(count, INPUTS_MAX)}
            if worth(inputs) > fee([ppk] * inputs[coin]):
                return Refill(inputs=inputs, wanted=())
    return None
