"""The end of a hold: commit 2, and the receipt of what it came to.

Laws: every hold that was made is ended here, or by the job that expires it; a settlement is tried
until the hold's lease is certainly over, because after that nothing can be charged any more; what
the client is told is what was charged.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import structlog

from routstr.core.outcome import (
    ERROR_OUTCOMES,
    Evidence,
    Outcome,
    Verdict,
    cost_of_verdict,
    with_hold,
)
from routstr.core.prices import before_fee
from routstr.core.pricing import Cost, cost_of
from routstr.core.quote import Quote
from routstr.core.receipt import Receipt
from routstr.core.signed_receipt import SignedReceipt
from routstr.errors import RoutstrError, ServiceUnavailable
from routstr.flows.context import Context
from routstr.flows.early import count_with_others
from routstr.flows.exchange import Answer, Exchange
from routstr.flows.kept import KEPT_S, Keepsake, receipt_of, seal
from routstr.flows.receipts import bill_lines, receipt_of_settlement
from routstr.gateways.traces import RequestSpan
from routstr.ledger.holds import Hold, Settle, Settled
from routstr.ledger.idempotency import SettleKeeping

log = structlog.get_logger()

RETRY_FIRST_S: Final = 0.1
RETRY_MAX_S: Final = 5.0

# What OpenTelemetry's GenAI conventions call what is bought.
OPERATIONS: Final = {
    "/chat/completions": "chat",
    "/messages": "chat",
    "/responses": "chat",
    "/completions": "text_completion",
    "/embeddings": "embeddings",
}
_LEFT: Final = frozenset({Outcome.CLIENT_LEFT, Outcome.CLIENT_LEFT_EARLY})


class SettlementLost(RoutstrError):
    """The node could not see this request settled; its receipt will say what was charged.

    A commit whose answer was lost may have charged it; otherwise the hold expires, which is free.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """A settled exchange: its verdict with the receipt for the client, and the signed one."""

    verdict: Verdict
    receipt: Receipt
    signed: SignedReceipt | None


async def settle(
    ctx: Context,
    exchange: Exchange,
    *,
    hold: Hold,
    quote: Quote,
    verdict: Verdict,
    keep: Answer | None = None,
) -> Bill:
    """End the hold with what `verdict` costs at the pinned price, and say so.

    `hold` is the hold as last extended; `keep` is kept for a repeat, in the same commit. Raises
    SettlementLost when the database stayed away until the hold was over; unless a commit came
    through unheard, it then expires and charges nothing.
    """
    cost = cost_of_verdict(verdict, quote.price, hold_msat=hold.amount_msat)
    verdict = with_hold(verdict, cost_msat=cost.total_msat, hold_msat=hold.amount_msat)
    is_free = verdict.evidence is Evidence.NONE and exchange.one_shot is None
    is_early = verdict.outcome in _LEFT and is_free and bool(exchange.attempts)
    if is_early:
        ctx.early_leaves.note(exchange.ration)
    command = Settle(
        hold_id=hold.id,
        api_key_id=hold.api_key_id,
        cost_msat=cost.total_msat,
        description=quote.model_id,
        request_data=_request_data(exchange, hold, quote, verdict, cost),
        spender_id=hold.spender_id,
        tokens=verdict.usage.input_tokens + verdict.usage.output_tokens,
    )
    estimated, btc_usd_text = verdict.evidence is Evidence.ESTIMATED, ctx.catalog.btc_usd_text
    keeping: Settle | SettleKeeping = command
    if keep is not None:
        keepsake = Keepsake(answer=keep, cost=cost, estimated=estimated, btc_usd_text=btc_usd_text)
        sealed = seal(ctx, keepsake, hold.id)
        keeping = SettleKeeping(settle=command, answer=sealed, ttl_s=KEPT_S)
    try:
        settled = await _submit(ctx, exchange, keeping)
    finally:
        ctx.holds.remove(hold.id)
    _tell(ctx, exchange, hold, quote, verdict, settled)
    if is_early and ctx.notices is not None:  # there may be other processes
        work = count_with_others(
            ctx, exchange.ration, key_id=hold.api_key_id, spender_id=hold.spender_id
        )
        ctx.tasks.start(work, name="early leaves")
    return Bill(
        verdict=verdict,
        signed=receipt_of_settlement(ctx, exchange.request_sha256, quote, hold, command, settled),
        receipt=receipt_of(
            cost,
            estimated=estimated,
            btc_usd_text=btc_usd_text,
            charged_msat=settled.charged_msat,
            available_msat=None if exchange.one_shot else settled.available_msat,
        ),
    )


def _tell(
    ctx: Context,
    exchange: Exchange,
    hold: Hold,
    quote: Quote,
    verdict: Verdict,
    settled: Settled,
) -> None:
    """Count it, and say it to whoever the operator wants to hear of it."""
    times = exchange.watch.times()
    ctx.meters.note_ended(
        verdict.outcome,
        times,
        charged_msat=settled.charged_msat,
        absorbed_msat=settled.absorbed_msat,
        at_risk_msat=_at_risk_msat(exchange, hold, verdict),
    )
    if ctx.traces is not None:
        ctx.traces.note(
            RequestSpan(
                request_id=exchange.request_id,
                operation=OPERATIONS.get(exchange.dialect.path, "generate_content"),
                model=quote.model_id,
                upstream=exchange.provider,
                outcome=verdict.outcome.value,
                failure=verdict.outcome.value if verdict.outcome in ERROR_OUTCOMES else None,
                input_tokens=verdict.usage.input_tokens,
                output_tokens=verdict.usage.output_tokens,
                charged_msat=settled.charged_msat,
                total_ms=times.total_ms,
                first_ms=times.first_ms,
                ended_at=ctx.clock.now(),
            )
        )


async def _submit(ctx: Context, exchange: Exchange, command: Settle | SettleKeeping) -> Settled:
    wait_s = RETRY_FIRST_S
    while True:
        ctx.failpoint("settle.before")
        try:
            settled = await ctx.ledger.submit(command)
        except ServiceUnavailable as error:
            if ctx.monotonic_s() >= exchange.lease_until_s:
                log.error("settlement_lost", hold_id=exchange.request_id)
                raise SettlementLost(should_retry=False) from error
            await ctx.clock.sleep(wait_s)
            wait_s = min(2 * wait_s, RETRY_MAX_S)
        else:
            ctx.failpoint("settle.after")
            return settled


def _request_data(
    exchange: Exchange, hold: Hold, quote: Quote, verdict: Verdict, cost: Cost
) -> Mapping[str, object]:
    """What the `usage` row says (guarantees, section 2); the ledger adds what it absorbed."""
    is_free = verdict.evidence is Evidence.NONE
    return {
        "outcome": verdict.outcome.value,
        "evidence": verdict.evidence.value,
        "model": quote.model_id,
        "price_version": quote.price.version,
        "usage": verdict.usage.counts(),
        "lines": [] if is_free else bill_lines(verdict.usage, quote.price),
        "usage_insane": verdict.usage_insane,
        "cost_msat": cost.total_msat,
        "at_risk_msat": _at_risk_msat(exchange, hold, verdict),
        "attempts": exchange.attempts,
        "upstream": exchange.provider,
        **exchange.watch.times().row(),
        **_upstreams_bill(exchange, verdict),
        **({"tried": list(exchange.tried)} if exchange.tried else {}),
    }


def _at_risk_msat(exchange: Exchange, hold: Hold, verdict: Verdict) -> int:
    """What an upstream that was asked may bill though nothing proves it: the hold, at most."""
    return hold.amount_msat if verdict.evidence is Evidence.NONE and exchange.attempts else 0


def _upstreams_bill(exchange: Exchange, verdict: Verdict) -> Mapping[str, int]:
    """What the use costs the operator, as far as that is known: of a USD price, all but his fee."""
    sold = exchange.candidate
    if verdict.evidence is Evidence.NONE or sold is None or not sold.usd:
        return {}
    cost_msat = cost_of(verdict.usage, sold.price).total_msat
    return {"upstream_msat": before_fee(cost_msat, sold.fee_ppm)}
