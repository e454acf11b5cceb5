"""The money of keys that have expired: first claimable by whoever has the key, then the operator's.

All there is on such a key is given out as a token, as a withdrawal of its owner's would be: who
still has the key reads it at `/v1/balance/refund/{id}` or by asking for a refund again. What nobody
claimed in time is taken back to the key and swept from there, as is what never was enough for a
token. What is true if the process dies anywhere: the money is on the key, or in a withdrawal that
`resume` drives to its end, or swept; the next pass goes on from the rows.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

import structlog

from routstr.core.money import unit_from_msat
from routstr.errors import (
    BalanceTooSmall,
    MintUnreachable,
    NoBalance,
    Paused,
    RefundPending,
    RoutstrError,
)
from routstr.flows.context import Context
from routstr.flows.house.unclaimed import (
    AFTER,
    TOKENS_MAX,
    cursor_of,
    next_cursor,
    take_back,
)
from routstr.flows.sources import sources_of
from routstr.flows.withdraw import Wish, empty
from routstr.ledger.expiry import EXPIRED, SweepExpired
from routstr.ledger.reads import last_job
from routstr.ledger.reads_cleanup import (
    ExpiredKey,
    expired_keys,
    unclaimed_heap,
    unclaimed_tokens,
)

log = structlog.get_logger()

EXPIRE_KEYS_JOB: Final = "expire-keys"
KEYS_MAX: Final = 200  # in one pass: some of them need a mint
SILENT_MAX: Final = 3  # then the mints are having a bad hour
COMMITTED_TOGETHER: Final = 32
FORESEEN_MAX: Final = 1_000


@dataclass(slots=True, kw_only=True)
class _Pass:
    """What one pass did; `to_sweep` waits for its end, `after` is where the next one goes on."""

    after: str

    issued: int = 0
    issued_msat: int = 0
    refused: int = 0
    silent: int = 0
    is_paused: bool = False
    to_sweep: list[ExpiredKey] = field(default_factory=list)

    @property
    def may_issue(self) -> bool:
        return self.silent < SILENT_MAX and not self.is_paused


async def expire_keys(ctx: Context) -> tuple[bool, dict[str, object]]:
    """One pass: take back, give out, sweep; what is beyond its bounds is the next one's."""
    claimable_s = ctx.limits.expired_claim_ttl_s
    before = ctx.clock.now() - timedelta(seconds=claimable_s)
    async with ctx.database.reading() as connection:
        job = await last_job(connection, EXPIRE_KEYS_JOB)
        tokens = await unclaimed_tokens(
            connection, before, fingerprint=EXPIRED, after_id=cursor_of(job), limit=TOKENS_MAX
        )
    taken = await take_back(ctx, tokens, unclaimed_s=claimable_s)
    async with ctx.database.reading() as connection:
        last = (job.result or {}).get("after") if job is not None else None
        after = last if isinstance(last, str) else ""
        keys = await expired_keys(connection, ctx.clock.now(), after_id=after, limit=KEYS_MAX)
    done = _Pass(after=after)
    for key in keys:
        if await _is_for_the_operator(ctx, key):
            done.to_sweep.append(key)
        elif key.offered_at is None and key.revoked_at is None:
            await _give_out(ctx, key, done)
        if not done.may_issue:
            break
        done.after = key.id
    else:
        done.after = done.after if len(keys) == KEYS_MAX else ""
    swept, swept_msat = await _sweep(ctx, done.to_sweep)
    return True, {
        "issued": done.issued,
        "issued_msat": done.issued_msat,
        "claimed": taken.claimed,
        "reclaimed": taken.reclaimed,
        "swept": swept,
        "swept_msat": swept_msat,
        "refused": done.refused,
        "after": done.after,
        AFTER: next_cursor(tokens),
    }


async def foresee_expired_keys(ctx: Context) -> dict[str, object]:
    """What passes would give out, take back and sweep now; the first so many of them."""
    now = ctx.clock.now()
    before = now - timedelta(seconds=ctx.limits.expired_claim_ttl_s)
    async with ctx.database.reading() as connection:
        keys = await expired_keys(connection, now, limit=FORESEEN_MAX)
        tokens = await unclaimed_heap(connection, before, fingerprint=EXPIRED)
    issue, sweep = [], []
    for key in keys:
        if await _is_for_the_operator(ctx, key):
            sweep.append(key)
        elif key.offered_at is None and key.revoked_at is None and await _fits_a_token(ctx, key):
            issue.append(key)
    return {
        "issue": len(issue),
        "issue_msat": sum(key.balance_msat for key in issue),
        "reclaim": tokens.count,
        "reclaim_msat": tokens.amount_msat,
        "sweep": len(sweep),
        "sweep_msat": sum(key.balance_msat for key in sweep),
    }


async def _is_for_the_operator(ctx: Context, key: ExpiredKey) -> bool:
    """Whether it could be claimed for long enough, or can be by nobody, and the key is old enough.

    A revoked key opens nothing, and what is below the mint's unit is no token.
    """
    since = ctx.clock.now() - timedelta(seconds=ctx.limits.expired_claim_ttl_s)
    if key.expires_at > since:
        return False
    if key.offered_at is not None:
        return key.offered_at <= since
    return key.revoked_at is not None or not await _fits_a_token(ctx, key)


async def _fits_a_token(ctx: Context, key: ExpiredKey) -> bool:
    """Whether it is at least one unit of the mint that would pay it."""
    if key.balance_msat >= 1000:
        return True
    sources = await sources_of(ctx, key.id, None)
    return bool(sources) and unit_from_msat(key.balance_msat, sources[0].unit) > 0


async def _give_out(ctx: Context, key: ExpiredKey, done: _Pass) -> None:
    """A token of all that is there; one whose mint owes an answer is under way."""
    if not await _fits_a_token(ctx, key):
        return
    wish = Wish(idempotency_key=f"expired:{key.version}", fingerprint=EXPIRED, if_expired=True)
    amount_msat = key.balance_msat
    try:
        amount_msat = (await empty(ctx, key.id, wish)).amount_msat
    except RefundPending:
        log.info("expired_key_under_way", key_id=key.id)
    except Paused:
        done.is_paused = True
        done.after = key.id  # it may be more than may leave in an hour, and must not bar the others
        return
    except (BalanceTooSmall, NoBalance):  # the mint's fee is more, or it was emptied meanwhile
        since = ctx.clock.now() - timedelta(seconds=ctx.limits.expired_claim_ttl_s)
        if key.expires_at <= since:
            done.to_sweep.append(key)
        return
    except RoutstrError as error:
        log.info("expired_key_postponed", key_id=key.id, code=error.code)
        done.refused += 1
        done.silent += isinstance(error, MintUnreachable)
        done.after = key.id  # the next pass begins with another one
        return
    done.issued += 1
    done.issued_msat += amount_msat


async def _sweep(ctx: Context, keys: Sequence[ExpiredKey]) -> tuple[int, int]:
    """How many were, and what that was, in msat; a few dozen of them a commit."""
    count = total_msat = 0
    for start in range(0, len(keys), COMMITTED_TOGETHER):
        ctx.failpoint("expiry.found")
        amounts = await asyncio.gather(
            *(
                ctx.ledger.submit(
                    SweepExpired(
                        api_key_id=key.id,
                        version=key.version,
                        claimable_s=ctx.limits.expired_claim_ttl_s,
                        is_revoked=key.revoked_at is not None,
                    )
                )
                for key in keys[start : start + COMMITTED_TOGETHER]
            )
        )
        ctx.failpoint("expiry.swept")
        count += sum(amount > 0 for amount in amounts)
        total_msat += sum(amounts)
    if total_msat:
        log.info("expired_keys_swept", count=count, amount_msat=total_msat)
    return count, total_msat
