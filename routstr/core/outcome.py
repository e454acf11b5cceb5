"""What became of an exchange: the words for it, what was seen of it, and what that costs.

`billing.py` decides which words. Law: without evidence of use nothing is charged, not even the
request price.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from routstr.core.money import ceil_div
from routstr.core.pricing import NO_COST, Cost, Price, Usage, cost_of

TEXT_BYTES_PER_TOKEN: Final = 4


class Outcome(StrEnum):
    """The names in receipts, `usage` rows and metrics."""

    COMPLETED = "completed"
    COMPLETED_NO_USAGE = "completed_no_usage"
    EMPTY = "empty"
    CUT_BEFORE_OUTPUT = "cut_before_output"
    CUT_AFTER_OUTPUT = "cut_after_output"
    MALFORMED = "malformed"
    NO_DONE = "no_done"
    STALLED = "stalled"
    CLIENT_LEFT_EARLY = "client_left_early"
    CLIENT_LEFT = "client_left"
    NODE_CRASHED = "node_crashed"
    NODE_STOPPED = "node_stopped"
    BUDGET_EXHAUSTED = "budget_exhausted"
    OVER_RESERVE = "over_reserve"
    USAGE_INSANE = "usage_insane"
    UPSTREAM_FAILED = "upstream_failed"
    UPSTREAM_REJECTED = "upstream_rejected"


FAILURES: Final = frozenset(
    {
        Outcome.CUT_BEFORE_OUTPUT,
        Outcome.CUT_AFTER_OUTPUT,
        Outcome.MALFORMED,
        Outcome.STALLED,
        Outcome.NODE_CRASHED,
        Outcome.NODE_STOPPED,
        Outcome.USAGE_INSANE,
        Outcome.UPSTREAM_FAILED,
    }
)
"""What the node or an upstream is to blame for; the rest is done, or the client's doing."""


class Evidence(StrEnum):
    """What a charge rests on: reported use, our count of what was handed out, or nothing."""

    EXACT = "exact"
    ESTIMATED = "estimated"
    NONE = "none"


class Ending(StrEnum):
    """How the exchange physically ended, whatever it meant."""

    WHOLE = "whole"  # a 2xx whose bytes ended in good order
    CUT = "cut"  # the upstream broke off: reset, short body, event too large
    STALLED = "stalled"  # the upstream was silent past a time-out
    CLIENT_LEFT = "client_left"  # gone, or reading nothing for too long
    NODE_STOPPED = "node_stopped"  # orderly stop, grace over
    NODE_CRASHED = "node_crashed"  # found by the job that expires holds
    BUDGET_EXHAUSTED = "budget_exhausted"  # the key cannot pay the next slice
    UPSTREAM_FAILED = "upstream_failed"  # no 2xx: unreachable, refused, reset, 5xx
    UPSTREAM_REJECTED = "upstream_rejected"  # 4xx


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What the meter saw of an answer; the default is what it saw of none.

    `usage` is the last one reported with the units counted, None if there was neither;
    `output_text_bytes` counts UTF-8; `bytes_out` is what the meter gave out to be sent.
    """

    usage: Usage | None = None
    usage_insane: bool = False
    finish_seen: bool = False
    done_seen: bool = False
    output_seen: bool = False
    output_text_bytes: int = 0
    malformed_events: int = 0
    error_seen: bool = False
    bytes_out: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The outcome of an exchange and the use to be charged; evidence NONE charges nothing."""

    outcome: Outcome
    evidence: Evidence
    usage: Usage
    usage_insane: bool = False


# Outcomes after which a stream that has begun ends with an error event, not with `[DONE]`.
ERROR_OUTCOMES: Final = frozenset(
    {
        Outcome.CUT_BEFORE_OUTPUT,
        Outcome.CUT_AFTER_OUTPUT,
        Outcome.STALLED,
        Outcome.NODE_STOPPED,
        Outcome.UPSTREAM_FAILED,
    }
)


def output_tokens_of(text_bytes: int) -> int:
    """The estimate of output tokens in so many UTF-8 bytes."""
    return ceil_div(text_bytes, TEXT_BYTES_PER_TOKEN)


def with_hold(verdict: Verdict, *, cost_msat: int, hold_msat: int) -> Verdict:
    """The verdict once its cost is known: a completed use above its hold is `over_reserve`."""
    if verdict.outcome is Outcome.COMPLETED and cost_msat > hold_msat:
        return replace(verdict, outcome=Outcome.OVER_RESERVE)
    return verdict


def cost_of_verdict(verdict: Verdict, price: Price, *, hold_msat: int) -> Cost:
    """What the exchange costs; nothing without evidence, and an estimate never above its hold."""
    if verdict.evidence is Evidence.NONE:
        return NO_COST
    cost = cost_of(verdict.usage, price)
    return cost.capped_at(hold_msat) if verdict.evidence is Evidence.ESTIMATED else cost
