"""Customers who buy from one or several nodes for a while, and know what they were told it cost."""

import asyncio
import json
import secrets
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Self

import httpx

from bench.scene import ok
from demo.mint import RealMint
from demo.process import NO_TLS
from demo.wallet import Wallet

TIMEOUT_S: Final = 60
WALLET_SAT: Final = 30_000
TOKENS: Final = 24
PAGE: Final = 200


@dataclass(slots=True, kw_only=True)
class Key:
    """A funded key, and the cost of each answer that its customer got whole, by request id."""

    text: str = field(repr=False)
    funds_msat: int
    told: dict[str, int] = field(default_factory=dict)

    @property
    def headers(self) -> dict[str, str]:
        """As a client shows it."""
        return {"authorization": f"Bearer {self.text}"}


@dataclass(slots=True, kw_only=True)
class Crowd:
    """What they asked, and what became of it."""

    http: httpx.AsyncClient
    wallet: Wallet
    url: str
    statuses: Counter[int] = field(default_factory=Counter)
    failed: int = 0
    complaints: list[str] = field(default_factory=list)
    is_over: asyncio.Event = field(default_factory=asyncio.Event)

    @classmethod
    @asynccontextmanager
    async def opened(cls, mint: RealMint, url: str) -> AsyncIterator[Self]:
        """With a wallet of freshly minted ecash; keys are made at the node of that URL."""
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        async with (
            Wallet(mint.url, seed=secrets.token_bytes(64)) as wallet,
            httpx.AsyncClient(
                timeout=TIMEOUT_S, trust_env=False, limits=limits, verify=NO_TLS
            ) as http,
        ):
            await wallet.mint(WALLET_SAT)
            yield cls(http=http, wallet=wallet, url=url)

    @property
    def asked(self) -> int:
        """How many requests were answered, or broke off."""
        return self.statuses.total() + self.failed

    def end(self) -> None:
        """Whoever buys goes home after this answer."""
        self.is_over.set()

    async def key(self, sats: int) -> Key:
        """A new one."""
        token = await self.wallet.send(sats)
        body = {"initial_balance_token": token}
        answer = ok(await self.http.post(f"{self.url}/v1/balance/create", json=body))
        return Key(text=answer["api_key"], funds_msat=int(answer["balance"]))

    async def whole(self, key: Key, url: str, count: int, *, at_once: int) -> None:
        """So many whole answers, over so many connections."""
        left = iter(range(count))

        async def buyer() -> None:
            for _ in left:
                await self._buy(key, url)

        await asyncio.gather(*(buyer() for _ in range(at_once)))

    async def load(self, key: Key, url: str) -> None:
        """Whole answers and streams in turn, until it is over, or nobody answers there."""
        while not self.is_over.is_set():
            failed = self.failed
            await self._buy(key, url)
            await self._stream(key, url)
            if self.failed >= failed + 2:
                return  # that node is dead

    async def lost_msat(self, key: Key, url: str) -> int:
        """By how much the books differ from the money: what is there, what was taken, what each
        customer was told it cost."""
        info = ok(await self.http.get(f"{url}/v1/balance/info", headers=key.headers))
        rows = await self._usage(key, url)
        taken_msat = sum(rows.values())
        wrong = abs(key.funds_msat - taken_msat - int(info["balance"])) + int(info["reserved"])
        return wrong + sum(
            abs(rows.get(request_id, 0) - cost) for request_id, cost in key.told.items()
        )

    async def _usage(self, key: Key, url: str) -> dict[str, int]:
        """What each request of the key was charged."""
        found: dict[str, int] = {}
        before: str | None = None
        while True:
            query = {"limit": PAGE} | ({"before": before} if before else {})
            page = ok(
                await self.http.get(
                    f"{url}/v1/balance/transactions", headers=key.headers, params=query
                )
            )
            found |= {
                str(row["request_id"]): -int(row["amount_msats"])
                for row in page["transactions"]
                if row["type"] == "usage"
            }
            before = page.get("next_before")
            if not before:
                return found

    async def _buy(self, key: Key, url: str) -> None:
        try:
            answer = await self.http.post(
                f"{url}/v1/chat/completions", json=_order(stream=False), headers=key.headers
            )
        except httpx.TransportError as error:
            self._note_failure(type(error).__name__)
            return
        self._note(answer.status_code, answer.text)
        if answer.status_code == httpx.codes.OK:
            cost = answer.json()["usage"]["cost"]
            key.told[answer.headers["x-routstr-request-id"]] = int(cost["total_msats"])

    async def _stream(self, key: Key, url: str) -> None:
        said: dict[str, Any] = {}
        try:
            async with self.http.stream(
                "POST",
                f"{url}/v1/chat/completions",
                json=_order(stream=True),
                headers=key.headers,
            ) as answer:
                is_whole = False
                async for line in answer.aiter_lines():
                    is_whole = is_whole or line == "data: [DONE]"
                    if line.startswith(": routstr "):
                        said = json.loads(line[10:])
        except httpx.TransportError as error:
            self._note_failure(type(error).__name__)
            return
        if answer.status_code == httpx.codes.OK and not (is_whole and said):
            self._note_failure("a stream that broke off")
            return
        self._note(answer.status_code, "")
        if said:
            request_id = answer.headers["x-routstr-request-id"]
            key.told[request_id] = int(said["cost"]["total_msats"])

    def _note(self, status: int, text: str) -> None:
        if status >= httpx.codes.INTERNAL_SERVER_ERROR:
            self._note_failure(f"{status} {text[:200]}")
        else:
            self.statuses[status] += 1

    def _note_failure(self, why: str) -> None:
        self.failed += 1
        self.complaints.append(why)


def _order(*, stream: bool) -> dict[str, object]:
    message = {"role": "user", "content": "Say it slowly, please."}
    return {"model": "demo/small", "messages": [message], "max_tokens": TOKENS, "stream": stream}
