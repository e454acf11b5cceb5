"""An invoice at a real mint that nobody pays, until somebody does: late."""

import asyncio
import secrets
from pathlib import Path

from sqlalchemy import text

from demo.mint import PROGRAM
from demo.process import free_port
from routstr.flows.audit import audit
from routstr.flows.context import Context
from routstr.flows.invoice import InvoiceWish, create_invoice, invoice_status, look_at_invoices
from tests.harness.clock import MovableClock
from tests.harness.mint import StartMint
from tests.harness.till import open_context, pass_time


async def quote_of(ctx: Context) -> str:
    """The id by which the mint knows the only invoice."""
    async with ctx.database.reading() as connection:
        row = (await connection.execute(text("SELECT id, quote_id FROM lightning_invoice"))).one()
    place = {"table": "lightning_invoice", "column": "quote_id", "row_id": row.id}
    return ctx.wallet.vault.open(row.quote_id, **place)


async def mark_paid(directory: Path, rpc_port: int, quote_id: str) -> None:
    """As the mint's operator does by hand."""
    words = ["-i", "-p", str(rpc_port), "update", "mint-quote", quote_id, "PAID"]
    process = await asyncio.create_subprocess_exec(
        PROGRAM.with_name("mint-cli"),
        *words,
        cwd=directory,
        env={"HOME": str(directory), "LC_ALL": "C.UTF-8"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said


async def test_a_real_invoice_is_paid_after_it_expired(
    start_mint: StartMint, sqlite_url: str, tmp_path: Path
) -> None:
    rpc_port = free_port()
    mint = start_mint(
        extra={
            "FAKEWALLET_BRR": "FALSE",
            "MINT_RPC_SERVER_ENABLE": "TRUE",
            "MINT_RPC_SERVER_MUTUAL_TLS": "FALSE",
            "MINT_RPC_SERVER_PORT": str(rpc_port),
        }
    )
    clock = MovableClock()
    seed = secrets.token_bytes(64)
    async with open_context(sqlite_url, [mint.url], clock, seed=seed) as (ctx, _):
        made = await create_invoice(ctx, InvoiceWish(amount_sat=21))
        seen: list[str] = []
        for wait_s in (3, 3601):
            await pass_time(ctx, clock, wait_s)
            assert await look_at_invoices(ctx) == 1
            seen.append((await invoice_status(ctx, made.invoice_id)).status)
        assert seen == ["pending", "expired"]
        await mark_paid(tmp_path, rpc_port, await quote_of(ctx))
        await pass_time(ctx, clock, 3601)
        assert await look_at_invoices(ctx) == 1
        shown = await invoice_status(ctx, made.invoice_id)
        assert shown.status == "paid"
        assert shown.api_key is not None
        report = await audit(ctx, full=True, deep=True)
        assert report.ok
        assert report.totals.balances_msat == report.totals.held_msat == 21_000
