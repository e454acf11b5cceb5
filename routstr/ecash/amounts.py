"""Which denominations make an amount (NUT-00): powers of two, in the mint's unit."""

from collections.abc import Iterable
from typing import Final

from routstr.ecash.errors import InvalidAmount

AMOUNT_MAX: Final = 2**53
"""The most a token or an output may be worth: in sat it still fits 64 bits of msat, and JSON."""

OUTPUTS_MAX: Final = 512
"""The most outputs one split may need, should a keyset have small denominations only."""


def split(amount: int) -> list[int]:
    """The ascending powers of two that make `amount`; none for 0. Raises InvalidAmount."""
    _check(amount)
    return [1 << bit for bit in range(amount.bit_length()) if amount >> bit & 1]


def split_for_float(amount: int, available: Iterable[int]) -> list[int]:
    """Ascending powers of two, all `available`, that make `amount` and every smaller amount.

    First 1, 2, 4 … while they fit: a complete purse. The rest, the largest first, only ever adds
    coins no larger than the purse holds, so no gap opens. Where the keyset itself has gaps, the
    sum is still exact. Raises InvalidAmount if the denominations cannot make the amount.
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
    for coin in reversed(coins):
        count = left // coin
        if len(chosen) + count > OUTPUTS_MAX:
            raise InvalidAmount("the keyset's denominations are too small for the amount")
        chosen += [coin] * count
        left -= coin * count
    if left:
        raise InvalidAmount("the keyset's denominations cannot make the amount")
    return sorted(chosen)


def _check(amount: int) -> None:
    if not 0 <= amount <= AMOUNT_MAX:
        raise InvalidAmount("an amount lies between 0 and 2**53")
