"""From money on a key to a Cashu token, which stays readable with the key until it is spent.

Algorithm D. Debit and token are one commit when the purse has the coins; no mint is asked. Else the
debit and a swap are committed, and an answer the mint still owes means 425: the debit stands, the
money is in the swap, and every repeat attaches to it.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import structlog

from routstr.core.money import msat_from_unit
from routstr.errors import (
    BalanceTooSmall,
    IdempotencyMismatch,
    InvalidApiKey,
    MintShort,
    MintUnreachable,
    NoBalance,
    Paused,
    RefundKeyNotFound,
    RefundPending,
    TokenRedemptionFailed,
    UntrustedMint,
)
from routstr.flows.context import Context
from routstr.flows.mints import active_keyset, known_mint, remembered_mint
from routstr.flows.operate import check_not_paused, hourly_msat_max
from routstr.flows.refunds import (
    claim_operation,
    read_withdrawal,
    refundable_key,
    shown_withdrawal,
    stored_withdrawal,
)
from routstr.flows.sources import Source, first_that_can, sources_of
from routstr.flows.swap import (
    WATCHED,
    Refused,
    Signed,
    SpentElsewhere,
    postpone,
    run_swap,
    watched_enough,
)
from routstr.gateways.mint_failure import MintMisbehaved, MintRefused, MintUnknown
from routstr.gateways.mint_limits import Priority
from routstr.gateways.mint_wire import ProofState
from routstr.ledger.book import KeyRef
from routstr.ledger.issued import WithdrawalView, Withdrawing
from routstr.ledger.reads import KeyView, WithdrawalRow, find_withdrawal
from routstr.ledger.reads_ecash import MintRow, find_payment, proof_ys
from routstr.ledger.sagas import Operation, OperationState
from routstr.ledger.withdrawals import (
    BeginWithdrawal,
    FailWithdrawal,
    IssueWithdrawal,
)

log = structlog.get_logger()

__all__ = ["Wish", "WithdrawalView", "drive_withdrawal", "existing", "withdraw"]

POLL_S: Final = 0.1
REFUSED: Final = "The mint refused the withdrawal; the balance is untouched."


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a key's owner asks for; without an amount, everything.

    `at_once` is content with what the purse has: MintShort where a mint would have to be asked.
    `if_expired` is the node's own wish for a key that has: InvalidParameter for one that has not.
    What `is_change` of a request goes out whatever the operator has paused.
    """

    amount_sat: int | None = None
    at_once: bool = False
    is_change: bool = False
    mint_url: str | None = None
    idempotency_key: str | None = None
    fingerprint: str | None = None
    if_expired: bool = False


async def withdraw(ctx: Context, caller: KeyRef, wish: Wish) -> WithdrawalView:
    """Give out ecash; the answer carries the token.

    Raises RefundKeyNotFound, RequestsInFlight, NoBalance, BalanceTooSmall, InsufficientBalance,
    UntrustedMint, IdempotencyMismatch, MintShort, Paused, RefundPending (425: the debit stands).
    """
    return await ctx.tasks.carry_through(_withdraw(ctx, caller, wish), name="withdraw")


async def _withdraw(ctx: Context, caller: KeyRef, wish: Wish) -> WithdrawalView:
    key = await refundable_key(ctx, caller)
    try:
        await check_not_paused(ctx, is_change=wish.is_change)
    except Paused:
        again = await _begun_before(ctx, key, wish)
        if again is None:
            raise
        return again
    sources = await sources_of(ctx, key.id, wish.mint_url)
    caller = KeyRef(id=key.id)
    try:
        return await first_that_can(sources, partial(_from, ctx, caller, wish))
    except InvalidApiKey as error:
        raise RefundKeyNotFound from error
    except (NoBalance, BalanceTooSmall) as error:
        again = None if wish.amount_sat is not None else await _last_again(ctx, key.id)
        if again is not None:
            return again
        raise (NoBalance() if await _was_emptied(ctx, key.id) else error) from error


async def withdraw_from(ctx: Context, caller: KeyRef, wish: Wish, source: Source) -> WithdrawalView:
    """The same from one mint, of an account that is the node's own doing and so needs no proof.

    Raises what `withdraw` raises, but NoBalance of an account that was emptied before.
    """
    return await ctx.tasks.carry_through(_withdraw_from(ctx, caller, wish, source), name="withdraw")


async def _withdraw_from(
    ctx: Context, caller: KeyRef, wish: Wish, source: Source
) -> WithdrawalView:
    await check_not_paused(ctx, is_change=wish.is_change)
    return await _from(ctx, caller, wish, source)


async def empty(ctx: Context, api_key_id: str, wish: Wish) -> WithdrawalView:
    """The same by the node's own doing: nobody shows a key, and no earlier token is told again.

    Raises NoBalance, BalanceTooSmall, RequestsInFlight, MintShort, MintUnreachable, Paused, and
    RefundPending.
    """
    return await ctx.tasks.carry_through(_empty(ctx, api_key_id, wish), name="empty")


async def _empty(ctx: Context, api_key_id: str, wish: Wish) -> WithdrawalView:
    await check_not_paused(ctx)
    sources = await sources_of(ctx, api_key_id, wish.mint_url)
    return await first_that_can(sources, partial(_from, ctx, KeyRef(id=api_key_id), wish))


async def _from(ctx: Context, caller: KeyRef, wish: Wish, source: Source) -> WithdrawalView:
    """Begin with the keysets as last seen, asking nobody; again with fresh ones if refused.

    What the purse has needs no keysets; so without a swap those will do that this process saw.
    """
    seen = ctx.shelf.find(source.mint_url) if wish.at_once else None
    known = await remembered_mint(ctx, source.mint_url) if seen is None else seen.mint
    view = await _pay(ctx, caller, wish, source, known or await known_mint(ctx, source.mint_url))
    if view.status == "failed":
        fresh = await known_mint(ctx, source.mint_url, since_s=ctx.monotonic_s())
        view = await _pay(ctx, caller, wish, source, fresh)
    if view.status == "failed":
        raise MintShort(REFUSED)
    return view


async def _pay(
    ctx: Context, caller: KeyRef, wish: Wish, source: Source, mint: MintRow
) -> WithdrawalView:
    ctx.failpoint("withdraw.checked")
    begun = await _begin(ctx, caller, wish, source, mint)
    if begun.is_replay:
        return replace(await existing(ctx, begun.withdrawal), is_replay=True)
    if begun.operation is None:
        ctx.failpoint("withdraw.completed")
        return begun.withdrawal
    ctx.failpoint("withdraw.begun")
    return await drive_withdrawal(ctx, begun.operation, begun.withdrawal.api_key_id)


async def _begin(
    ctx: Context, caller: KeyRef, wish: Wish, source: Source, mint: MintRow
) -> Withdrawing:
    try:
        keyset = active_keyset(mint.keysets, source.unit, ctx.clock.now())
    except TokenRedemptionFailed as error:
        raise MintShort from error
    amount = wish.amount_sat
    if amount is not None and source.unit == "msat":
        amount = msat_from_unit(amount, "sat")
    return await ctx.ledger.submit(
        BeginWithdrawal(
            withdrawal_id=ctx.new_id("rfd"),
            caller=caller,
            amount=amount,
            unit=source.unit,
            mint_id=mint.id,
            mint_url=mint.url,
            keyset_id=keyset.id,
            goal=ctx.limits.float_goal(keyset.keys),
            owner=ctx.new_id("lease"),
            lease_s=ctx.limits.mint_lease_s,
            idempotency_key=wish.idempotency_key,
            fingerprint=wish.fingerprint,
            at_once=wish.at_once,
            if_expired=wish.if_expired,
            is_change=wish.is_change,
            hourly_msat_max=hourly_msat_max(ctx),
        )
    )


async def drive_withdrawal(ctx: Context, operation: Operation, api_key_id: str) -> WithdrawalView:
    """Take a withdrawal's swap to its end: completed, failed and refunded, or RefundPending."""
    priority = Priority.ISSUE if operation.state is OperationState.PREPARED else Priority.RECOVERY
    outcome = await run_swap(ctx, operation, priority)
    if isinstance(outcome, Signed):
        ctx.failpoint("withdraw.signed")
        view = await ctx.ledger.submit(
            IssueWithdrawal(
                operation=operation, api_key_id=api_key_id, proofs=outcome.proofs, ys=outcome.ys
            )
        )
        ctx.failpoint("withdraw.issued")
        return view
    if isinstance(outcome, Refused):
        ctx.failpoint("withdraw.refused")
        return await ctx.ledger.submit(
            FailWithdrawal(
                operation=operation,
                api_key_id=api_key_id,
                code=str(outcome.code),
                message=f"refused by the mint with code {outcome.code}",
            )
        )
    if isinstance(outcome, SpentElsewhere) and watched_enough(ctx, operation):
        ctx.failpoint("withdraw.lost")
        log.error(
            "coins_lost",
            operation_id=operation.id,
            withdrawal_id=operation.withdrawal_id,
            count=len(outcome.spent),
        )
        return await ctx.ledger.submit(
            FailWithdrawal(
                operation=operation,
                api_key_id=api_key_id,
                code=WATCHED,
                message="the mint calls coins of this node spent",
                lost=outcome.spent,
            )
        )
    await postpone(ctx, operation, outcome)
    raise RefundPending(details={"refund_id": operation.withdrawal_id}, retry_after_s=5)


async def existing(ctx: Context, view: WithdrawalView) -> WithdrawalView:
    """A withdrawal that was there already: finish it if it is pending."""
    if view.status != "pending":
        return view
    row = await stored_withdrawal(ctx, view.api_key_id, view.id)
    return await _resume(ctx, row, view.api_key_id)


async def _resume(ctx: Context, row: WithdrawalRow, api_key_id: str) -> WithdrawalView:
    """Drive a pending withdrawal on, or wait a while for whoever does."""
    deadline_s = ctx.monotonic_s() + ctx.limits.operation_wait_s
    while not (claimed := await claim_operation(ctx, row)):
        if ctx.monotonic_s() >= deadline_s:
            raise RefundPending(details={"refund_id": row.id}, retry_after_s=2)
        await ctx.clock.sleep(POLL_S)
        row = await stored_withdrawal(ctx, api_key_id, row.id)
        if row.status != "pending":
            return await _ended(ctx, row, api_key_id)
    view = await drive_withdrawal(ctx, claimed[0], api_key_id)
    if view.status == "failed":  # never an answer without a token: older clients drop the key
        raise MintShort(REFUSED)
    return view


async def _ended(ctx: Context, row: WithdrawalRow, api_key_id: str) -> WithdrawalView:
    if row.status == "failed":
        raise MintShort(REFUSED)
    return await read_withdrawal(ctx, KeyRef(id=api_key_id), row.id)


async def _begun_before(ctx: Context, key: KeyView, wish: Wish) -> WithdrawalView | None:
    """What this request repeats: it left the key before anything was paused.

    Raises IdempotencyMismatch.
    """
    if wish.idempotency_key is None:
        is_empty = wish.amount_sat is None and not key.balance_msat
        return await _last_again(ctx, key.id) if is_empty else None
    async with ctx.database.reading() as connection:
        known = await find_payment(
            connection, key.id, idempotency_key=wish.idempotency_key, payment_hash=None
        )
    if known is None:
        return None
    if known.fingerprint != wish.fingerprint:
        raise IdempotencyMismatch
    row = await stored_withdrawal(ctx, key.id, known.id)
    return replace(await existing(ctx, shown_withdrawal(ctx, key, row)), is_replay=True)


async def _last_again(ctx: Context, api_key_id: str) -> WithdrawalView | None:
    """The last token once more, if nothing was credited since and the mint calls it unspent."""
    async with ctx.database.reading() as connection:
        row = await find_withdrawal(connection, api_key_id)
        if row is None or row.credited_since or row.way != "token":
            return None
        ys = await proof_ys(connection, withdrawal_id=row.id)
    if row.status == "pending":
        return await _resume(ctx, row, api_key_id)
    if row.status != "completed":
        return None
    try:
        states = await ctx.mints.check_state(row.mint_url, ys)
    except (MintUnknown, MintRefused, MintMisbehaved, UntrustedMint) as error:
        raise MintUnreachable("The mint cannot say whether the last token is unspent.") from error
    if set(states.values()) != {ProofState.UNSPENT}:
        return None
    return await read_withdrawal(ctx, KeyRef(id=api_key_id), row.id)


async def _was_emptied(ctx: Context, api_key_id: str) -> bool:
    """Whether an earlier withdrawal took what there was: what is left was never enough."""
    async with ctx.database.reading() as connection:
        return await find_withdrawal(connection, api_key_id) is not None
