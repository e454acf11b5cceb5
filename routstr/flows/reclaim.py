"""From a token that nobody claimed back to the key it was debited from.

Algorithm A on the node's own token (ecash.md, section 4, D). The holder may claim it at the same
moment: then the mint decides, and either the key is credited or the token is claimed, never both.
"""

from routstr.errors import MintUnreachable
from routstr.flows.context import Context
from routstr.flows.mints import active_keyset, known_mint, unreachable
from routstr.flows.swap import (
    SPENT,
    Refused,
    Signed,
    SpentElsewhere,
    Unknown,
    postpone,
    run_swap,
    watched_enough,
)
from routstr.gateways.mint_limits import Priority
from routstr.gateways.mint_wire import ProofState
from routstr.ledger.reads_ecash import proof_ys
from routstr.ledger.reads_proofs import GivenOut
from routstr.ledger.reclaims import BeginReclaim, ClaimWithdrawal, EndReclaim, FailReclaim
from routstr.ledger.sagas import Operation, OperationState


async def reclaim(ctx: Context, mint_url: str, token: GivenOut, ys: list[str]) -> bool:
    """Take back those proofs of the token, which the mint calls unspent; whether it did.

    Raises MintShort when there is nothing to gain, MintUnreachable while the outcome is open, and
    what `known_mint` raises.
    """
    mint = await known_mint(ctx, mint_url)
    keyset = active_keyset(mint.keysets, token.unit, ctx.clock.now())
    operation = await ctx.ledger.submit(
        BeginReclaim(
            withdrawal_id=token.withdrawal_id,
            keyset_id=keyset.id,
            ys=ys,
            goal=ctx.limits.float_goal(keyset.keys),
            owner=ctx.new_id("lease"),
            lease_s=ctx.limits.mint_lease_s,
        )
    )
    ctx.failpoint("reclaim.begun")
    return await drive_reclaim(ctx, operation, token.api_key_id)


async def drive_reclaim(ctx: Context, operation: Operation, api_key_id: str) -> bool:
    """Take it to its end: True when the key was credited, False when the mint said no.

    The caller holds the lease; however this ends it is given back. Raises MintUnreachable while
    the outcome is open.
    """
    is_new = operation.state is OperationState.PREPARED
    outcome = await run_swap(ctx, operation, Priority.FLOAT if is_new else Priority.RECOVERY)
    if isinstance(outcome, Signed):
        ctx.failpoint("reclaim.signed")
        await ctx.ledger.submit(
            EndReclaim(
                operation=operation, api_key_id=api_key_id, proofs=outcome.proofs, ys=outcome.ys
            )
        )
        ctx.failpoint("reclaim.ended")
        return True
    if isinstance(outcome, Refused):
        ctx.failpoint("reclaim.refused")
        await ctx.ledger.submit(FailReclaim(operation=operation, code=str(outcome.code)))
        if outcome.stale_keyset:
            await known_mint(ctx, operation.mint_url, since_s=ctx.monotonic_s())
        return False
    if isinstance(outcome, SpentElsewhere) and (
        outcome.is_definite or watched_enough(ctx, operation)
    ):
        ctx.failpoint("reclaim.lost")
        await ctx.ledger.submit(FailReclaim(operation=operation, code=SPENT))
        assert operation.withdrawal_id is not None
        await claim_if_spent(ctx, operation.mint_url, operation.withdrawal_id)
        return False
    await postpone(ctx, operation, outcome)
    if isinstance(outcome, Unknown):
        raise unreachable(outcome.cause)
    raise MintUnreachable("The mint's answer is awaited.")


async def claim_if_spent(ctx: Context, mint_url: str, withdrawal_id: str) -> bool:
    """Ask the mint again about the whole token; whether all of it was claimed.

    Raises what `check_state` does.
    """
    async with ctx.database.reading() as connection:
        ys = await proof_ys(connection, withdrawal_id=withdrawal_id)
    states = await ctx.mints.check_state(mint_url, ys, priority=Priority.FLOAT)
    if set(states.values()) != {ProofState.SPENT}:
        return False
    return await ctx.ledger.submit(ClaimWithdrawal(withdrawal_id=withdrawal_id, ys=ys))
