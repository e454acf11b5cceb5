"""Somebody with a browser at a running node; whatever a page complains of is heard."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import httpx
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page

from demo.mint import RealMint
from demo.wallet import Wallet
from tests.harness.process import NodeProcess

Theme = Literal["light", "dark"]

PATIENCE_MS: Final = 15_000
DESKTOP: Final = (1280, 900)
PHONE: Final = (390, 844)


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key with money on it."""

    text: str
    key_id: str

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.text}"}


@dataclass(slots=True, kw_only=True)
class House:
    """The running node and its mint."""

    node: NodeProcess
    mint: RealMint
    key_ids: list[str] = field(default_factory=list)  # of those that have bought something

    async def token(self, amount_sat: int) -> str:
        """Fresh ecash of the mint."""
        async with Wallet(self.mint.url, seed=secrets.token_bytes(64)) as wallet:
            await wallet.mint(amount_sat)
            return await wallet.send(amount_sat)

    async def key(self, amount_sat: int) -> Key:
        """A new key for fresh ecash."""
        body = {"initial_balance_token": await self.token(amount_sat)}
        async with httpx.AsyncClient(base_url=self.node.url, trust_env=False) as http:
            made = (await http.post("/v1/balance/create", json=body, timeout=30)).json()
        return Key(text=made["api_key"], key_id=made["key_id"])


@dataclass(kw_only=True)
class Visitor:
    """Somebody with a browser of his own: no cookie and no storage is anybody else's."""

    context: BrowserContext
    page: Page
    errors: list[str] = field(default_factory=list)

    def hear(self, page: Page) -> None:
        """Keep what the page complains about."""
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.errors.append(f"{page.url}: {error}"))

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(f"{message.location.get('url', '')}: {message.text}")


@asynccontextmanager
async def visiting(
    chromium: Browser,
    house: House,
    *,
    theme: Theme = "dark",
    size: tuple[int, int] = DESKTOP,
    state: Any = None,
) -> AsyncIterator[Visitor]:
    """A visitor of the node, who must hear no error; `state` is what another one has stored."""
    width, height = size
    context = await chromium.new_context(
        base_url=house.node.url,
        color_scheme=theme,
        viewport={"width": width, "height": height},
        is_mobile=size == PHONE,
        has_touch=size == PHONE,
        storage_state=state,
        permissions=["clipboard-read", "clipboard-write"],
        reduced_motion="reduce",
    )
    context.set_default_timeout(PATIENCE_MS)
    page = await context.new_page()
    visitor = Visitor(context=context, page=page)
    visitor.hear(page)
    try:
        yield visitor
    finally:
        await asyncio.wait_for(context.close(), timeout=PATIENCE_MS / 1000)
    assert not visitor.errors, visitor.errors
