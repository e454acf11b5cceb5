"""A Lightning address's server: TLS on loopback, names of its own, and answers as scripted.

    async with FakePayee() as payee:
        async with OutsideHttp(resolver=payee, loopback_server=payee.server) as http:
            params = await LnurlClient(http).resolve("alice@pay.example")

It is its own resolver: `payee.addresses` says what a name resolves to, loopback if nothing else.
It answers as LUD-06 and LUD-16 say unless `payee.answers` holds a reply for the path.
"""

import asyncio
import hashlib
import json
import os
import ssl
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Final, Self

from aiohttp import web

from routstr.gateways.addresses import LoopbackServer
from tests.fakes.invoices import CREATED_AT, invoice
from tests.fakes.tls import Authority

METADATA: Final = '[["text/plain","Pay to alice"]]'
METADATA_HASH: Final = hashlib.sha256(METADATA.encode()).digest()
NAMES: Final = ("pay.example", "cdn.example")


class FakePayee:
    """The server, its certificate authority, and the name server that knows it."""

    def __init__(self, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> None:
        self.calls: list[web.BaseRequest] = []
        self.asked: list[str] = []  # names, as often as they were resolved
        self.addresses: dict[str, Sequence[str]] = {}
        self.answers: dict[str, web.StreamResponse | asyncio.Event] = {}
        self.pay_answer: dict[str, object] = {}  # what differs from an ordinary answer
        self.invoice_answer: dict[str, object] = {}
        self.created_at = CREATED_AT  # of its invoices
        self._host = host
        self._authority = Authority()
        self._tls = tls or self._authority.context_for(*NAMES)
        self._runner: web.ServerRunner | None = None

    async def __aenter__(self) -> Self:
        self._runner = web.ServerRunner(web.Server(self._answer), shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, 0, ssl_context=self._tls)
        await site.start()
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

    async def resolve(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        addresses = self.addresses.get(host, [self._host])
        if not addresses:
            raise OSError("no such name")
        return addresses

    def close(self) -> None:
        """A resolver's; there is nothing to give back."""

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.calls.append(request)
        scripted = self.answers.get(request.path)
        if isinstance(scripted, asyncio.Event):
            await scripted.wait()
        elif scripted is not None:
            return scripted
        if request.path.startswith("/.well-known/lnurlp/"):
            return reply({**self.pay_request, **self.pay_answer})
        amount_msat = int(request.query["amount"])
        bolt11 = invoice(
            amount_msat,
            description=METADATA_HASH,
            payment_hash=os.urandom(32),
            created_at=self.created_at,
        )
        return reply({"pr": bolt11, "routes": [], **self.invoice_answer})

    @property
    def pay_request(self) -> Mapping[str, object]:
        return {
            "tag": "payRequest",
            "callback": "https://pay.example/pay/?user=alice",
            "minSendable": 1_000,
            "maxSendable": 100_000_000,
            "metadata": METADATA,
        }


def reply(value: object, *, status: int = 200) -> web.Response:
    return web.Response(
        status=status, body=json.dumps(value).encode(), content_type="application/json"
    )
