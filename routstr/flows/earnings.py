"""Profit to a Lightning wallet: by hand, or by the job that PAYOUT_TO switches on.

As in `payout.py`, money is first on the operator's account, then it leaves like anybody's; what is
there already leaves first. What is true if the process dies: before the payment is committed, the
money is on that account, and the next payout uses it; after that it is a payment like any other,
which is driven to its end, and gives the money back to the account if it fails.

Law: to one address there is one payment at a time. While it is under way, or nobody knows how it
ended, whoever asks for another gets that one: an impatient repeat does not pay twice.
"""

from dataclasses import replace
from typing import Final

import structlog

from routstr.core.money import MSAT_PER_SAT, floor_div, msat_from_unit, unit_from_msat
from routstr.errors import (
    InsufficientBalance,
    InvalidLightningAddress,
    MintShort,
    RefundKeyNotFound,
    RoutstrError,
)
from routstr.flows.context import Context
from routstr.flows.offers import read_bill
from routstr.flows.operate import check_not_paused
from routstr.flows.pay import PayWish, pay, see_through
from routstr.flows.payout import OWNER, profit_msat, provide, provide_all
from routstr.flows.refunds import read_payment
from routstr.ledger.accounts import OWNER_KEY_ID
from routstr.ledger.issued import WithdrawalView
from routstr.ledger.reads_wallet import pending_payments

log = structlog.get_logger()

ROUNDS_MAX: Final = 8
PENDING_MAX: Final = 50
# What is taken for fees before a mint has named its own; what is not needed stays on the account.
FEE_GUESS_MIN_MSAT: Final = 4 * MSAT_PER_SAT
FEE_GUESS_PERCENT: Final = 2


async def pay_profit(
    ctx: Context, to: str, *, amount_sat: int | None = None, mint_url: str | None = None
) -> WithdrawalView:
    """Pay an invoice or a Lightning address out of the profit; a pending view is under way.

    Without an amount an address gets all there is, as far as the coins of one mint reach and the
    address takes. A replay is a payment that was begun before. Raises ProfitTooSmall and what
    `pay` raises.
    """
    if "@" not in to:
        return await _pay(ctx, PayWish(invoice=to, amount_sat=amount_sat, mint_url=mint_url))
    address = to.strip().lower()
    begun = await _under_way(ctx, address)
    if begun is not None:
        return begun
    wish = PayWish(lightning_address=address, amount_sat=amount_sat, mint_url=mint_url)
    return await (_pay_most(ctx, wish) if wish.empties else _pay(ctx, wish))


async def pay_out(ctx: Context) -> int:
    """The job: profit from the floor on goes to PAYOUT_TO. Yields what was sent, in msat.

    Nothing is raised for what passes: a mint or an address that does not answer is asked next time.
    """
    to, floor_msat = ctx.limits.payout_to, msat_from_unit(ctx.limits.payout_floor_sats, "sat")
    sent_msat = 0
    for _ in ctx.payable_mints:  # what is beyond the coins of one mint, the next one may have
        if not to or await profit_msat(ctx) < floor_msat:
            break
        try:
            view = await pay_profit(ctx, to)
        except RoutstrError as error:
            log.warning("payout_postponed", code=error.code)
            break
        if view.status == "pending":
            log.info("payout_under_way", withdrawal_id=view.id)
            break
        log.info("payout_sent", amount_msat=view.amount_msat, withdrawal_id=view.id)
        sent_msat += view.amount_msat
    return sent_msat


async def _under_way(ctx: Context, address: str) -> WithdrawalView | None:
    """The payment to that address which has no end yet, seen through; None too if it has failed."""
    async with ctx.database.reading() as connection:
        pending = await pending_payments(connection, limit=PENDING_MAX)
    for withdrawal_id in pending:
        begun = await read_payment(ctx, OWNER_KEY_ID, withdrawal_id)
        if begun.recipient == address:
            view = await see_through(ctx, OWNER_KEY_ID, withdrawal_id)
            if view.status != "failed":
                return replace(view, is_replay=True)
    return None


async def _pay_most(ctx: Context, wish: PayWish) -> WithdrawalView:
    """All profit; `pay` finds what fits with the fees, and what the fullest mint can."""
    await check_not_paused(ctx)
    await provide_all(ctx)
    ctx.failpoint("earnings.taken")
    try:
        return await pay(ctx, OWNER, wish)
    except InvalidLightningAddress as error:
        most_msat = error.details.get("max_msat")
        if not isinstance(most_msat, int) or most_msat >= await profit_msat(ctx):
            raise
    return await _pay(ctx, replace(wish, amount_sat=unit_from_msat(most_msat, "sat")))


async def _pay(ctx: Context, wish: PayWish) -> WithdrawalView:
    """Pay from the operator's account; what is missing there is taken out of the surplus first."""
    for _ in range(ROUNDS_MAX):
        try:
            return await pay(ctx, OWNER, wish)
        except RefundKeyNotFound:  # nothing was ever taken
            need_msat = _asked_msat(ctx, wish)
        except InsufficientBalance as error:
            need_msat = int(str(error.details["required_msat"]))
        await check_not_paused(ctx)
        await provide(ctx, await _with_fees(ctx, need_msat))
        ctx.failpoint("earnings.taken")
    raise MintShort


def _asked_msat(ctx: Context, wish: PayWish) -> int:
    """What its recipient is to get. Raises what `read_bill` raises."""
    if wish.invoice is not None:
        return read_bill(ctx, wish.invoice, amount_sat=wish.amount_sat).amount_msat
    assert wish.amount_sat is not None, "whoever sends all asks for no amount"
    return msat_from_unit(wish.amount_sat, "sat")


async def _with_fees(ctx: Context, need_msat: int) -> int:
    """That and a guess of the fees, as far as there is profit for them."""
    guess_msat = max(floor_div(need_msat * FEE_GUESS_PERCENT, 100), FEE_GUESS_MIN_MSAT)
    return max(need_msat, min(need_msat + guess_msat, await profit_msat(ctx)))
