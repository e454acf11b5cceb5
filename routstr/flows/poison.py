"""Making a lost melt impossible: its inputs are swapped to ourselves, then its money goes back.

What is true if the process dies: the swap is a committed operation, in whose name the inputs are.
Recovery finds it by itself, or by the melt; either way this same swap is driven to a definite end
before anything else is concluded of the melt. A swap that the mint refused, or that came too late
because the melt was paid, leaves the inputs to the melt again.
"""

import structlog

from routstr.ecash.keyset import fee
from routstr.errors import MintUnreachable, TokenRedemptionFailed, UntrustedMint
from routstr.flows.context import Context
from routstr.flows.mints import active_keyset, fees_ppk, known_mint, split_on
from routstr.flows.refunds import read_payment
from routstr.flows.swap import Refused, Signed, SpentElsewhere, Waiting, run_swap
from routstr.flows.swap import postpone as postpone_swap
from routstr.gateways.mint_failure import MintFailure
from routstr.gateways.mint_limits import Priority
from routstr.gateways.mint_quotes import QuoteState
from routstr.ledger.issued import WithdrawalView
from routstr.ledger.leases import Claim
from routstr.ledger.poison import BeginPoison, EndPoison, FailPoison
from routstr.ledger.reads_ecash import find_successor, withdrawal_owner
from routstr.ledger.sagas import Operation, OperationState, load_operation

log = structlog.get_logger()


async def begin_poison(ctx: Context, melt: Operation, api_key_id: str) -> WithdrawalView | None:
    """Swap the inputs of a melt whose lease the caller has; how its withdrawal stands after it.

    None when that cannot be begun now.
    """
    assert melt.withdrawal_id is not None, "a melt pays out a withdrawal"
    try:
        mint = await known_mint(ctx, melt.mint_url, since_s=ctx.monotonic_s())
        keyset = active_keyset(mint.keysets, melt.unit, ctx.clock.now())
        used = [str(proof["id"]) for proof in melt.inputs]
        output_amounts = split_on(keyset, melt.input_amount - fee(fees_ppk(mint.keysets, used)))
    except (MintUnreachable, UntrustedMint, TokenRedemptionFailed) as error:
        log.warning("melt_not_poisoned", operation_id=melt.id, reason=error.code)
        return None
    owner = ctx.new_id("lease")
    ctx.failpoint("poison.decided")
    swap = await ctx.ledger.submit(
        BeginPoison(
            melt=melt,
            keyset_id=keyset.id,
            output_amounts=output_amounts,
            owner=owner,
            lease_s=ctx.limits.mint_lease_s,
        )
    )
    ctx.failpoint("poison.begun")
    if swap.lease_owner == owner and swap.state is OperationState.PREPARED:
        await _drive(ctx, swap, melt, api_key_id)
    return await read_payment(ctx, api_key_id, melt.withdrawal_id)


async def drive_successor(ctx: Context, melt: Operation, api_key_id: str) -> WithdrawalView | None:
    """Drive the swap that is poisoning this melt, if one is; how its withdrawal stands after it."""
    assert melt.withdrawal_id is not None, "a melt pays out a withdrawal"
    async with ctx.database.reading() as connection:
        swap_id = await find_successor(connection, melt.id)
    if swap_id is None:
        return None
    claim = Claim(owner=ctx.new_id("lease"), lease_s=ctx.limits.mint_lease_s, operation_id=swap_id)
    for swap in await ctx.ledger.submit(claim):
        await _drive(ctx, swap, melt, api_key_id)
    return await read_payment(ctx, api_key_id, melt.withdrawal_id)


async def poisoned_melt(ctx: Context, operation: Operation) -> Operation | None:
    """The melt that this operation is poisoning, if it is one that does."""
    if operation.kind != "swap" or operation.predecessor_id is None:
        return None
    async with ctx.database.reading() as connection:
        before = await load_operation(connection, ctx.wallet, operation.predecessor_id)
    return before if before.kind == "melt" else None


async def drive_poison(ctx: Context, swap: Operation, melt: Operation) -> bool:
    """Recovery met the swap itself: True when it has ended, one way or the other."""
    assert melt.withdrawal_id is not None, "a melt pays out a withdrawal"
    async with ctx.database.reading() as connection:
        api_key_id = await withdrawal_owner(connection, melt.withdrawal_id)
    return await _drive(ctx, swap, melt, api_key_id)


async def _drive(ctx: Context, swap: Operation, melt: Operation, api_key_id: str) -> bool:
    outcome = await run_swap(ctx, swap, Priority.RECOVERY)
    if isinstance(outcome, Signed):
        ctx.failpoint("poison.signed")
        await ctx.ledger.submit(
            EndPoison(
                poison=swap,
                melt=melt,
                api_key_id=api_key_id,
                proofs=outcome.proofs,
                ys=outcome.ys,
            )
        )
        ctx.failpoint("poison.ended")
        return True
    if isinstance(outcome, Refused):
        return await _fail(ctx, swap, str(outcome.code))
    if isinstance(outcome, SpentElsewhere):
        standing = await _spent_by_melt(ctx, melt, outcome)
        if standing is None:
            return await _fail(ctx, swap, "spent")
        outcome = standing
    await postpone_swap(ctx, swap, outcome)
    return False


async def _fail(ctx: Context, swap: Operation, code: str) -> bool:
    """It will never run: not after a definite no, nor with inputs that paid an invoice."""
    ctx.failpoint("poison.refused")
    await ctx.ledger.submit(FailPoison(poison=swap, code=code))
    ctx.failpoint("poison.failed")
    return True


async def _spent_by_melt(
    ctx: Context, melt: Operation, outcome: SpentElsewhere
) -> SpentElsewhere | Waiting | None:
    """None if the swap can never run any more; else what its inputs being spent means so far."""
    if outcome.is_definite:
        return None
    assert melt.quote_id is not None, "a melt has a quote"
    try:
        quote = await ctx.mints.melt_quote(melt.mint_url, melt.quote_id)
    except (MintFailure, UntrustedMint):
        return Waiting()
    match quote.state:
        case QuoteState.PAID:
            return None
        case QuoteState.PENDING:
            return Waiting()
    return outcome
