"""Money: integers of millisatoshi, their units, and the only division in the house.

Laws: what is owed rounds up, once; what is paid out rounds down; no float comes near.
Every amount fits a signed 64-bit column, which holds four times all the bitcoin there will be.
"""

from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Final, NewType

from routstr.errors import InvalidParameter

Msat = NewType("Msat", int)
Sat = NewType("Sat", int)

MSAT_PER_SAT: Final = 1000
INT64_MAX: Final = 2**63 - 1

_MSAT_PER_UNIT: Final = {"sat": MSAT_PER_SAT, "msat": 1}
_MSAT_PER_BTC_DIGITS: Final = 11  # 1 BTC = 10^11 msat
_USD_STEP: Final = Decimal("1e-12")  # a millisatoshi is worth about 10^-6 USD
_BTC_USD_MAX: Final = Decimal("1e12")
_DECIMALS: Final = Context(prec=60, rounding=ROUND_HALF_EVEN)


def ceil_div(numerator: int, denominator: int) -> int:
    """The quotient rounded up: what is owed."""
    return -(-numerator // denominator)


def floor_div(numerator: int, denominator: int) -> int:
    """The quotient rounded down: what is paid out."""
    return numerator // denominator


def is_int64(value: object) -> bool:
    """Whether `value` is an integer (no bool) between 0 and the largest a money column holds."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= INT64_MAX


def msat_from_unit(amount: int, unit: str) -> Msat:
    """An amount of a mint's unit (sat, msat) in msat. Raises InvalidParameter on other units."""
    return Msat(amount * _msat_per(unit))


def unit_from_msat(amount_msat: int, unit: str) -> int:
    """The whole units (sat, msat) within `amount_msat`; the remainder stays with its owner."""
    return amount_msat // _msat_per(unit)


def sats_text(amount_msat: int) -> str:
    """An amount of at least 0 msat in sats, exactly, as the text of a JSON number: `0.204`."""
    sats, msats = divmod(amount_msat, MSAT_PER_SAT)
    return f"{sats}.{msats:03d}".rstrip("0").rstrip(".")


def usd_text(amount_msat: int, btc_usd: Decimal) -> str:
    """What `amount_msat` is worth in USD, as the text of a JSON number without exponent.

    Rounded to 10^-12 USD. Raises InvalidParameter on a rate that is no sane number: a rate comes
    from outside, and its text ends up in an answer.
    """
    if not btc_usd.is_finite() or not 0 <= btc_usd <= _BTC_USD_MAX:
        raise InvalidParameter("The exchange rate is not a usable number.", param="btc_usd")
    usd = _DECIMALS.scaleb(_DECIMALS.multiply(Decimal(amount_msat), btc_usd), -_MSAT_PER_BTC_DIGITS)
    text = format(_DECIMALS.quantize(usd, _USD_STEP), "f")
    return text.rstrip("0").rstrip(".")


def _msat_per(unit: str) -> int:
    """Msat in one `unit`."""
    msat = _MSAT_PER_UNIT.get(unit)
    if msat is None:
        raise InvalidParameter("The unit must be sat or msat.", param="unit")
    return msat
