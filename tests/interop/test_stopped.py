"""Ecash goes on between a wallet that is not ours and one side while the other is stopped."""

import asyncio
from typing import Final

import pytest

from tests.interop.conftest import Buyer, OpenCashuTs

pytestmark = pytest.mark.usefixtures("audited")

REDEEMED_TIMEOUT_S: Final = 20


async def test_locked_ecash_is_credited_while_its_mint_is_stopped(
    buyer: Buyer, open_cashu_ts: OpenCashuTs
) -> None:
    mint = buyer.market.mint
    wallet = await open_cashu_ts(mint)
    await wallet.mint(500)
    await buyer.stock(wallet)
    pubkey = (await buyer.http.get("/info")).json()["p2pk_pubkey"]
    token = await wallet.send(100, lock={"pubkey": pubkey})
    credit_msat = (100 - (await wallet.decode(token)).fee) * 1000
    mint.pause()
    try:
        created = await buyer.customer.create_key(token)
        cost_msat = await buyer.buy(created["api_key"])
    finally:
        mint.resume()
    assert created["balance"] == credit_msat
    async with asyncio.timeout(REDEEMED_TIMEOUT_S):
        while await wallet.states(token) != {"SPENT"}:
            pass  # the node redeems it in its own time, and the mint is asked, no faster than it is
    assert await buyer.cash_in(wallet, created["api_key"]) == credit_msat - cost_msat


@pytest.mark.parametrize("market", [100], indirect=True, ids="{}ppk".format)
async def test_the_operators_token_is_everybodys(buyer: Buyer, open_cashu_ts: OpenCashuTs) -> None:
    market = buyer.market
    wallet = await open_cashu_ts(market.mint)
    await wallet.mint(100)
    own, left_sat = await wallet.send(64), await wallet.balance()
    market.node.stop()
    try:
        brought = market.command("wallet", "receive", "-", stdin=own)
        sent = market.command("wallet", "send", "40")
    finally:
        market.node.start()
    assert (brought.returncode, sent.returncode) == (0, 0), brought.stderr + sent.stderr
    token = sent.stdout.strip()
    back = await wallet.decode(token)
    assert (back.amount, back.dleqs) == (40, back.proofs)
    assert await wallet.receive(token, is_dleq_needed=True) == 40 - back.fee
    assert await wallet.balance() == left_sat + 40 - back.fee
