"""What the mints say of our proofs, once an hour (ecash.md, section 4, D and F).

Tokens that were given out and spent are claimed; those that nobody wanted for so long go back to
their keys. Proofs that only we should be able to spend and that the mint calls spent are reported
and left as they are: the books must not follow the word of a mint that may be lying.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final

import structlog

from routstr.errors import MintShort, RoutstrError, TokenRedemptionFailed
from routstr.flows.context import Context
from routstr.flows.reclaim import reclaim
from routstr.gateways.mint_failure import MintFailure
from routstr.gateways.mint_limits import Priority
from routstr.gateways.mint_wire import ProofState
from routstr.ledger.reads import last_job
from routstr.ledger.reads_proofs import GivenOut, given_out, held_at, mints_to_ask, still_held
from routstr.ledger.reclaims import ClaimWithdrawal

log = structlog.get_logger()

RECONCILE_JOB: Final = "reconcile"
NAMED_MAX: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What came of asking one mint; the cursors are where the next run goes on."""

    claimed: int = 0
    reclaimed: int = 0
    spent_elsewhere: tuple[str, ...] = field(default=(), repr=False)
    silent: str | None = None
    after_id: str = ""
    after_y: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How many proofs a batch asks about, and how many batches of a kind one run asks of a mint."""

    batch: int = 200
    pages_max: int = 50


async def reconcile(ctx: Context, bounds: Bounds | None = None) -> tuple[bool, dict[str, object]]:
    """Ask every mint, side by side; false with the names of proofs that were spent not by us.

    A mint that does not answer is named, and its turn comes again. What is beyond the bounds is
    the next run's.
    """
    bounds = bounds or Bounds()
    async with ctx.database.reading() as connection:
        urls = await mints_to_ask(connection)
        job = await last_job(connection, RECONCILE_JOB)
    last = (job.result or {}).get("after") if job is not None else None
    cursors = last if isinstance(last, Mapping) else {}
    every = await asyncio.gather(*(_ask(ctx, url, cursors.get(url), bounds) for url in urls))
    found = dict(zip(urls, every, strict=True))
    spent = [y for each in every for y in each.spent_elsewhere]
    return not spent, {
        "claimed": sum(each.claimed for each in every),
        "reclaimed": sum(each.reclaimed for each in every),
        "spent_elsewhere": spent[:NAMED_MAX],
        "silent": {url: each.silent for url, each in found.items() if each.silent},
        "after": {url: [each.after_id, each.after_y] for url, each in found.items()},
    }


async def _ask(ctx: Context, mint_url: str, cursor: object, bounds: Bounds) -> Found:
    after_id, after_y = cursor if isinstance(cursor, list) and len(cursor) == 2 else ("", "")
    found = Found(after_id=str(after_id), after_y=str(after_y))
    try:
        found = await _ask_about_tokens(ctx, mint_url, found, bounds)
        return await _ask_about_ours(ctx, mint_url, found, bounds)
    except (MintFailure, RoutstrError) as error:
        log.info("mint_not_reconciled", mint_url=mint_url, reason=type(error).__name__)
        return replace(found, silent=type(error).__name__)


async def _ask_about_tokens(ctx: Context, mint_url: str, found: Found, bounds: Bounds) -> Found:
    """Claimed or unclaimed, token by token."""
    for _ in range(bounds.pages_max):
        async with ctx.database.reading() as connection:
            page = await given_out(
                connection, mint_url, after_id=found.after_id, proofs_max=bounds.batch
            )
        if not page:
            return replace(found, after_id="")
        ys = [y for token in page for y in token.ys]
        states = await ctx.mints.check_state(mint_url, ys, priority=Priority.FLOAT)
        for token in page:
            try:
                claimed, reclaimed = await conclude(
                    ctx, mint_url, token, states, unclaimed_s=ctx.limits.refund_ttl_s
                )
            except RoutstrError as error:  # its operation is open now, or the mint is gone
                log.info("token_not_reclaimed", mint_url=mint_url, code=error.code)
                return found
            found = replace(
                found,
                claimed=found.claimed + claimed,
                reclaimed=found.reclaimed + reclaimed,
                after_id=token.withdrawal_id,
            )
    return found


async def conclude(
    ctx: Context,
    mint_url: str,
    token: GivenOut,
    states: Mapping[str, ProofState],
    *,
    unclaimed_s: float,
) -> tuple[bool, bool]:
    """(claimed, reclaimed) of one token; pending proofs are somebody's call that is running.

    What is out for less than `unclaimed_s` stays out. Raises what `reclaim` and `ClaimWithdrawal`
    do, but for a mint that is short or refuses: then the token is what it was.
    """
    said = {states[y] for y in token.ys}
    if said == {ProofState.SPENT}:
        ctx.failpoint("reconcile.spent")
        command = ClaimWithdrawal(withdrawal_id=token.withdrawal_id, ys=token.ys)
        claimed = await ctx.ledger.submit(command)
        ctx.failpoint("reconcile.claimed")
        return claimed, False
    since = ctx.clock.now() - timedelta(seconds=unclaimed_s)
    if ProofState.PENDING in said or token.completed_at > since:
        return False, False
    unspent = [y for y in token.ys if states[y] is ProofState.UNSPENT]
    try:
        return False, await reclaim(ctx, mint_url, token, unspent)
    except (MintShort, TokenRedemptionFailed) as error:
        log.info("token_not_reclaimed", withdrawal_id=token.withdrawal_id, reason=error.message)
        return False, False


async def _ask_about_ours(ctx: Context, mint_url: str, found: Found, bounds: Bounds) -> Found:
    """Proofs that nobody else has: unspent ones, and locked ones to be redeemed."""
    for _ in range(bounds.pages_max):
        async with ctx.database.reading() as connection:
            ys = await held_at(connection, mint_url, after_y=found.after_y, limit=bounds.batch)
        if not ys:
            return replace(found, after_y="")
        states = await ctx.mints.check_state(mint_url, ys, priority=Priority.FLOAT)
        spent = [y for y in ys if states[y] is ProofState.SPENT]
        if spent:
            async with ctx.database.reading() as connection:
                spent = await still_held(connection, spent)
        if spent:
            log.error("proofs_spent_elsewhere", mint_url=mint_url, count=len(spent))
        found = replace(found, spent_elsewhere=(*found.spent_elsewhere, *spent), after_y=ys[-1])
    return found
