"""Lightning in and out, with a wallet that is not ours at both ends.

The invoices of these mints pay themselves when somebody asks for them, whoever else pays them; so
what is shown here is that each side can read and act upon the other's, and that the sats add up.
"""

import asyncio
from typing import Any, Final

import httpx
import pytest

from demo.mint import RealMint
from tests.interop.conftest import STOCK_SAT, Buyer, OpenCashuTs

pytestmark = pytest.mark.usefixtures("audited")

PAID_TIMEOUT_S: Final = 20


async def until_paid(buyer: Buyer, invoice_id: str) -> dict[str, Any]:
    """The invoice's status, once it is paid; the node itself asks the mint no more often."""
    async with asyncio.timeout(PAID_TIMEOUT_S):
        while True:
            answer = await buyer.http.get(f"/balance/lightning/invoice/{invoice_id}/status")
            found: dict[str, Any] = answer.json()
            if found["status"] == "paid":
                return found
            assert found["status"] in {"pending", "settlement_pending"}, found


@pytest.mark.parametrize("market", [100], indirect=True, ids="{}ppk".format)
async def test_what_an_invoice_brought_is_redeemed_as_ecash(
    buyer: Buyer, open_cashu_ts: OpenCashuTs
) -> None:
    wallet = await open_cashu_ts(buyer.market.mint)
    await wallet.mint(400)
    key = await buyer.stock(wallet)
    before_msat = await buyer.customer.balance_msat(key)
    made = await buyer.http.post(
        "/balance/lightning/invoice",
        headers={"Authorization": f"Bearer {key}"},
        json={"amount_sats": 77, "purpose": "topup"},
    )
    paid = await until_paid(buyer, made.json()["invoice_id"])
    assert (paid["api_key"], paid["amount_sats"]) == (key, 77)
    cost_msat = await buyer.buy(key)
    assert await buyer.cash_in(wallet, key) == before_msat + 77_000 - cost_msat


async def test_a_refund_pays_a_wallets_own_invoice(
    buyer: Buyer, other_mint: RealMint, open_cashu_ts: OpenCashuTs
) -> None:
    wallet, elsewhere = await open_cashu_ts(buyer.market.mint), await open_cashu_ts(other_mint)
    await wallet.mint(400)
    key = await buyer.stock(wallet)
    had_msat = await buyer.customer.balance_msat(key)
    wish = {"invoice": await elsewhere.invoice(50)}
    headers = {"Authorization": f"Bearer {key}"}
    told = (await buyer.http.post("/balance/refund/quote", headers=headers, json=wish)).json()
    assert (told["recipient"], told["amount_msats"]) == (wish["invoice"], 50_000)

    answer = await buyer.http.post("/balance/refund", headers=headers, json=wish)
    assert answer.status_code == httpx.codes.OK, answer.text
    refund = answer.json()
    assert (refund["status"], refund["recipient"]) == ("completed", wish["invoice"])
    assert int(refund["sats"]) * 1000 == 50_000 + refund["fee_msats"]
    assert 0 < refund["fee_msats"] <= told["fee_reserve_msats"]
    assert refund["remaining_msats"] == had_msat - 50_000 - refund["fee_msats"]
    repeated = await buyer.http.post("/balance/refund", headers=headers, json=wish)
    assert repeated.json() == refund

    await elsewhere.collect(wish["invoice"])
    assert await elsewhere.balance() == 50
    assert await buyer.cash_in(wallet, key) == refund["remaining_msats"]
    assert had_msat <= STOCK_SAT * 1000
