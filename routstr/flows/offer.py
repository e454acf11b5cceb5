"""What a request can cost, told before it runs: the 402 that a wallet can pay, and `/v1/quote`.

Asks no mint and holds nothing. The amount is what the order can cost at most, rounded up to sat,
and on top of it what the mint takes for redeeming that amount in as few coins as it needs, at the
dearest of the node's mints, so that any of them will do. Source: NUT-18, NUT-24, NUT-26.
"""

from dataclasses import dataclass
from typing import Final

from routstr.core.money import MSAT_PER_SAT, ceil_div
from routstr.core.quote import Quote
from routstr.ecash.keyset import fee
from routstr.ecash.p2pk import P2PK_KIND
from routstr.ecash.request import Lock, PaymentRequest, encode_request_a, encode_request_b
from routstr.errors import RoutstrError
from routstr.flows.context import Context
from routstr.flows.mints import remembered_mint
from routstr.flows.operate import check_deposits, check_spending

UNIT: Final = "sat"


class PaymentRequired(RoutstrError):
    """Payment is required: send a Cashu token in `X-Cashu`, or as `Authorization: Bearer`."""

    status, type, code = 402, "payment_required", "payment_required"


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A price a wallet can pay; `amount` in sat, `request_a` is `creqA…`, `request_b` `CREQB…`."""

    amount: int
    mints: tuple[str, ...]
    request_a: str
    request_b: str


async def offer(ctx: Context, quote: Quote) -> Offer:
    """The request to pay for `quote`, in-band: with the token in `X-Cashu`."""
    fee_ppk = 0
    for url in ctx.facts.mints:
        fee_ppk = max(fee_ppk, await _fee_ppk(ctx, url))
    amount = with_redemption_fee(ceil_div(quote.total_msat, MSAT_PER_SAT), fee_ppk)
    request = PaymentRequest(
        id=ctx.new_id("pay"),
        amount=amount,
        unit=UNIT,
        mints=ctx.facts.mints,
        lock=acceptance_lock(ctx),
    )
    return Offer(
        amount=amount,
        mints=request.mints,
        request_a=encode_request_a(request),
        request_b=encode_request_b(request),
    )


async def payment_required(ctx: Context, quote: Quote) -> PaymentRequired:
    """What a request for something priced is answered with that brings no money.

    Raises Paused while money brought now would be refused: a wallet pays what it is asked for.
    """
    check_spending(ctx)
    await check_deposits(ctx, quote.total_msat)
    offered = await offer(ctx, quote)
    return PaymentRequired(
        details={
            "payment_request": offered.request_a,
            "payment_request_bech32": offered.request_b,
            "amount_required_msat": quote.total_msat,
            "mints": list(offered.mints),
        },
        headers={"X-Cashu": offered.request_a},
    )


def with_redemption_fee(amount: int, fee_ppk: int) -> int:
    """`amount` and what a mint takes for redeeming the sum in powers of two (NUT-02)."""
    total = amount
    while (missing := amount - total + fee([fee_ppk] * total.bit_count())) > 0:
        total += missing
    return total


def acceptance_lock(ctx: Context) -> Lock | None:
    """The lock payers may put on their ecash, so that it is taken without asking the mint.

    None while none is taken: what is locked to the node is of no use to anybody else.
    """
    if ctx.limits.p2pk_lock == "off" or not ctx.switches.deposits:
        return None
    return Lock(kind=P2PK_KIND, data=ctx.acceptance.current)


async def _fee_ppk(ctx: Context, url: str) -> int:
    """The highest input fee of the mint's active keysets, as last seen; 0 if it never was."""
    seen = ctx.shelf.find(url)
    mint = await remembered_mint(ctx, url) if seen is None else seen.mint
    keysets = () if mint is None else mint.keysets
    return max(
        (each.input_fee_ppk for each in keysets if each.active and each.unit == UNIT), default=0
    )
