"""From PAID to money on a key: the ecash of a paid invoice, and its credit, in one commit.

Algorithm B, steps 3 and 4. What is true if the process dies: before the operation is committed the
invoice is looked at again; after it recovery drives the operation. A mint that was paid and gives
no ecash is watched for a day, and then a human's affair, never forgotten.
"""

from collections.abc import Sequence
from typing import Final

import structlog

from routstr.ecash.proof import BlindSignature
from routstr.errors import MintUnreachable, RoutstrError
from routstr.flows.context import Context
from routstr.flows.mints import active_keyset, known_mint, split_on, unreachable
from routstr.flows.swap import (
    Call,
    Doubtful,
    Evidence,
    Open,
    Refused,
    Signed,
    Unknown,
    Waiting,
    postpone,
    run_call,
    watched_enough,
)
from routstr.gateways.mint import ProofState, QuoteState
from routstr.gateways.mint_failure import MintRefused
from routstr.gateways.mint_limits import Priority
from routstr.ledger.invoices import Look
from routstr.ledger.minting import BeginMint, CreditInvoice, FailMint, ReplaceMint
from routstr.ledger.sagas import Operation, OperationState

log = structlog.get_logger()


async def mint_paid(ctx: Context, look: Look) -> None:
    """Take the ecash of an invoice that the mint calls paid, unless somebody is at it already.

    Raises what `known_mint` and `drive_mint` raise; the invoice or its operation stays open then.
    """
    ctx.failpoint("invoice.paid_seen")
    mint = await known_mint(ctx, look.mint_url)
    keyset = active_keyset(mint.keysets, look.unit)
    operation = await ctx.ledger.submit(
        BeginMint(
            look=look,
            mint_id=mint.id,
            keyset_id=keyset.id,
            output_amounts=split_on(keyset, look.amount),
            owner=ctx.new_id("lease"),
            lease_s=ctx.limits.mint_lease_s,
        )
    )
    if operation is not None:
        ctx.failpoint("invoice.begun")
        await drive_mint(ctx, operation, look.api_key_id)


async def drive_mint(
    ctx: Context, operation: Operation, api_key_id: str | None, *, may_replace: bool = True
) -> None:
    """Take an invoice's mint operation to its end; raises MintUnreachable while it has none.

    The caller holds the operation's lease; however this ends, the lease is given back.
    """
    priority = Priority.RECEIVE if operation.state is OperationState.PREPARED else Priority.RECOVERY
    outcome = await run_call(ctx, operation, priority, MINT)
    if isinstance(outcome, Signed):
        ctx.failpoint("invoice.signed")
        await ctx.ledger.submit(
            CreditInvoice(
                operation=operation,
                proofs=outcome.proofs,
                ys=outcome.ys,
                api_key_id=api_key_id,
            )
        )
        ctx.failpoint("invoice.credited")
        return
    if isinstance(outcome, Refused):
        if outcome.stale_keyset and may_replace:
            ctx.failpoint("invoice.refused")
            successor = await _replace(ctx, operation, outcome)
            ctx.failpoint("invoice.replaced")
            await drive_mint(ctx, successor, api_key_id, may_replace=False)
            return
        outcome = Doubtful(reason=f"paid, and refused with {outcome.code}")
    if isinstance(outcome, Doubtful) and watched_enough(ctx, operation):
        log.error("invoice_not_minted", operation_id=operation.id, mint_url=operation.mint_url)
        await ctx.ledger.submit(FailMint(operation=operation, code="watched"))
        return
    await postpone(ctx, operation, outcome)
    if isinstance(outcome, Unknown):
        raise unreachable(outcome.cause)
    raise MintUnreachable("The mint's answer is awaited.")


async def _replace(ctx: Context, operation: Operation, refused: Refused) -> Operation:
    """The same quote on the mint's keysets of now (NUT-02 rotation).

    Raises what `known_mint` raises; the refusal is then heard again, by whoever drives it next.
    """
    try:
        mint = await known_mint(ctx, operation.mint_url, since_s=ctx.monotonic_s())
        keyset = active_keyset(mint.keysets, operation.unit)
        amounts = split_on(keyset, operation.input_amount)
    except RoutstrError:
        await postpone(ctx, operation, Unknown(cause=MintRefused(refused.code, detail_kind="")))
        raise
    return await ctx.ledger.submit(
        ReplaceMint(
            operation=operation,
            code=str(refused.code),
            keyset_id=keyset.id,
            output_amounts=amounts,
            owner=ctx.new_id("lease"),
            lease_s=ctx.limits.mint_lease_s,
        )
    )


async def _post_mint(
    ctx: Context, operation: Operation, priority: Priority
) -> Sequence[BlindSignature]:
    return await ctx.mints.mint(operation.mint_url, operation.body, priority=priority)


async def _judge_mint(ctx: Context, evidence: Evidence) -> Signed | Open | None:
    """NUT-04: what was signed is ours if the quote is ISSUED, and only a PAID one can be taken.

    As with a swap, a signature of another life of this database says nothing: then the coins are
    spent, or the quote is not issued (NUT-07).
    """
    operation, found, priority = evidence.operation, evidence.found, evidence.priority
    assert operation.quote_id is not None
    try:
        quote = await ctx.mints.mint_quote(
            operation.mint_url, operation.quote_id, priority=priority
        )
    except MintRefused as error:
        return Doubtful(reason=f"paid, and now its quote is refused with {error.code}")
    if found is None and quote.state is QuoteState.ISSUED:
        return Doubtful(reason="issued, and our outputs were not signed")
    if found is None:
        return None if quote.state is QuoteState.PAID else Waiting()
    if quote.state is QuoteState.PENDING:
        return Waiting()
    states = await ctx.mints.check_state(operation.mint_url, found.ys, priority=priority)
    is_ours = operation.is_from_copy or set(states.values()) == {ProofState.UNSPENT}
    if quote.state is QuoteState.ISSUED and is_ours:
        return found
    return Doubtful(reason="the mint signed these outputs for something else")


MINT: Final = Call(name="mint", post=_post_mint, judge=_judge_mint)
