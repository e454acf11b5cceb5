"""Which of the coins at hand to give: exactly an amount, or enough for it and the mint's fee.

A purse is a count per denomination. Denominations are powers of two, each dividing the next, so
taking the largest that fits finds an exact choice whenever there is one.
"""

from collections.abc import Mapping
from typing import Final

from routstr.ecash.keyset import fee

Purse = Mapping[int, int]

ROUNDS_MAX: Final = 64
"""How often a rising fee may ask for more; each round adds a coin, so this never binds."""


def choose_exact(purse: Purse, amount: int, *, proofs_max: int) -> dict[int, int] | None:
    """Counts per denomination that make exactly `amount` with at most `proofs_max`, or None."""
    chosen = _largest_first(purse, amount)
    if worth(chosen) != amount or sum(chosen.values()) > proofs_max:
        return None
    return chosen


def choose_cover(purse: Purse, amount: int, *, fee_ppk: int) -> dict[int, int] | None:
    """Counts worth at least `amount` plus the fee of spending them (NUT-02), or None.

    `fee_ppk` is the highest fee of the keysets involved, so the choice never falls short.
    """
    chosen: dict[int, int] = {}
    for _ in range(ROUNDS_MAX):
        target = amount + fee([fee_ppk] * sum(chosen.values()))
        if chosen and worth(chosen) >= target:
            return chosen
        wider = _covering(purse, target)
        if wider is None:
            return None
        chosen = wider
    return None


def worth(counts: Purse) -> int:
    """What those coins are worth together."""
    return sum(denomination * count for denomination, count in counts.items())


def _covering(purse: Purse, target: int) -> dict[int, int] | None:
    chosen = _largest_first(purse, target)
    missing = target - worth(chosen)
    if missing <= 0:
        return chosen
    left = {coin: count - chosen.get(coin, 0) for coin, count in purse.items()}
    enough = [coin for coin, count in left.items() if count > 0 and coin >= missing]
    if not enough:
        return None
    chosen[min(enough)] = chosen.get(min(enough), 0) + 1
    return chosen


def _largest_first(purse: Purse, amount: int) -> dict[int, int]:
    chosen: dict[int, int] = {}
    for coin in sorted(purse, reverse=True):
        count = min(purse[coin], amount // coin)
        if count > 0:
            chosen[coin] = count
            amount -= coin * count
    return chosen
