"""Driving what a crash or a silent mint left open, until the mint has said how it ended.

Runs at boot, as a job, and finds its work by query: nothing depends on who began it.
"""

import asyncio
from functools import partial
from typing import Final

import structlog

from routstr.errors import RoutstrError
from routstr.flows.aside import PATIENCE_S, side_by_side
from routstr.flows.context import Context
from routstr.flows.deposit import drive_deposit
from routstr.flows.melt import drive_melt
from routstr.flows.minting import drive_mint
from routstr.flows.own_swap import drive_own_swap
from routstr.flows.poison import drive_poison, poisoned_melt
from routstr.flows.reclaim import drive_reclaim
from routstr.flows.withdraw import drive_withdrawal
from routstr.gateways.mint_limits import Priority
from routstr.ledger.leases import Claim
from routstr.ledger.reads_ecash import deposit_owner, mints_with_due_operations, withdrawal_owner
from routstr.ledger.reads_invoices import invoice_owner
from routstr.ledger.sagas import Operation

log = structlog.get_logger()

BATCH_MAX: Final = 4  # as many calls as go to one mint at once


async def resume(ctx: Context, *, patience_s: float = PATIENCE_S) -> int:
    """Drive every operation that is due, mint by mint side by side; how many were.

    A mint that hangs keeps its own operations waiting, nobody else's; it is waited for so long.
    """
    async with ctx.database.reading() as connection:
        mint_ids = await mints_with_due_operations(connection, ctx.clock.now())
    driven = await side_by_side(
        ctx, "resume", mint_ids, partial(resume_at, ctx), patience_s=patience_s
    )
    return sum(driven.values())


async def resume_at(ctx: Context, mint_id: str) -> int:
    """Drive every operation that is due at one mint; how many were."""
    driven = 0
    while True:
        claimed = await ctx.ledger.submit(
            Claim(
                owner=ctx.new_id("lease"),
                lease_s=ctx.limits.mint_lease_s,
                limit=BATCH_MAX,
                mint_id=mint_id,
            )
        )
        await asyncio.gather(*(_drive(ctx, operation) for operation in claimed))
        driven += len(claimed)
        if len(claimed) < BATCH_MAX:
            return driven


async def _drive(ctx: Context, operation: Operation) -> None:
    """One that breaks keeps none of the others from being driven."""
    (broken,) = await asyncio.gather(drive(ctx, operation), return_exceptions=True)
    if isinstance(broken, Exception):
        log.error("operation_broken", operation_id=operation.id, exc_info=broken)


async def drive(ctx: Context, operation: Operation) -> None:
    """Take one operation as far as it goes; how it ends is in its row."""
    try:
        is_open = await _drive_by_kind(ctx, operation)
    except RoutstrError as error:
        log.info("operation_open", operation_id=operation.id, kind=operation.kind, code=error.code)
    else:
        event = "operation_open" if is_open else "operation_ended"
        log.info(event, operation_id=operation.id, kind=operation.kind)


async def _drive_by_kind(ctx: Context, operation: Operation) -> bool:
    """By what it belongs to; whether it is open still. Raises what says why it is."""
    if operation.deposit_id is not None:
        async with ctx.database.reading() as connection:
            owner = await deposit_owner(connection, operation.deposit_id)
        await drive_deposit(ctx, operation, owner)
    elif operation.withdrawal_id is not None:
        async with ctx.database.reading() as connection:
            payee = await withdrawal_owner(connection, operation.withdrawal_id)
        if operation.kind == "melt":
            return (await drive_melt(ctx, operation, payee)).status == "pending"
        if operation.kind == "receive":
            await drive_reclaim(ctx, operation, payee)
        else:
            await drive_withdrawal(ctx, operation, payee)
    elif operation.lightning_invoice_id is not None:
        async with ctx.database.reading() as connection:
            payer = await invoice_owner(connection, operation.lightning_invoice_id)
        await drive_mint(ctx, operation, payer)
    elif (melt := await poisoned_melt(ctx, operation)) is not None:
        return not await drive_poison(ctx, operation, melt)
    else:
        await drive_own_swap(ctx, operation, priority=Priority.RECOVERY)
    return False
