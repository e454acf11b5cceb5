"""A swap of the node's own coins, driven to its end: nobody waits, nobody's balance moves."""

import structlog

from routstr.errors import MintUnreachable
from routstr.flows.context import Context
from routstr.flows.mints import unreachable
from routstr.flows.swap import (
    SPENT,
    WATCHED,
    Doubtful,
    Refused,
    Signed,
    SpentElsewhere,
    SwapOutcome,
    Unknown,
    postpone,
    run_swap,
    watched_enough,
)
from routstr.gateways.mint_limits import Priority
from routstr.ledger.sagas import Operation, OperationState
from routstr.ledger.swaps import EndSwap, FailSwap

log = structlog.get_logger()


async def drive_own_swap(ctx: Context, operation: Operation, *, priority: Priority) -> bool:
    """Take it as far as the mint's answers allow: True when done, False when definitely refused.

    The caller holds the lease; however this ends it is given back. Raises MintUnreachable while
    the outcome is open; recovery goes on from there. Inputs that the mint calls spent, and not by
    this swap, for a whole day are given up as lost.
    """
    if operation.state is not OperationState.PREPARED:
        priority = Priority.RECOVERY
    outcome = await run_swap(ctx, operation, priority)
    if isinstance(outcome, Signed):
        ctx.failpoint("own_swap.signed")
        await ctx.ledger.submit(EndSwap(operation=operation, proofs=outcome.proofs, ys=outcome.ys))
        ctx.failpoint("own_swap.ended")
        return True
    if isinstance(outcome, Refused):
        ctx.failpoint("own_swap.refused")
        await ctx.ledger.submit(FailSwap(operation=operation, code=str(outcome.code)))
        return False
    if operation.kind != "swap" and _never_happened(ctx, operation, outcome):
        ctx.failpoint("own_swap.spent")
        await ctx.ledger.submit(FailSwap(operation=operation, code=SPENT))
        return False
    if isinstance(outcome, SpentElsewhere) and watched_enough(ctx, operation):
        ctx.failpoint("own_swap.lost")
        await ctx.ledger.submit(FailSwap(operation=operation, code=WATCHED, lost=outcome.spent))
        log.error("coins_lost", operation_id=operation.id, count=len(outcome.spent))
        return False
    await postpone(ctx, operation, outcome)
    if isinstance(outcome, Unknown):
        raise unreachable(outcome.cause)
    raise MintUnreachable("The mint's answer is awaited.")


def _never_happened(ctx: Context, operation: Operation, outcome: SwapOutcome) -> bool:
    """Whether somebody else has spent some of the inputs, so that the others must go without them.

    Locked ecash that stays in an operation for ever is a loss that nobody has heard of; a token
    that was brought is not ours to wait for. Free coins of ours are left to `reconcile`.
    """
    if isinstance(outcome, SpentElsewhere) and outcome.is_definite:
        return True
    is_open = isinstance(outcome, SpentElsewhere | Doubtful)
    return is_open and watched_enough(ctx, operation)
