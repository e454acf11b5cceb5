"""The exchange rate: when public sources agree on one, and when prices follow it.

Laws: a rate is the median of sources of which enough say nearly the same; one liar, or two of five,
move it no further than an honest source would. A jump that nobody can explain is not believed, and
a rate that is missing is never a guess: the last good one stays, until it is too old.
"""

from collections.abc import Iterable, Mapping
from decimal import Context, Decimal
from typing import Final

from routstr.core.prices import PPM

AGREEING_MIN: Final = 2
BAND_PPM: Final = 20_000  # how far a source may be from the median of all, 2 %
JUMP_PPM: Final = 250_000  # how far a rate may be from the last good one, 25 %
JUMP_SOURCES_MIN: Final = 3  # so many believe a jump beyond that
BTC_USD_MIN: Final = Decimal(100)
BTC_USD_MAX: Final = Decimal(10) ** 9
_EXACT: Final = Context(prec=60)


class NoRate(Exception):
    """The sources do not add up to a rate; the message says why."""


def agreed_rate(said: Mapping[str, Decimal], *, last: Decimal | None) -> Decimal:
    """USD for one bitcoin, from what each source says, after `last` as the last good one.

    Raises NoRate with fewer than two that agree, or for a jump that fewer than three vouch for.
    """
    sane = {name: value for name, value in said.items() if BTC_USD_MIN <= value <= BTC_USD_MAX}
    if len(sane) < AGREEING_MIN:
        raise NoRate(f"{len(sane)} of the sources gave a rate")
    middle = median(sane.values())
    agreeing = [value for value in sane.values() if is_near(value, middle, BAND_PPM)]
    if len(agreeing) < AGREEING_MIN or 2 * len(agreeing) <= len(sane):
        raise NoRate("the sources do not agree")
    rate = median(agreeing)
    jumped = last is not None and not is_near(rate, last, JUMP_PPM)
    if jumped and len(agreeing) < JUMP_SOURCES_MIN:
        raise NoRate("too few sources vouch for such a jump")
    return rate


def rate_in_force(seen: Decimal, before: Decimal | None, *, step_ppm: int) -> Decimal:
    """The rate that prices are made with: the one before, until it is off by `step_ppm`."""
    if before is not None and step_ppm and is_near(seen, before, step_ppm):
        return before
    return seen


def is_near(value: Decimal, other: Decimal, ppm: int) -> bool:
    """Whether they are less than `ppm` parts per million of `other` apart."""
    apart = abs(_EXACT.subtract(value, other))
    return _EXACT.multiply(apart, Decimal(PPM)) < _EXACT.multiply(other, Decimal(ppm))


def median(values: Iterable[Decimal]) -> Decimal:
    """The middle one; of an even number of them, half of the two in the middle together."""
    ordered = sorted(values)
    middle, odd = divmod(len(ordered), 2)
    if odd:
        return ordered[middle]
    return _EXACT.multiply(_EXACT.add(ordered[middle - 1], ordered[middle]), Decimal("0.5"))
