"""kill -9 between taking profit and paying it: it is taken once, and the next payout pays it."""

import asyncio
import os
import time
from pathlib import Path

from sqlalchemy import text

from demo.mint import RealMint
from routstr.app import observing
from tests.crash.conftest import Mortal, StartMortal
from tests.fakes.invoices import invoice
from tests.faults.stand import paid_by
from tests.harness.command import run
from tests.harness.mint import OpenWallet

TAKEN = "SELECT amount FROM \"transaction\" WHERE operation_id LIKE 'profit:%'"


async def test_killed_between_taking_profit_and_paying(
    start_mortal: StartMortal,
    fee_mint: RealMint,
    open_wallet: OpenWallet,
    postgres_url: str,
    tmp_path: Path,
) -> None:
    wallet = await open_wallet(fee_mint)
    await wallet.mint(128)
    node = start_mortal(
        fee_mint.url, DATABASE_URL=postgres_url, PAYOUT_TO="me@127.0.0.1", PAYOUT_EVERY_S="0.1",
        PAYOUT_FLOOR_SATS="50", PAYOUT_KEEP_SATS="0",
    )  # fmt: skip
    node.arm("earnings.taken")
    await operator(node, tmp_path, "receive", await wallet.send(64))
    await asyncio.to_thread(node.fallen)
    assert await taken(node) == [63_000]
    bolt11 = invoice(50_000, created_at=int(time.time()), payment_hash=os.urandom(32))
    told = await operator(node, tmp_path, "payout", "--to", bolt11)
    assert told.startswith("50 sat ")
    assert paid_by(fee_mint, bolt11) == 1
    assert await taken(node) == [63_000]
    await node.assert_whole()


async def operator(node: Mortal, home: Path, *arguments: str) -> str:
    """What a command of the operator says, given beside the node."""
    done = await asyncio.to_thread(run, home / "desk", node.environment(), "wallet", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


async def taken(node: Mortal) -> list[int]:
    """Each time that profit was taken, in msat."""
    async with (
        observing(node.checked_settings()) as ctx,
        ctx.database.reading() as connection,
    ):
        return list((await connection.execute(text(TAKEN))).scalars())
