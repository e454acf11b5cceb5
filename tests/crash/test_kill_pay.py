"""kill -9 between any two steps of a Lightning payment: paid or given back, never both (T-5)."""

import asyncio
import time

import httpx
import pytest
from sqlalchemy import text

from demo.mint import RealMint
from demo.wallet import Wallet
from routstr.app import observing
from tests.crash.conftest import RECOVERY_S, Mortal, StartMortal, bearer, eventually
from tests.fakes.invoices import invoice
from tests.faults.stand import paid_by
from tests.harness.mint import OpenWallet, StartMint

PAID_STEPS = (
    "pay.begun",
    "melt.answered",
    "melt.waiting",
    "melt.paid",
    "melt.finished",
)
POISON_STEPS = (
    "poison.begun",
    "swap.answered",
    "poison.signed",
    "poison.ended",
)
HANGING = {"FAKEWALLET_PAY_INVOICE_STATE": "PENDING", "FAKEWALLET_PAYMENT_STATE": "PENDING"}
AMOUNT = 5
MINT_IS_BACK_S = 20.0  # a mint that failed too often is left alone for ten


class Payer:
    """A key at a node that pays invoices, and what the mint says of them."""

    def __init__(self, node: Mortal, http: httpx.AsyncClient, mint: RealMint) -> None:
        self.node = node
        self.http = http
        self.mint = mint
        self.key = ""
        self.count = 0

    def url(self, path: str) -> str:
        return f"{self.node.url}/v1/balance{path}"

    async def put_in(self, wallet: Wallet, amount: int) -> None:
        given = {"initial_balance_token": await wallet.send(amount)}
        answer = await self.http.post(self.url("/create"), json=given)
        self.key = answer.json()["api_key"]

    async def balance(self) -> int:
        answer = await eventually(self.http, "GET", self.url("/info"), headers=bearer(self.key))
        return int(answer.json()["balance"])

    def invoice(self) -> str:
        self.count += 1
        return invoice(AMOUNT * 1000 + self.count, created_at=int(time.time()))

    async def pay(self, bolt11: str) -> httpx.Response:
        """Once, whatever comes of it."""
        return await self.http.post(
            self.url("/refund"), json={"invoice": bolt11}, headers=bearer(self.key)
        )

    async def pay_dying_at(self, bolt11: str, *steps: str) -> None:
        """Die at the first step, and on the way up again at each of the others."""
        self.node.arm(steps[0])
        with pytest.raises(httpx.TransportError):
            await self.pay(bolt11)
        for step in steps[1:]:
            await asyncio.to_thread(self.node.process.wait_exit, 20)
            self.node.arm(step)
            self.node.start()
        await asyncio.to_thread(self.node.fallen)

    async def seen_through(self, bolt11: str) -> None:
        """Ask again and again, until it is not under way any more."""
        async with asyncio.timeout(MINT_IS_BACK_S):
            while (await self.pay(bolt11)).status_code in (202, 425):
                pass

    async def ended(self, status: str) -> dict[str, object]:
        """The newest refund once it has that status, unaided."""
        async with asyncio.timeout(RECOVERY_S):
            while True:
                listed = await self.http.get(self.url("/history"), headers=bearer(self.key))
                newest = listed.json()["transactions"][0]["id"]
                shown = await self.http.get(self.url(f"/refund/{newest}"), headers=bearer(self.key))
                refund: dict[str, object] = shown.json()
                if refund["status"] == status:
                    return refund
                await asyncio.sleep(0.05)

    async def states(self) -> list[str]:
        sql = text("SELECT state FROM mint_operation WHERE kind = 'melt' ORDER BY created_at")
        async with (
            observing(self.node.checked_settings()) as ctx,
            ctx.database.reading() as connection,
        ):
            return list((await connection.execute(sql)).scalars())


@pytest.fixture
async def payer(
    start_mortal: StartMortal,
    fee_mint: RealMint,
    open_wallet: OpenWallet,
    http: httpx.AsyncClient,
) -> Payer:
    return await open_payer(start_mortal, fee_mint, open_wallet, http)


async def open_payer(
    start_mortal: StartMortal,
    mint: RealMint,
    open_wallet: OpenWallet,
    http: httpx.AsyncClient,
    **settings: str,
) -> Payer:
    wallet = await open_wallet(mint)
    await wallet.mint(1024)
    payer = Payer(start_mortal(mint.url, **settings), http, mint)
    await payer.put_in(wallet, 512)
    return payer


async def test_killed_at_every_step_of_a_payment(payer: Payer) -> None:
    for step in PAID_STEPS:
        before_msat = await payer.balance()
        bolt11 = payer.invoice()
        await payer.pay_dying_at(bolt11, step)
        again = await eventually(
            payer.http,
            "POST",
            payer.url("/refund"),
            json={"invoice": bolt11},
            headers=bearer(payer.key),
        )
        assert (again.status_code, again.json()["status"]) == (200, "completed"), again.text
        assert await payer.balance() == before_msat - int(again.json()["sats"]) * 1000
        assert paid_by(payer.mint, bolt11) == 1
        await payer.node.assert_whole()


async def test_killed_at_every_step_of_taking_a_lost_payment_back(payer: Payer) -> None:
    """Dead before its only POST left, and nobody can tell: its coins are swapped, the money back.

    The swap's fee is the payer's; with these coins it is 1 sat at most.
    """
    for step in POISON_STEPS:
        before_msat = await payer.balance()
        bolt11 = payer.invoice()
        await payer.pay_dying_at(bolt11, "melt.sent", step)
        refund = await payer.ended("failed")
        assert refund["fee_msats"] == 1_000
        assert await payer.balance() == before_msat - 1_000
        assert paid_by(payer.mint, bolt11) == 0
        await payer.node.assert_whole()


async def test_what_the_mint_calls_pending_is_never_released(
    start_mortal: StartMortal,
    start_mint: StartMint,
    open_wallet: OpenWallet,
    http: httpx.AsyncClient,
    postgres_url: str,
) -> None:
    """The node dies while a payment hangs; the mint's restart brings its end, this or that."""
    mint = start_mint(extra=HANGING)
    payer = await open_payer(
        start_mortal, mint, open_wallet, http, DATABASE_URL=postgres_url, OPERATION_WAIT_S="0.5",
        MINT_LEASE_S="1", RESUME_EVERY_S="0.5",
    )  # fmt: skip
    for end, status in (("SETTLED", "completed"), ("FAILED", "failed")):
        before_msat = await payer.balance()
        bolt11 = payer.invoice()
        quoted = await http.post(
            payer.url("/refund/quote"), json={"invoice": bolt11}, headers=bearer(payer.key)
        )
        assert (quoted.json()["recipient"], quoted.json()["total_msats"]) == (bolt11, 8_000)
        first = (await payer.pay(bolt11)).json()
        assert (first["status"], first["sats"]) == ("pending", "8")
        payer.node.kill()
        payer.node.start()
        repeat = await payer.pay(bolt11)
        assert (repeat.status_code, repeat.json()["refund_id"]) == (202, first["refund_id"])
        assert (await payer.states())[-1] == "waiting"
        assert await payer.balance() == before_msat - 8_000
        mint.change({"FAKEWALLET_PAYMENT_STATE": end})
        mint.restart()
        await payer.seen_through(bolt11)
        refund = await payer.ended(status)
        assert refund["refund_id"] == first["refund_id"]
        debit_msat = int(str(refund["sats"])) * 1000 if status == "completed" else 0
        assert await payer.balance() == before_msat - debit_msat
        assert paid_by(mint, bolt11) == (status == "completed")
        listed = await http.get(payer.url("/history"), headers=bearer(payer.key))
        newest = listed.json()["transactions"][0]
        assert (newest["source"], newest["collected"]) == ("lightning", status == "completed")
        await payer.node.assert_whole()
        mint.change(HANGING)
        mint.restart()
