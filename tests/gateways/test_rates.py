"""Public tickers over real TLS: what each says, and that a bad one silences nobody else."""

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal

import pytest
from aiohttp import web

from routstr.gateways.addresses import OutsideHttp
from routstr.gateways.rates import TICKERS, RateSources
from tests.fakes.tickers import SHAPES, FakeTickers


@pytest.fixture
async def tickers() -> AsyncIterator[FakeTickers]:
    async with FakeTickers("67890.5") as server:
        yield server


@pytest.fixture
async def sources(tickers: FakeTickers) -> AsyncIterator[RateSources]:
    async with OutsideHttp(resolver=tickers, loopback_server=tickers.server, total_s=0.5) as http:
        yield RateSources(http)


async def test_each_is_read(tickers: FakeTickers, sources: RateSources) -> None:
    said = dict(await sources.ask())
    assert set(said) == {each.name for each in TICKERS}
    assert said.pop("mempool.space") == Decimal(67890)
    assert set(said.values()) == {Decimal("67890.5")}
    assert sorted(tickers.asked) == sorted(SHAPES)


async def test_who_says_nothing_usable_is_left_out(
    tickers: FakeTickers, sources: RateSources
) -> None:
    tickers.answers = {
        "api.kraken.com": web.Response(body=b'{"result": {"XXBTZUSD": {"c": []}}}'),
        "api.coinbase.com": web.Response(body=b'{"data": {"amount": "1e999999"}}'),
        "www.bitstamp.net": web.Response(body=b"[" * 300_000),
        "api-pub.bitfinex.com": asyncio.Event(),
    }
    assert await sources.ask() == {"mempool.space": Decimal(67890)}


@pytest.mark.parametrize(
    "body", [b"", b"null", b"3", b"\xff", b'{"USD": -1}', b'{"USD": true}', b'{"USD": NaN}']
)
async def test_nonsense_is_no_rate(tickers: FakeTickers, sources: RateSources, body: bytes) -> None:
    tickers.say()
    tickers.answers = {"mempool.space": web.Response(body=body)}
    assert await sources.ask() == {}
