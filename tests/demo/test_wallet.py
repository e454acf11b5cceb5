"""The customer's wallet against the real mint: value only ever moves, less the mint's fees."""

import asyncio

import pytest

from demo.mint import RealMint
from demo.wallet import MintRefused, NotEnough
from routstr.ecash.token import BODY_BYTES_MAX, decode_token
from tests.harness.mint import OpenWallet, StartMint

ALREADY_SPENT = 11001


async def test_what_is_sent_is_received_and_spent_once(
    real_mint: RealMint, open_wallet: OpenWallet
) -> None:
    a, b = await open_wallet(real_mint), await open_wallet(real_mint)
    await a.mint(100)
    token = await a.send(37)
    assert decode_token(token, bytes_max=BODY_BYTES_MAX).amount == 37
    assert (a.balance, b.balance) == (63, 0)
    assert await a.token_states(token) == {"UNSPENT"}
    assert await b.receive(token) == 37
    assert (a.balance, b.balance) == (63, 37)
    assert await b.token_states(token) == {"SPENT"}
    with pytest.raises(MintRefused) as refusal:
        await b.receive(token)
    assert refusal.value.code == ALREADY_SPENT
    assert set(await b.states([*a.proofs, *b.proofs])) == {"UNSPENT"}


async def test_fees_are_paid_by_whoever_swaps(
    start_mint: StartMint, open_wallet: OpenWallet
) -> None:
    mint = start_mint(fee_ppk=100)
    a, b = await open_wallet(mint), await open_wallet(mint)
    await a.mint(100)
    token = await a.send(50)  # 64 + 32 + 4 hold no exact 50, so a swaps and pays 1 sat
    assert a.balance == 49
    assert await b.receive(token) == 49  # 50 is three proofs: 0.3 sat, rounded up


async def test_more_than_there_is_is_refused_and_nothing_is_lost(
    real_mint: RealMint, open_wallet: OpenWallet
) -> None:
    wallet = await open_wallet(real_mint)
    await wallet.mint(10)
    with pytest.raises(NotEnough):
        await wallet.send(11)
    assert wallet.balance == 10


async def test_many_at_once_take_turns(real_mint: RealMint, open_wallet: OpenWallet) -> None:
    wallet = await open_wallet(real_mint)
    await wallet.mint(64)
    tokens = await asyncio.gather(*(wallet.send(3) for _ in range(8)))
    assert len(set(tokens)) == 8
    assert wallet.balance == 64 - 8 * 3


async def test_another_unit_is_another_wallet(
    start_mint: StartMint, open_wallet: OpenWallet
) -> None:
    wallet = await open_wallet(start_mint(units=("sat", "msat")), unit="msat")
    await wallet.mint(1500)
    token = decode_token(await wallet.send(1234), bytes_max=BODY_BYTES_MAX)
    assert (token.unit, token.amount) == ("msat", 1234)
