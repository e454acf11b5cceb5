"""Holding the most a request may cost: commit 1, before any byte goes upstream.

A whole answer is held in full. A stream holds its prompt and one slice of output, and extends that
while chunks arrive (`budget.py`), so that a rich request never starves its neighbours. What the
key cannot pay is taken off the output limit instead of being refused, down to 16 tokens.
"""

from dataclasses import dataclass

from routstr.core.order import Order
from routstr.core.quote import Quote
from routstr.flows.authenticate import Caller
from routstr.flows.context import Context
from routstr.flows.exchange import Answer, Exchange
from routstr.flows.receipts import pinned
from routstr.flows.repeat import Repeatable, hold_once
from routstr.ledger.holds import Hold, Reserve


@dataclass(frozen=True, slots=True, kw_only=True)
class Reserved:
    """A committed hold with the quote it was lowered to; `output_limit` is None if it was not."""

    hold: Hold
    quote: Quote
    output_limit: int | None


async def reserve(
    ctx: Context,
    exchange: Exchange,
    caller: Caller,
    order: Order,
    quote: Quote,
    claim: Repeatable | None = None,
) -> Reserved | Answer:
    """Authenticate a key and hold its money in one trip; from then on the hold is kept alive.

    With a claim that another request has, its answer. Raises what `Reserve` refuses with:
    InvalidApiKey, KeyRevoked, KeyExpired, ModelNotAllowed, RateLimited, InsufficientBalance,
    BalanceLimitExceeded, Overloaded, Paused; ServiceUnavailable when the database does not answer;
    with a claim what `hold_once` raises.
    """
    command = Reserve(
        hold_id=exchange.request_id,
        caller=caller.ref,
        wanted_msat=first_hold_msat(order, quote, ctx.limits.output_slice_tokens),
        minimum_msat=quote.minimum_msat,
        quote_msat=quote.total_msat,
        model_id=quote.model_id,
        price_snapshot=pinned(quote, exchange.request_sha256),
        owner=ctx.owner,
        lease_s=ctx.limits.hold_lease_s,
        rates=ctx.limits.rates,
        is_paused=not ctx.switches.spending,  # a repeat still gets the answer there is
    )
    ctx.failpoint("forward.before_reserve")
    if claim is None:
        hold = await ctx.ledger.submit(command)
    else:
        found = await hold_once(ctx, exchange, command, claim)
        if isinstance(found, Answer):
            return found
        hold = found
    exchange.api_key_id = hold.api_key_id
    exchange.ration = caller.ration
    exchange.renewed(ctx.monotonic_s() + ctx.limits.hold_lease_s)
    ctx.holds.add(hold.id, exchange)
    ctx.one_shots.discard(hold.api_key_id)  # from here on its hold says that the request runs
    ctx.failpoint("forward.reserved")
    return _lowered(hold, quote)


def first_hold_msat(order: Order, quote: Quote, slice_tokens: int) -> int:
    """What to hold at first: all of it, or for a stream the prompt and a slice per choice."""
    if not order.stream:
        return quote.total_msat
    return max(quote.msat_for(slice_tokens * quote.n), quote.minimum_msat)


def _lowered(hold: Hold, quote: Quote) -> Reserved:
    if hold.payable_msat >= quote.total_msat:
        return Reserved(hold=hold, quote=quote, output_limit=None)
    limit = quote.output_limit_for(hold.payable_msat)
    return Reserved(hold=hold, quote=quote.lowered_to(limit), output_limit=limit)
