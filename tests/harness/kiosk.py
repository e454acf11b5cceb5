"""The whole node with something to sell, over real HTTP, for customers who have a token and no key.

    async with open_kiosk(database_url, mint, tmp_path) as kiosk:
        answer = await kiosk.buy(mint.issue(21))
        assert worth(answer.headers["x-cashu"]) == 20

At its end every exchange has ended, and the books are whole as the desk's are.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from demo.process import NO_TLS
from routstr.app import create_app
from routstr.config import Settings
from routstr.flows.audit import audit
from routstr.flows.context import Context
from tests.fakes.mint import FakeMint
from tests.fakes.upstream import FakeUpstream
from tests.harness.desk import SECRET
from tests.harness.shop import CHAT_MODEL, PATH, WAIT_S, Marks, order, serving, until
from tests.harness.till import worth

COST_MSAT: Final = 145
"""What the fake upstream's answer costs."""

MODELS: Final = {
    "models": [
        {
            "id": CHAT_MODEL.id,
            "context_length": CHAT_MODEL.context_length,
            "max_output_tokens": CHAT_MODEL.max_output_tokens,
            "input_msat_per_mtok": CHAT_MODEL.price.input_msat_per_mtok,
            "output_msat_per_mtok": CHAT_MODEL.price.output_msat_per_mtok,
            "request_msat": CHAT_MODEL.price.request_msat,
        }
    ]
}


@dataclass(slots=True, kw_only=True)
class Kiosk:
    """The running node; `marks` are its failpoints."""

    ctx: Context
    mint: FakeMint
    upstream: FakeUpstream
    marks: Marks
    port: int
    http: httpx.AsyncClient

    async def buy(self, token: str, **more: object) -> httpx.Response:
        """One chat completion, paid by that token."""
        return await self.http.post(PATH, headers={"x-cashu": token}, json=order(**more))

    async def change(self, url: str, *, token: str = "", secret: str = "") -> httpx.Response:
        """What is at a change URL, for whoever shows the token or the secret."""
        shown = {"x-cashu": token} if token else {"authorization": f"Bearer {secret}"}
        return await self.http.get(url, headers=shown)

    async def assert_claimable(self, answer: httpx.Response, token: str, amount: int) -> None:
        """By the token and by the secret, twice the same, until the mint says that it is spent."""
        url, secret = answer.headers["x-routstr-change"], answer.headers["x-routstr-claim-secret"]
        shown = await self.change(url, token=token)
        assert shown.status_code == 200, shown.text
        told = shown.json()
        assert (told["status"], told["sats"], worth(told["token"])) == (
            "ready",
            str(amount),
            amount,
        )
        assert told["cost"] % 1000 == (COST_MSAT if answer.is_success else 0)
        assert told["request_id"] == answer.headers["x-request-id"]
        assert told["id"] == url.rpartition("/")[2]
        assert shown.headers["cache-control"] == "no-store"
        again = await self.change(url.replace("balance", "wallet"), secret=secret)
        assert again.json() == told
        refunded = await self.http.post("/v1/balance/refund", headers={"x-cashu": token})
        assert refunded.json() == {"token": told["token"], "sats": str(amount)}
        assert refunded.headers["x-cashu"] == told["token"]

    async def quiet(self) -> None:
        """Wait until nothing runs any more but the node's own jobs."""
        await until(lambda: not len(self.ctx.tasks))


@asynccontextmanager
async def open_kiosk(
    database_url: str, mint: FakeMint, directory: Path, **settings: Any
) -> AsyncIterator[Kiosk]:
    """`settings` are the node's own, in lower case."""
    models = directory / "models.json"
    models.write_text(json.dumps(MODELS))
    marks = Marks()
    async with FakeUpstream() as upstream:
        given = {
            "data_dir": directory / "node",
            "database_url": database_url,
            "secret_key": SECRET,
            "cashu_mints": mint.url,
            "upstream_base_url": upstream.base_url,
            "models_file": models,
            "btc_usd_price": "60000",
            "allow_loopback_http": True,
            "mint_calls_per_minute": 60_000,
            "mint_calls_burst": 1_000,
            **settings,
        }
        app = create_app(Settings(_env_file=None, **given), failpoint=marks)  # type: ignore[call-arg]  # pydantic's own
        async with app.router.lifespan_context(app):
            ctx: Context = app.state.ctx
            async with (
                serving(app) as port,
                httpx.AsyncClient(
                    verify=NO_TLS, base_url=f"http://127.0.0.1:{port}", timeout=WAIT_S
                ) as http,
            ):
                kiosk = Kiosk(
                    ctx=ctx, mint=mint, upstream=upstream, marks=marks, port=port, http=http
                )
                yield kiosk
                async with asyncio.timeout(WAIT_S):
                    await kiosk.quiet()
            report = await audit(ctx, full=True, deep=True)
            assert report.ok, [each for each in report.invariants if each.breaches]
