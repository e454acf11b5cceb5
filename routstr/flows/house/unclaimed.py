"""Tokens that were given out and that nobody claimed for too long, taken back to their keys."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import structlog

from routstr.errors import RoutstrError
from routstr.flows.context import Context
from routstr.flows.reconcile import conclude
from routstr.flows.resume import resume
from routstr.gateways.mint_failure import MintFailure
from routstr.gateways.mint_limits import Priority
from routstr.ledger.reads import JobView, last_job
from routstr.ledger.reads_cleanup import (
    UnclaimedToken,
    pending_heap,
    unclaimed_heap,
    unclaimed_tokens,
)
from routstr.ledger.reads_proofs import given_out
from routstr.ledger.withdrawals import SWAP_INPUTS_MAX

log = structlog.get_logger()

WITHDRAWALS_JOB: Final = "withdrawals"
TOKENS_MAX: Final = 50  # in one pass: each is a question to a mint, and maybe a swap
AFTER: Final = "after_token"  # what cannot be taken back must not keep the others from their turn


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenBack:
    """What came of looking at tokens; `left` are those whose mint was silent or had doubts."""

    claimed: int = 0
    reclaimed: int = 0
    left: int = 0


async def withdrawals(ctx: Context) -> tuple[bool, dict[str, object]]:
    """Drive on what has no end, and take back what was out for the whole refund time."""
    driven = await resume(ctx)
    before = ctx.clock.now() - timedelta(seconds=ctx.limits.refund_ttl_s)
    async with ctx.database.reading() as connection:
        job = await last_job(connection, WITHDRAWALS_JOB)
        tokens = await unclaimed_tokens(
            connection, before, after_id=cursor_of(job), limit=TOKENS_MAX
        )
    taken = await take_back(ctx, tokens, unclaimed_s=ctx.limits.refund_ttl_s)
    async with ctx.database.reading() as connection:
        pending = await pending_heap(connection)
    return True, {
        "driven": driven,
        "claimed": taken.claimed,
        "reclaimed": taken.reclaimed,
        "left": taken.left,
        "pending": pending.count,
        "pending_msat": pending.amount_msat,
        AFTER: next_cursor(tokens),
    }


async def foresee_withdrawals(ctx: Context) -> dict[str, object]:
    """What has no end yet, and what would be asked about and, unclaimed, taken back."""
    before = ctx.clock.now() - timedelta(seconds=ctx.limits.refund_ttl_s)
    async with ctx.database.reading() as connection:
        pending = await pending_heap(connection)
        tokens = await unclaimed_heap(connection, before)
    return {
        "pending": pending.count,
        "pending_msat": pending.amount_msat,
        "reclaim": tokens.count,
        "reclaim_msat": tokens.amount_msat,
    }


def cursor_of(job: JobView | None) -> str:
    """After which token a job's next pass goes on."""
    after = None if job is None else (job.result or {}).get(AFTER)
    return after if isinstance(after, str) else ""


def next_cursor(tokens: Sequence[UnclaimedToken]) -> str:
    """The same for the pass after the one that took up those; empty begins anew."""
    return tokens[-1].withdrawal_id if len(tokens) == TOKENS_MAX else ""


async def take_back(
    ctx: Context, tokens: Sequence[UnclaimedToken], *, unclaimed_s: float
) -> TakenBack:
    """Ask about each, and end it; a mint that does not answer is not asked about the others.

    What is out for less than `unclaimed_s` stays out.
    """
    claimed = reclaimed = left = 0
    silent: set[str] = set()
    for each in tokens:
        if each.mint_url in silent:
            left += 1
            continue
        try:
            was_claimed, was_reclaimed = await _end(ctx, each, unclaimed_s)
        except (MintFailure, RoutstrError) as error:
            log.info("token_not_reclaimed", mint_url=each.mint_url, reason=type(error).__name__)
            silent.add(each.mint_url)
            left += 1
            continue
        claimed += was_claimed
        reclaimed += was_reclaimed
        left += not (was_claimed or was_reclaimed)
    return TakenBack(claimed=claimed, reclaimed=reclaimed, left=left)


async def _end(ctx: Context, each: UnclaimedToken, unclaimed_s: float) -> tuple[bool, bool]:
    """(claimed, reclaimed); neither while an operation is open for it."""
    async with ctx.database.reading() as connection:
        found = await given_out(
            connection,
            each.mint_url,
            proofs_max=SWAP_INPUTS_MAX,
            withdrawal_id=each.withdrawal_id,
        )
    if not found:
        return False, False
    states = await ctx.mints.check_state(each.mint_url, found[0].ys, priority=Priority.FLOAT)
    return await conclude(ctx, each.mint_url, found[0], states, unclaimed_s=unclaimed_s)
