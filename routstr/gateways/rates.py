"""What a bitcoin costs in USD, as public tickers say it; who is believed, `core.rates` decides.

Each is asked once, all at the same time, over `OutsideHttp`. An answer is a stranger's: it gives a
number or nothing, and one that is silent, late or wrong never keeps the others from being heard.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

import orjson
import structlog

from routstr.core.prices import decimal_from
from routstr.gateways.addresses import OutsideFailure, OutsideHttp

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticker:
    """A public source: its name, where it is, and the way to the number within its JSON."""

    name: str
    url: str
    way: Sequence[str | int]


TICKERS: Final = (
    Ticker(
        name="kraken",
        url="https://api.kraken.com/0/public/Ticker?pair=XBTUSD",
        way=("result", "XXBTZUSD", "c", 0),
    ),
    Ticker(
        name="coinbase",
        url="https://api.coinbase.com/v2/prices/BTC-USD/spot",
        way=("data", "amount"),
    ),
    Ticker(
        name="bitstamp",
        url="https://www.bitstamp.net/api/v2/ticker/btcusd/",
        way=("last",),
    ),
    Ticker(
        name="bitfinex",
        url="https://api-pub.bitfinex.com/v2/ticker/tBTCUSD",
        way=(6,),
    ),
    Ticker(
        name="mempool.space",
        url="https://mempool.space/api/v1/prices",
        way=("USD",),
    ),
)


class RateSources:
    """The tickers, over `OutsideHttp`, which must be open while they are asked."""

    def __init__(self, http: OutsideHttp, tickers: Sequence[Ticker] = TICKERS) -> None:
        self._http = http
        self._tickers = tickers

    async def ask(self) -> Mapping[str, Decimal]:
        """What each says that says anything, by its name."""
        answers = await asyncio.gather(*(self._ask(ticker) for ticker in self._tickers))
        named = zip(self._tickers, answers, strict=True)
        return {ticker.name: value for ticker, value in named if value is not None}

    async def _ask(self, ticker: Ticker) -> Decimal | None:
        try:
            answer = await self._http.get(ticker.url)
        except OutsideFailure as failure:
            log.info("rate_source_silent", host=ticker.name, reason=str(failure))
            return None
        value = _at(answer.body, ticker.way) if answer.status == 200 else None
        if value is None:
            log.info("rate_source_unusable", host=ticker.name, status=answer.status)
        return value


def _at(body: bytes, way: Sequence[str | int]) -> Decimal | None:
    """The number at the end of the way, if it is one."""
    try:
        found = orjson.loads(body)
        for step in way:
            found = found[step]
    except (orjson.JSONDecodeError, LookupError, TypeError):
        return None
    return decimal_from(found)
