"""Whom one request asks: each attempt begun, judged and, if it gave the client nothing, followed.

Laws
- Another attempt only before the first byte to the client, within the total time, the node's retry
  budget and `UPSTREAM_ATTEMPTS_MAX`; never for an error of the request itself.
- The same upstream is asked twice by one request only if nobody else is left, and only when it
  said so itself (500, 502) or provably got nothing.
- What every attempt came to is in the `usage` row, by name and reason.
"""

from collections.abc import Mapping
from typing import Final

import structlog

from routstr.core.outcome import Evidence, Outcome, Tally, Verdict
from routstr.errors import UpstreamRateLimit, UpstreamUnavailable
from routstr.flows.candidates import spread
from routstr.flows.catalog import Candidate
from routstr.flows.context import Context
from routstr.flows.exchange import Exchange
from routstr.gateways.pool import Attempt, Target

log = structlog.get_logger()

ASKED_AGAIN: Final = frozenset({500, 502})  # answered, and said to be nobody's fault
ACCOUNT: Final = frozenset({401, 402, 403})  # the operator's affair: no use in asking on

# What an upstream is to blame for; a client that left or a node that stops says nothing of it.
_TROUBLE: Final = frozenset(
    {
        Outcome.UPSTREAM_FAILED,
        Outcome.CUT_BEFORE_OUTPUT,
        Outcome.CUT_AFTER_OUTPUT,
        Outcome.STALLED,
        Outcome.MALFORMED,
        Outcome.USAGE_INSANE,
    }
)
_UNDECIDED: Final = frozenset(
    {Outcome.CLIENT_LEFT, Outcome.CLIENT_LEFT_EARLY, Outcome.NODE_STOPPED}
)


class Turns:
    """Whose turn it is to serve one request: `candidate`, by the present `attempt`.

    Call `start` once, then `go_on` after each attempt that came to nothing; `close` at the end.
    """

    candidate: Candidate
    attempt: Attempt

    def __init__(self, ctx: Context, exchange: Exchange, candidates: tuple[Candidate, ...]) -> None:
        self._ctx = ctx
        self._exchange = exchange
        self._pool = ctx.upstream
        self._left = spread(candidates, exchange.request_id)
        self._is_begun = False
        self._was_repeated = False
        self._total_at_s = ctx.monotonic_s() + ctx.limits.upstream_total_timeout_s

    # ── whom ──────────────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Begin the first attempt.

        Raises UpstreamUnavailable, or UpstreamRateLimit, if nobody may be asked now.

        If all are pausing, the one whose pause ends first is asked before its end, unless it was
        the upstream itself that named the pause.
        """
        self._pool.follow(self._ctx.catalog.picture.upstreams)
        self._pool.budget.note_request(self._ctx.monotonic_s())
        if self._begin_first():
            return
        soonest = sorted(self._left, key=self._open_for_s)
        if any(self._begin(each, is_forced=True) for each in soonest):
            return
        is_limited = any(self._pool.is_limited(target_of(each)) for each in soonest)
        kind = UpstreamRateLimit if is_limited else UpstreamUnavailable
        raise kind(retry_after_s=int(self._open_for_s(soonest[0])) + 1)

    def has_other(self) -> bool:
        """Whether somebody else could be asked, if this attempt came to nothing."""
        return self._may_retry() and any(self._pool.admits(target_of(each)) for each in self._left)

    def go_on(self, *, same: bool = False) -> bool:
        """Begin the next attempt, if there is any; `same`: the same upstream is worth another."""
        if not self._may_retry():
            return False
        candidate = self.candidate
        self._pool.follow(self._ctx.catalog.picture.upstreams)
        found = self._begin_first()
        if not found and same and not self._was_repeated:
            self.close()
            found = self._was_repeated = self._begin(candidate)
        if found:
            self._pool.budget.take(self._ctx.monotonic_s())
        return found

    def left_s(self) -> float:
        """What is left of the time for all attempts together."""
        return max(0.0, self._total_at_s - self._ctx.monotonic_s())

    def _may_retry(self) -> bool:
        return (
            self._exchange.stopped is None
            and self._exchange.attempts < self._ctx.limits.upstream_attempts_max
            and self.left_s() > 0
            and self._pool.budget.allows(self._ctx.monotonic_s())
        )

    def _begin_first(self) -> bool:
        return any(self._begin(each) for each in list(self._left))

    def _begin(self, candidate: Candidate, *, is_forced: bool = False) -> bool:
        attempt = self._pool.begin(target_of(candidate), is_forced=is_forced)
        if attempt is None:
            return False
        self.close()
        if candidate in self._left:
            self._left.remove(candidate)
        self.candidate, self.attempt, self._is_begun = candidate, attempt, True
        self._exchange.provider, self._exchange.candidate = attempt.slug, candidate
        return True

    def _open_for_s(self, candidate: Candidate) -> float:
        return self._pool.open_for_s(target_of(candidate))

    # ── how it went ───────────────────────────────────────────────────────────────────────────

    def failed(
        self,
        reason: str,
        *,
        status: int | None = None,
        is_unreachable: bool = False,
        told_wait_s: float | None = None,
        is_final: bool = False,
    ) -> None:
        """This attempt failed, for a reason that names nobody's address, key or content."""
        self.attempt.failed(
            reason, is_unreachable=is_unreachable, told_wait_s=told_wait_s, is_final=is_final
        )
        tried: Mapping[str, str] = {"upstream": self.attempt.slug, "failure": reason}
        self._exchange.tried.append(tried)
        log.warning(
            "upstream_attempt_failed",
            hold_id=self._exchange.request_id,
            upstream=self.attempt.slug,
            reason=reason,
            upstream_status=status,
            attempts=self._exchange.attempts,
        )

    def judged(self, verdict: Verdict, *, trouble: str | None = None) -> None:
        """The attempt's answer was read to its end, and this is what it was."""
        if verdict.outcome in _TROUBLE:
            self.failed(trouble or verdict.outcome.value)
        elif verdict.usage_insane:
            self.failed(Outcome.USAGE_INSANE.value)
        elif verdict.outcome not in _UNDECIDED:
            self.attempt.succeeded()

    def close(self) -> None:
        """The present attempt is over."""
        if self._is_begun:
            self.attempt.close()


def target_of(candidate: Candidate) -> Target:
    """What is asked."""
    return Target(upstream_id=candidate.upstream_id, model_id=candidate.forwarded_model_id)


def came_to_nothing(verdict: Verdict, tally: Tally) -> bool:
    """Whether somebody else may do better, as long as the client has no byte of this.

    An empty answer that says how it ended, or what it used, is an answer.
    """
    if verdict.outcome is Outcome.EMPTY:
        return not tally.finish_seen and tally.usage is None
    return verdict.outcome in _TROUBLE and verdict.evidence is Evidence.NONE
