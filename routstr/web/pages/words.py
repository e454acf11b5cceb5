"""How pages write what is a number in the ledger: amounts, times, ids, sizes.

Amounts are msat everywhere below; people read sats, with the msat behind a decimal point. Digits
are grouped by a thin space. The same words are used by every page, so no template formats.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from routstr.core.money import MSAT_PER_SAT
from routstr.flows.house.overview import why_failed
from routstr.web.pages.qr import qr

THIN: Final = "\u2009"
MINUTE_S: Final = 60
HOUR_S: Final = 3600
DAY_S: Final = 86_400


def grouped(number: int) -> str:
    """`1234567` as `1 234 567`, with thin spaces."""
    return f"{number:,}".replace(",", THIN)


def sats(amount_msat: int) -> str:
    """An amount in sats; with its msat only where there are any: `1 234`, `0.204`, `-3.5`."""
    whole, rest = divmod(abs(amount_msat), MSAT_PER_SAT)
    decimals = f".{rest:03}".rstrip("0") if rest else ""
    sign = "-" if amount_msat < 0 else ""
    return f"{sign}{grouped(whole)}{decimals}"


def shortened(text: str, head: int = 10, tail: int = 6) -> str:
    """A long id with its middle left out."""
    return text if len(text) <= head + tail + 1 else f"{text[:head]}…{text[-tail:]}"


def instant(moment: datetime | None) -> str:
    """A time as people read it, in UTC, to the second."""
    return "never" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}"


def ago(moment: datetime | None, now: datetime) -> str:
    """How long ago, or how far ahead, in one unit."""
    if moment is None:
        return "never"
    seconds = int((now - moment).total_seconds())
    said = lasting(abs(seconds))
    return f"in {said}" if seconds < 0 else f"{said} ago"


def lasting(seconds: int) -> str:
    """A span in its largest whole unit."""
    for unit_s, name in ((DAY_S, "d"), (HOUR_S, "h"), (MINUTE_S, "min")):
        if seconds >= unit_s:
            return f"{seconds // unit_s} {name}"
    return f"{seconds} s"


def sized(count_bytes: int) -> str:
    """A size in its largest unit, with one decimal below 10: `812 B`, `4.2 kB`, `17 MB`."""
    sizes = (("GB", 10**9), ("MB", 10**6), ("kB", 10**3))
    unit, scale = next((each for each in sizes if count_bytes >= each[1]), ("B", 1))
    tenths = count_bytes * 10 // scale
    said = f"{tenths // 10}.{tenths % 10}" if scale > 1 and tenths < 100 else str(tenths // 10)
    return f"{said} {unit}"


def clock(unix_s: int) -> str:
    """A point of a chart as people read it, in UTC, to the minute."""
    return f"{datetime.fromtimestamp(unix_s, UTC):%Y-%m-%d %H:%M}"


def dollars(text: str) -> str:
    """A decimal with its whole part grouped: `97250.5` as `97 250.5`."""
    whole, point, rest = text.partition(".")
    return f"{grouped(int(whole))}{point}{rest}" if whole.isdigit() else text


def bare_sats(amount_msat: int) -> str:
    """An amount in sats as a form takes it back: `1234.5`."""
    return sats(amount_msat).replace(THIN, "")


def host(url: str) -> str:
    """A URL without what every one has: `mint.example.com/path`."""
    return url.partition("://")[2].rstrip("/") or url


FILTERS: Final[Mapping[str, Callable[..., Any]]] = {
    "grouped": grouped,
    "sats": sats,
    "shortened": shortened,
    "instant": instant,
    "ago": ago,
    "lasting": lasting,
    "sized": sized,
    "clock": clock,
    "dollars": dollars,
    "bare_sats": bare_sats,
    "host": host,
    "qr": qr,
    "why_failed": why_failed,
}
