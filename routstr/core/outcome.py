"""How an exchange is judged: the billing table of guarantees, section 2, as code.

Laws: every exchange has exactly one outcome; without evidence of use it costs nothing, not even
the request price; exact evidence goes before estimates; reported zeros are believed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from routstr.core.money import ceil_div
from routstr.core.pricing import NO_COST, NOTHING_USED, Cost, Price, Usage, cost_of

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

    `usage` is the last one reported, None if there was none or the last was insane;
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


def judge(
    ending: Ending,
    tally: Tally,
    *,
    stream: bool,
    begun: bool,
    prompt_text_bytes: int,
    output_tokens_max: int,
) -> Verdict:
    """The verdict on an exchange (guarantees, section 2, each row).

    `begun`: of a stream, a byte was handed to the client; else, the upstream's body had begun.
    A non-stream `tally` is that of the whole body, or the default if it never became whole.
    `prompt_text_bytes` and `output_tokens_max` (all choices) are the estimate's ground and limit.
    """
    estimate = Usage(
        input_tokens=ceil_div(prompt_text_bytes, TEXT_BYTES_PER_TOKEN),
        output_tokens=min(output_tokens_of(tally.output_text_bytes), output_tokens_max),
    )
    case = _Case(ending=ending, tally=tally, begun=begun, estimate=estimate)
    return _judge_stream(case) if stream else _judge_body(case)


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


# ── the rows ──────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """Everything a row looks at, and the three ways it can be decided."""

    ending: Ending
    tally: Tally
    begun: bool
    estimate: Usage

    @property
    def produced_nothing(self) -> bool:
        """No output was seen, and none was reported."""
        usage = self.tally.usage
        return not self.tally.output_seen and (usage is None or usage.output_tokens == 0)

    def free(self, outcome: Outcome) -> Verdict:
        """Nothing proves use."""
        return self._verdict(outcome, Evidence.NONE, NOTHING_USED)

    def estimated(self, outcome: Outcome) -> Verdict:
        """Our own count of what was handed out, if there was output."""
        if not self.tally.output_seen:
            return self.free(outcome)
        return self._verdict(outcome, Evidence.ESTIMATED, self.estimate)

    def exact_or_estimated(self, outcome: Outcome) -> Verdict:
        """C/E: the reported use, else our own count; neither if nothing was produced."""
        if self.produced_nothing:
            return self.free(outcome)
        if self.tally.usage is None:
            return self.estimated(outcome)
        return self._verdict(outcome, Evidence.EXACT, self.tally.usage)

    def exact_or_free(self, outcome: Outcome) -> Verdict:
        """The reported use of an answer that became whole, else nothing."""
        is_whole = self.tally.done_seen and self.tally.usage is not None
        return self.exact_or_estimated(outcome) if is_whole else self.free(outcome)

    def _verdict(self, outcome: Outcome, evidence: Evidence, usage: Usage) -> Verdict:
        insane = self.tally.usage_insane
        return Verdict(outcome=outcome, evidence=evidence, usage=usage, usage_insane=insane)


# Endings that are free however much was seen.
_FREE: Final[Mapping[Ending, Outcome]] = {
    Ending.NODE_CRASHED: Outcome.NODE_CRASHED,
    Ending.UPSTREAM_REJECTED: Outcome.UPSTREAM_REJECTED,
}
# Endings of a body that never became whole: the client got nothing.
_BODY_FREE: Final[Mapping[Ending, Outcome]] = {
    **_FREE,
    Ending.STALLED: Outcome.STALLED,
    Ending.NODE_STOPPED: Outcome.NODE_STOPPED,
    Ending.UPSTREAM_FAILED: Outcome.UPSTREAM_FAILED,
    Ending.BUDGET_EXHAUSTED: Outcome.BUDGET_EXHAUSTED,  # cannot be: the limit was lowered
}


def _judge_body(case: _Case) -> Verdict:
    """The column for JSON answers."""
    if case.ending in _BODY_FREE:
        return case.free(_BODY_FREE[case.ending])
    if case.ending is Ending.CLIENT_LEFT:
        left = Outcome.CLIENT_LEFT if case.begun else Outcome.CLIENT_LEFT_EARLY
        return case.exact_or_free(left)
    if case.ending is Ending.CUT:
        return case.free(Outcome.CUT_AFTER_OUTPUT if case.begun else Outcome.CUT_BEFORE_OUTPUT)
    if case.tally.malformed_events:
        return case.free(Outcome.MALFORMED)
    if case.tally.error_seen:
        return case.free(Outcome.UPSTREAM_FAILED)
    return _judge_whole(case)


def _judge_stream(case: _Case) -> Verdict:
    """The column for streams."""
    if case.ending in _FREE:
        return case.free(_FREE[case.ending])
    if case.ending is Ending.CLIENT_LEFT:
        if not case.begun:
            return case.free(Outcome.CLIENT_LEFT_EARLY)
        return case.exact_or_estimated(Outcome.CLIENT_LEFT)
    if case.ending is Ending.NODE_STOPPED:
        return case.exact_or_estimated(Outcome.NODE_STOPPED)
    if case.ending is Ending.STALLED:
        return _after_output(case, Outcome.STALLED, Outcome.STALLED)
    if case.ending is Ending.BUDGET_EXHAUSTED:
        return case.estimated(Outcome.BUDGET_EXHAUSTED)
    if case.ending is Ending.UPSTREAM_FAILED or case.tally.error_seen:
        return _after_output(case, Outcome.UPSTREAM_FAILED, Outcome.CUT_AFTER_OUTPUT)
    if case.ending is Ending.CUT:
        return _after_output(case, Outcome.CUT_BEFORE_OUTPUT, Outcome.CUT_AFTER_OUTPUT)
    if not case.tally.done_seen:
        return _judge_no_done(case)
    return _judge_whole(case)


def _after_output(case: _Case, before: Outcome, after: Outcome) -> Verdict:
    """Free before the first output, C/E after it."""
    return case.exact_or_estimated(after) if case.tally.output_seen else case.free(before)


def _judge_no_done(case: _Case) -> Verdict:
    """A clean close without `[DONE]`: believed if usage or a finish_reason came, else a cut."""
    tally = case.tally
    if tally.usage is None and not tally.usage_insane and not tally.finish_seen:
        return _after_output(case, Outcome.CUT_BEFORE_OUTPUT, Outcome.CUT_AFTER_OUTPUT)
    if tally.usage_insane:
        return case.estimated(Outcome.USAGE_INSANE)
    if case.produced_nothing:
        return case.free(Outcome.EMPTY)
    return case.exact_or_estimated(Outcome.NO_DONE)


def _judge_whole(case: _Case) -> Verdict:
    """An answer that ended in good order."""
    tally = case.tally
    if tally.usage_insane:
        return case.estimated(Outcome.USAGE_INSANE)
    if case.produced_nothing:
        readable = tally.usage is not None or not tally.malformed_events
        return case.free(Outcome.EMPTY if readable else Outcome.MALFORMED)
    if tally.usage is not None:
        return case.exact_or_estimated(Outcome.COMPLETED)
    malformed = Outcome.MALFORMED if tally.malformed_events else Outcome.COMPLETED_NO_USAGE
    return case.estimated(malformed)
