"""Ecash of a wallet that is not ours pays here, and what it gets back is good there, to the sat."""

import pytest

from tests.interop.cashu_ts import WalletRefused
from tests.interop.conftest import Buyer, OpenCashuTs

ALREADY_SPENT = 11001  # a mint's code


@pytest.mark.parametrize("version", [3, 4])
async def test_money_goes_in_pays_and_comes_back(
    buyer: Buyer, open_cashu_ts: OpenCashuTs, version: int
) -> None:
    market = buyer.market
    wallet = await open_cashu_ts(market.mint)
    await wallet.mint(1000)
    token = await wallet.send(300, version=version)
    assert token.startswith({3: "cashuA", 4: "cashuB"}[version])
    sent, left_sat = await wallet.decode(token), await wallet.balance()

    created = await buyer.customer.create_key(token)
    assert sent.fee == market.fee_sat(sent.proofs)
    assert created["balance"] == (300 - sent.fee) * 1000
    key = created["api_key"]
    cost_msat = await buyer.buy(key) + await buyer.buy(key)

    refund = await buyer.customer.withdraw(key)
    refund_sat, rest_msat = int(refund["sats"]), refund["remaining_msats"]
    paid_msat = cost_msat + refund["fee_msats"] + refund_sat * 1000 + rest_msat
    assert paid_msat == created["balance"]
    assert 0 <= rest_msat < 1000

    back = await wallet.decode(refund["token"])
    assert (back.mint, back.unit, back.amount) == (market.mint.url, "sat", refund_sat)
    assert back.dleqs == back.proofs
    assert back.fee == market.fee_sat(back.proofs)
    assert await wallet.receive(refund["token"], is_dleq_needed=True) == refund_sat - back.fee
    assert await wallet.balance() == left_sat + refund_sat - back.fee


async def test_a_token_is_an_api_key(buyer: Buyer, open_cashu_ts: OpenCashuTs) -> None:
    wallet = await open_cashu_ts(buyer.market.mint)
    await wallet.mint(100)
    token = await wallet.send(64)
    sent, left_sat = await wallet.decode(token), await wallet.balance()
    cost_msat = await buyer.buy(token) + await buyer.buy(token)
    deposit_msat = (64 - sent.fee) * 1000
    assert await buyer.customer.balance_msat(token) == deposit_msat - cost_msat
    refund = await buyer.customer.withdraw(token)
    received_sat = await wallet.receive(refund["token"])
    assert await wallet.balance() == left_sat + received_sat
    assert await buyer.customer.balance_msat(token) == refund["remaining_msats"]


async def test_a_token_tops_a_key_up(buyer: Buyer, open_cashu_ts: OpenCashuTs) -> None:
    wallet = await open_cashu_ts(buyer.market.mint)
    await wallet.mint(100)
    first, second = await wallet.send(10), await wallet.send(33)
    opened = await buyer.customer.create_key(first)
    credit_msat = (33 - (await wallet.decode(second)).fee) * 1000
    topped = await buyer.customer.top_up(opened["api_key"], second)
    assert topped == {"msats": credit_msat, "balance": opened["balance"] + credit_msat}


async def test_a_token_spent_in_a_wallet_is_refused(
    buyer: Buyer, open_cashu_ts: OpenCashuTs
) -> None:
    giver, taker = await open_cashu_ts(buyer.market.mint), await open_cashu_ts(buyer.market.mint)
    await giver.mint(32)
    token = await giver.send(16)
    await taker.receive(token)
    refused = await buyer.http.post("/balance/create", json={"initial_balance_token": token})
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "cashu_token_already_spent"


async def test_a_token_spent_here_is_spent_for_a_wallet(
    buyer: Buyer, open_cashu_ts: OpenCashuTs
) -> None:
    giver, taker = await open_cashu_ts(buyer.market.mint), await open_cashu_ts(buyer.market.mint)
    await giver.mint(32)
    token = await giver.send(16)
    assert await giver.states(token) == {"UNSPENT"}
    await buyer.customer.create_key(token)
    assert await giver.states(token) == {"SPENT"}
    with pytest.raises(WalletRefused) as refused:
        await taker.receive(token)
    assert refused.value.code == ALREADY_SPENT
    assert await taker.balance() == 0
