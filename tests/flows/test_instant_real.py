"""Locked ecash at the real mint: money while it is dead, coins once it is back."""

import secrets
from collections.abc import AsyncIterator

import pytest

from demo.mint import RealMint
from demo.wallet import MintRefused, Wallet
from routstr.flows.audit import audit
from routstr.flows.context import Context
from routstr.flows.keys import Terms, create_key
from routstr.flows.mints import known_mint
from routstr.flows.redeem import redeem
from routstr.ledger.reads_ecash import locked_proofs
from tests.harness.clock import MovableClock
from tests.harness.mint import OpenWallet, StartMint
from tests.harness.till import open_context


@pytest.fixture
def mint(start_mint: StartMint) -> RealMint:
    return start_mint(fee_ppk=100)


@pytest.fixture
async def ctx(sqlite_url: str, mint: RealMint) -> AsyncIterator[Context]:
    async with open_context(sqlite_url, [mint.url], MovableClock()) as (ctx, _):
        await known_mint(ctx, mint.url)
        yield ctx


@pytest.fixture
async def wallet(open_wallet: OpenWallet, mint: RealMint) -> Wallet:
    wallet = await open_wallet(mint)
    await wallet.mint(512)
    return wallet


async def locked(ctx: Context, mint: RealMint) -> int:
    async with ctx.database.reading() as connection:
        return sum(each.amount for each in await locked_proofs(connection, mint.url, limit=100))


async def test_a_dead_mint_keeps_nobody_from_paying(
    ctx: Context, mint: RealMint, wallet: Wallet
) -> None:
    tokens = [await wallet.send(63, lock=ctx.acceptance.current) for _ in range(2)]
    mint.stop()
    for token in tokens:  # six proofs at 100 ppk cost a sat
        made = await create_key(ctx, token, Terms(), idempotency_key=None)
        assert made.available_msat == 62_000
    assert await locked(ctx, mint) == 126
    await redeem(ctx)
    assert await locked(ctx, mint) == 126
    mint.start()
    with pytest.raises(MintRefused):  # nobody but the node can spend it
        await wallet.receive(tokens[0])
    assert (await redeem(ctx)).done == 12
    assert await locked(ctx, mint) == 0
    for token in tokens:
        assert await wallet.token_states(token) == {"SPENT"}
    report = await audit(ctx, full=True, deep=True)
    assert report.ok, [each for each in report.invariants if each.breaches]


async def test_the_real_mint_takes_our_signature_in_an_ordinary_swap(
    sqlite_url: str, real_mint: RealMint, open_wallet: OpenWallet
) -> None:
    """Above the cap the token is swapped at once."""
    wallet = await open_wallet(real_mint)
    await wallet.mint(32)
    opening = open_context(
        sqlite_url,
        [real_mint.url],
        MovableClock(),
        seed=secrets.token_bytes(64),
        locked_sats_max=30,
    )
    async with opening as (ctx, _):
        token = await wallet.send(31, lock=ctx.acceptance.current)
        made = await create_key(ctx, token, Terms(), idempotency_key=None)
        assert made.available_msat == 31_000
        assert await locked(ctx, real_mint) == 0
        assert await wallet.token_states(token) == {"SPENT"}
