"""Public tickers of BTC/USD: TLS on loopback under their real names, answers as scripted.

    async with FakeTickers("100000") as tickers:
        async with OutsideHttp(resolver=tickers, loopback_server=tickers.server) as http:
            said = await RateSources(http).ask()

`tickers.rates` holds what each says by its host, None for one that is down; `tickers.answers` a
whole answer instead.
"""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

from aiohttp import web

from routstr.gateways.addresses import LoopbackServer
from tests.fakes.tls import Authority

SHAPES: Final[Mapping[str, Callable[[str], Any]]] = {
    "api.kraken.com": lambda rate: {"error": [], "result": {"XXBTZUSD": {"c": [rate, "0.01"]}}},
    "api.coinbase.com": lambda rate: {"data": {"amount": rate, "base": "BTC", "currency": "USD"}},
    "www.bitstamp.net": lambda rate: {"timestamp": "1", "last": rate, "high": "9999999"},
    "api-pub.bitfinex.com": lambda rate: [1, 2, 3, 4, 5, 6, float(rate), 8, 9, 10],
    "mempool.space": lambda rate: {"time": 1, "USD": int(float(rate)), "EUR": 1},
}


class FakeTickers:
    """The server, its certificate authority, and the name server that knows it."""

    def __init__(self, rate: str) -> None:
        self.rates: dict[str, str | None] = dict.fromkeys(SHAPES, rate)
        self.answers: dict[str, web.Response | asyncio.Event] = {}
        self.asked: list[str] = []
        self._authority = Authority()
        self._tls = self._authority.context_for(*SHAPES)
        self._runner: web.ServerRunner | None = None

    async def __aenter__(self) -> Self:
        self._runner = web.ServerRunner(web.Server(self._answer), shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls).start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    @property
    def server(self) -> LoopbackServer:
        """How a client under test reaches it."""
        assert self._runner is not None
        return LoopbackServer(port=self._runner.addresses[0][1], ca_pem=self._authority.pem)

    def say(self, *rates: str | None) -> None:
        """What each says from now on, in the order of SHAPES; the rest are down."""
        self.rates = dict(zip(SHAPES, [*rates, *[None] * len(SHAPES)], strict=False))

    async def resolve(self, host: str) -> Sequence[str]:
        if host not in SHAPES:
            raise OSError("no such name")
        return ["127.0.0.1"]

    def close(self) -> None:
        """A resolver's; there is nothing to give back."""

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked.append(request.host)
        scripted = self.answers.get(request.host)
        if isinstance(scripted, asyncio.Event):
            await scripted.wait()
        elif scripted is not None:
            return scripted
        rate = self.rates[request.host]
        if rate is None:
            return web.Response(status=503)
        body = json.dumps(SHAPES[request.host](rate)).encode()
        return web.Response(body=body, content_type="application/json")
