"""kill -9 between any two steps of an invoice, at the real mint: the credit, once (T-5)."""

import asyncio
from typing import Any

import httpx
import pytest

from demo.mint import RealMint
from tests.crash.conftest import RECOVERY_S, Mortal, StartMortal, bearer

# Engines by turns; tests/flows/test_minting.py breaks off at every step on both.
ON_SQLITE = ("mint.answered", "invoice.credited")
ON_POSTGRESQL = ("invoice.begun", "invoice.signed")
AMOUNT = 5


class Payer:
    """Asks for invoices, which this mint pays by itself, and waits for its key."""

    def __init__(self, node: Mortal, http: httpx.AsyncClient) -> None:
        self.node = node
        self.http = http

    async def ask(self) -> dict[str, Any]:
        answer = await self.http.post(
            f"{self.node.url}/lightning/invoice", json={"amount_sats": AMOUNT}
        )
        assert answer.status_code == 200, answer.text
        made: dict[str, Any] = answer.json()
        return made

    async def key(self, made: dict[str, Any]) -> str:
        """Its key, soon after the restart."""
        url = f"{self.node.url}/lightning/invoice/{made['invoice_id']}/status"
        async with asyncio.timeout(RECOVERY_S):
            while True:
                shown = (await self.http.get(url)).json()
                if shown["status"] == "paid":
                    return str(shown["api_key"])
                await asyncio.sleep(0.1)

    async def balance(self, key: str) -> int:
        url = f"{self.node.url}/v1/balance/info"
        return int((await self.http.get(url, headers=bearer(key))).json()["balance"])

    async def die_at(self, step: str) -> None:
        made = await self.ask()
        self.node.arm(step)
        await asyncio.to_thread(self.node.fallen)
        assert await self.balance(await self.key(made)) == AMOUNT * 1000, step


async def test_killed_on_sqlite(
    start_mortal: StartMortal, real_mint: RealMint, http: httpx.AsyncClient
) -> None:
    payer = Payer(start_mortal(real_mint.url, INVOICES_EVERY_S="0.2"), http)
    payer.node.arm("invoice.saved")  # nobody has seen it
    with pytest.raises(httpx.TransportError):
        await payer.ask()
    await asyncio.to_thread(payer.node.fallen)
    made = await payer.ask()
    key = await payer.key(made)
    for step in ON_SQLITE:
        await payer.die_at(step)
    await payer.node.assert_whole()
    assert made["bolt11"] not in payer.node.log
    assert made["invoice_id"] not in payer.node.log
    assert key not in payer.node.log


async def test_killed_on_postgresql(
    start_mortal: StartMortal, real_mint: RealMint, http: httpx.AsyncClient, postgres_url: str
) -> None:
    node = start_mortal(
        real_mint.url,
        DATABASE_URL=postgres_url,
        MINT_LEASE_S="1",
        RESUME_EVERY_S="0.5",
        INVOICES_EVERY_S="0.2",
    )
    payer = Payer(node, http)
    for step in ON_POSTGRESQL:
        await payer.die_at(step)
    await node.assert_whole()
