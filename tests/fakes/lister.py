"""An upstream that only lists its models, over plain HTTP on loopback, as scripted.

    async with FakeLister() as lister:
        lister.answer = {"data": [{"id": "gpt-4o-mini"}]}

`lister.status` and `lister.body` replace the answer; `lister.seen` are the requests.
"""

import json
from types import TracebackType
from typing import Any, Self

from aiohttp import web


class FakeLister:
    """The server; `base_url` ends in `/v1`."""

    def __init__(self) -> None:
        self.answer: Any = {"object": "list", "data": []}
        self.body: bytes | None = None
        self.status = 200
        self.headers: dict[str, str] = {}
        self.seen: list[web.BaseRequest] = []
        self._runner: web.ServerRunner | None = None

    async def __aenter__(self) -> Self:
        self._runner = web.ServerRunner(web.Server(self._serve), shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
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
    def base_url(self) -> str:
        assert self._runner is not None
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        self.seen.append(request)
        body = json.dumps(self.answer).encode() if self.body is None else self.body
        return web.Response(status=self.status, body=body, headers=self.headers)
