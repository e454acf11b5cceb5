"""The whole node as its composition root makes it, in this process, at a model mint.

    async with open_desk(database_url, mint, tmp_path) as desk:
        answer = await desk.http.post("/v1/balance/create", json={…})

Nothing of it is replaced; only the HTTP server is left out, so requests arrive as ASGI messages.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
from fastapi import FastAPI

from demo.servers import MODELS_FILE
from routstr.app import create_app
from routstr.config import Settings
from routstr.flows.audit import audit
from routstr.flows.context import Context
from tests.fakes.mint import FakeMint

SECRET: Final = "desk-secret-0123456789-0123456789-0123456789"
Answer = dict[str, Any]


@dataclass(slots=True, kw_only=True)
class Desk:
    """The running node and a client at its door."""

    app: FastAPI
    ctx: Context
    mint: FakeMint
    http: httpx.AsyncClient

    async def create(self, amount: int = 21, unit: str = "sat", **more: Any) -> "Customer":
        """A key bought over HTTP."""
        token = self.mint.issue(amount, unit)
        answer = await self.http.post(
            "/v1/balance/create", json={"initial_balance_token": token, **more}
        )
        assert answer.status_code == 200, answer.text
        return Customer(desk=self, token=token, key=answer.json()["api_key"])


@dataclass(slots=True, kw_only=True)
class Customer:
    """Somebody with a key, and the token it was bought with."""

    desk: Desk
    token: str
    key: str

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"}

    async def get(self, path: str, **more: Any) -> httpx.Response:
        return await self.desk.http.get(f"/v1/balance{path}", headers=self.headers, **more)

    async def post(
        self, path: str, body: object = None, *, repeat: str | None = None
    ) -> httpx.Response:
        headers = dict(self.headers)
        if repeat is not None:
            headers["idempotency-key"] = repeat
        return await self.desk.http.post(f"/v1/balance{path}", headers=headers, json=body)

    async def balance(self) -> int:
        answer = await self.get("/info")
        assert answer.status_code == 200, answer.text
        balance: int = answer.json()["balance"]
        return balance


@asynccontextmanager
async def open_desk(
    database_url: str,
    mint: FakeMint,
    data_dir: Path,
    *,
    asks_mint_at_end: bool = True,
    **settings: Any,
) -> AsyncIterator[Desk]:
    """`settings` are the node's own, in lower case. At the end its books are whole."""
    given = {
        "data_dir": data_dir,
        "database_url": database_url,
        "secret_key": SECRET,
        "cashu_mints": mint.url,
        "upstream_base_url": "http://127.0.0.1:9",
        "models_file": MODELS_FILE,
        "btc_usd_price": "100000",
        "allow_loopback_http": True,
        "mint_calls_per_minute": 60_000,
        "mint_calls_burst": 1_000,
        **settings,
    }
    app = create_app(Settings(_env_file=None, **given))  # type: ignore[call-arg]  # pydantic's own
    async with app.router.lifespan_context(app):
        ctx: Context = app.state.ctx
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://node") as http:
            yield Desk(app=app, ctx=ctx, mint=mint, http=http)
        report = await audit(ctx, full=True, deep=asks_mint_at_end)
        assert report.ok, [each for each in report.invariants if each.breaches]
