"""From money on a key to somebody's Lightning wallet.

Laws: one invoice is paid once, whoever asks how often; what was begun is committed before the mint
hears of it, and every repeat attaches to it. A mint that cannot pay never hides one that can, but a
payment begun at one mint is asked of another only after a definite no.
"""

from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

from routstr.errors import (
    IdempotencyMismatch,
    InvalidApiKey,
    InvalidInvoice,
    MintShort,
    Pending,
    RefundKeyNotFound,
    RefundPending,
)
from routstr.flows.context import Context
from routstr.flows.melt import drive_melt
from routstr.flows.offers import Bill, Offer, PayWish, make_offer, read_invoice, with_bill
from routstr.flows.operate import check_not_paused, hourly_msat_max
from routstr.flows.refunds import (
    claim_operation,
    read_payment,
    refundable_key,
    stored_withdrawal,
)
from routstr.flows.sources import Source, first_that_can, sources_of
from routstr.ledger.book import KeyRef
from routstr.ledger.issued import WithdrawalView, Withdrawing
from routstr.ledger.melts import BeginMelt, MeltTerms
from routstr.ledger.reads import KeyView
from routstr.ledger.reads_ecash import find_payment
from routstr.ledger.sagas import OperationState

__all__ = ["PayWish", "PaymentQuote", "pay", "quote_payment", "see_through"]

POLL_FIRST_S: Final = 0.1
POLL_MAX_S: Final = 2.0
NOT_PAID: Final = "The payment could not be made; its money is back on the key."


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentQuote:
    """What a payment would cost at most: what its recipient gets, and all fees."""

    recipient: str = field(repr=False)
    amount_msat: int
    fee_reserve_msat: int
    total_msat: int
    mint_url: str
    expires_at: int


async def pay(ctx: Context, caller: KeyRef, wish: PayWish) -> WithdrawalView:
    """Pay an invoice or a Lightning address; a view that is pending is still under way.

    Raises RefundKeyNotFound, InvalidInvoice, InvalidLightningAddress, LightningAddressUnreachable,
    InvalidParameter, RequestsInFlight, NoBalance, BalanceTooSmall, InsufficientBalance,
    UntrustedMint, MintUnreachable, MintShort, IdempotencyMismatch, Paused, and RefundPending (425:
    the debit stands, and repeats attach).
    """
    return await ctx.tasks.carry_through(_pay(ctx, caller, wish), name="pay")


async def quote_payment(ctx: Context, caller: KeyRef, wish: PayWish) -> PaymentQuote:
    """What `pay` would debit at most, asked of the mint that would pay. Moves nothing.

    Raises what `pay` raises before it begins.
    """
    key = await refundable_key(ctx, caller)
    sources = await sources_of(ctx, key.id, wish.mint_url)

    async def use(bill: Bill) -> PaymentQuote:
        ask = partial(make_offer, ctx, key, bill)
        return _told(bill, await first_that_can(sources, ask, InvalidInvoice))

    return await with_bill(ctx, key, wish, use)


def _told(bill: Bill, offer: Offer) -> PaymentQuote:
    ends = (bill.invoice.expires_at, offer.quote.expiry_s)
    return PaymentQuote(
        recipient=bill.recipient,
        amount_msat=bill.amount_msat,
        fee_reserve_msat=offer.total_msat - bill.amount_msat,
        total_msat=offer.total_msat,
        mint_url=offer.source.mint_url,
        expires_at=min(each for each in ends if each is not None),
    )


async def _pay(ctx: Context, caller: KeyRef, wish: PayWish) -> WithdrawalView:
    key = await refundable_key(ctx, caller)
    again = await _again(ctx, key.id, wish)
    if again is not None:
        return again
    await check_not_paused(ctx)
    sources = await sources_of(ctx, key.id, wish.mint_url)

    async def use(bill: Bill) -> WithdrawalView:
        pay_from = partial(_from, ctx, key, wish, bill)
        return await first_that_can(sources, pay_from, InvalidInvoice)

    try:
        return await with_bill(ctx, key, wish, use)
    except InvalidApiKey as error:
        raise RefundKeyNotFound from error
    except (InvalidInvoice, MintShort):
        # A mint quotes no invoice that it is paying, and its coins are in that payment: our own?
        again = await _again(ctx, key.id, wish)
        if again is None:
            raise
        return again


async def _again(ctx: Context, key_id: str, wish: PayWish) -> WithdrawalView | None:
    """How the payment stands that this request repeats. Raises IdempotencyMismatch."""
    known = await _known(ctx, key_id, wish)
    if known is None:
        return None
    return replace(_made(await see_through(ctx, key_id, known)), is_replay=True)


async def _known(ctx: Context, key_id: str, wish: PayWish) -> str | None:
    """The payment that this request repeats. Raises IdempotencyMismatch."""
    payment_hash = None
    if wish.invoice is not None:
        payment_hash = read_invoice(wish.invoice)[1].payment_hash
    async with ctx.database.reading() as connection:
        known = await find_payment(
            connection, key_id, idempotency_key=wish.idempotency_key, payment_hash=payment_hash
        )
    if known is None:
        return None
    if known.is_same_key and known.fingerprint != wish.fingerprint:
        raise IdempotencyMismatch
    return known.id


async def _from(
    ctx: Context, key: KeyView, wish: PayWish, bill: Bill, source: Source
) -> WithdrawalView:
    offer = await make_offer(ctx, key, bill, source)
    ctx.failpoint("pay.offered")
    return _made(await _driven(ctx, await _begin(ctx, key, wish, bill, offer)))


def _made(view: WithdrawalView) -> WithdrawalView:
    """A payment that was not refused. Raises MintShort for one that was."""
    if view.status == "failed":
        raise MintShort(NOT_PAID)
    return view


async def _begin(
    ctx: Context, key: KeyView, wish: PayWish, bill: Bill, offer: Offer
) -> Withdrawing:
    return await ctx.ledger.submit(
        BeginMelt(
            withdrawal_id=ctx.new_id("rfd"),
            caller=KeyRef(id=key.id),
            terms=MeltTerms(
                quote_id=offer.quote.quote_id,
                amount=offer.quote.amount,
                fee_reserve=offer.quote.fee_reserve,
                unit=offer.source.unit,
                mint_id=offer.mint.id,
                mint_url=offer.mint.url,
                keyset_id=offer.keyset.id,
                recipient=bill.recipient,
                payment_hash=bill.invoice.payment_hash,
            ),
            empties=wish.empties,
            hourly_msat_max=hourly_msat_max(ctx),
            owner=ctx.new_id("lease"),
            lease_s=ctx.limits.mint_lease_s,
            idempotency_key=wish.idempotency_key,
            fingerprint=wish.fingerprint,
        )
    )


async def _driven(ctx: Context, begun: Withdrawing) -> WithdrawalView:
    """Drive what was begun, and wait a while for its end."""
    view = begun.withdrawal
    if begun.operation is not None:
        ctx.failpoint("pay.begun")
        with suppress(Pending):  # its debit stands; the wait below tells what becomes of it
            view = await drive_melt(ctx, begun.operation, view.api_key_id)
    if view.status == "pending":
        view = await see_through(ctx, view.api_key_id, view.id)
    return replace(view, is_replay=begun.is_replay)


async def see_through(ctx: Context, key_id: str, withdrawal_id: str) -> WithdrawalView:
    """A payment that has ended, or which the mint still has under way after a wait.

    Reads first, and drives it if nobody does, ever less often. Raises RefundPending when it is
    not known how it stands.
    """
    deadline_s = ctx.monotonic_s() + ctx.limits.operation_wait_s
    wait_s = POLL_FIRST_S
    while (row := await stored_withdrawal(ctx, key_id, withdrawal_id)).status == "pending":
        if ctx.monotonic_s() >= deadline_s:
            if row.operation_state != OperationState.WAITING:
                raise RefundPending(details={"refund_id": row.id}, retry_after_s=5)
            break
        await ctx.clock.sleep(min(wait_s, deadline_s - ctx.monotonic_s()))
        wait_s = min(2 * wait_s, POLL_MAX_S)
        for operation in await claim_operation(ctx, row):
            with suppress(Pending):
                await drive_melt(ctx, operation, key_id)
    return await read_payment(ctx, key_id, withdrawal_id)
