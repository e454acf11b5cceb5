"""Which denominations make an amount (NUT-00): powers of two, in the mint's unit."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from routstr.ecash.errors import InvalidAmount

AMOUNT_MAX: Final = 2**53
"""The most a token or an output may be worth: in sat it still fits 64 bits of msat, and JSON."""

OUTPUTS_MAX: Final = 512
"""The most outputs one split may need, should a keyset have small denominations only."""


FILL_MAX: Final = 32
"""How many coins one payment adds to a lacking float: the payer waits for each to be signed."""


def split(amount: int) -> list[int]:
    """The ascending powers of two that make `amount`; none for 0. Raises InvalidAmount."""
    _check(amount)
    return [1 << bit for bit in range(amount.bit_length()) if amount >> bit & 1]


def split_for_float(
    amount: int, available: Iterable[int], lacking: Mapping[int, int] | None = None
) -> list[int]:
    """Ascending powers of two, all `available`, that make `amount` and every smaller amount.

    First 1, 2, 4 … while they fit: a complete purse. Then of what is `lacking` (counts per coin),
    round by round, the small before the large, at most FILL_MAX. The rest, the largest first, only
    ever adds coins no larger than the purse holds, so no gap opens. Where the keyset itself has
    gaps, the sum is still exact. Raises InvalidAmount if the denominations cannot make the amount.
    """
    _check(amount)
    coins = sorted(each for each in set(available) if each > 0 and each & (each - 1) == 0)
    chosen: list[int] = []
    left = amount
    for step, coin in enumerate(coins):
        if coin != 1 << step or coin > left:
            break
        chosen.append(coin)
        left -= coin
    fill = _fill(left, coins, lacking or {}, chosen)
    chosen += fill
    left -= sum(fill)
    for coin in reversed(coins):
        count = left // coin
        if len(chosen) + count > OUTPUTS_MAX:
            raise InvalidAmount("the keyset's denominations are too small for the amount")
        chosen += [coin] * count
        left -= coin * count
    if left:
        raise InvalidAmount("the keyset's denominations cannot make the amount")
    return sorted(chosen)


def _fill(
    amount: int, coins: Iterable[int], lacking: Mapping[int, int], chosen: list[int]
) -> list[int]:
    """Lacking coins within the amount, one of each a round, beyond those chosen already.

    Only where the keyset has a 1: else a small coin might leave a rest that nothing makes.
    """
    coins = list(coins)
    wanted = {coin: lacking.get(coin, 0) - chosen.count(coin) for coin in coins}
    fill: list[int] = []
    while coins and coins[0] == 1:
        added = 0
        for coin in coins:
            if wanted[coin] > 0 and coin <= amount and len(fill) < FILL_MAX:
                fill.append(coin)
                wanted[coin] -= 1
                amount -= coin
                added += 1
        if not added:
            break
    return fill


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatGoal:
    """The change float a node wants of one keyset: so many of each coin up to a largest one.

    Coins tie up value, so of a small holding each denomination gets an equal share, and all of
    them together at most half of it.
    """

    denominations: tuple[int, ...]
    coins: int
    coin_max: int

    def targets(self, held_amount: int) -> dict[int, int]:
        """How many of each coin to have, holding so much in all."""
        kept = [d for d in self.denominations if 0 < d <= self.coin_max and d & (d - 1) == 0]
        return {each: min(self.coins, held_amount // (2 * len(kept) * each)) for each in kept}

    def lacking(self, counts: Mapping[int, int], held_amount: int) -> dict[int, int]:
        """How many of each coin there are too few."""
        short = {
            coin: target - counts.get(coin, 0) for coin, target in self.targets(held_amount).items()
        }
        return {coin: count for coin, count in sorted(short.items()) if count > 0}

    def split(self, amount: int, counts: Mapping[int, int]) -> list[int]:
        """The coins to take for `amount`, having those. Raises as `split_for_float`."""
        held_amount = amount + sum(coin * count for coin, count in counts.items())
        return split_for_float(amount, self.denominations, self.lacking(counts, held_amount))


def _check(amount: int) -> None:
    if not 0 <= amount <= AMOUNT_MAX:
        raise InvalidAmount("an amount lies between 0 and 2**53")
