"""The billing contract: one table that judges every exchange, and that people read as a page.

Laws: every exchange has exactly one outcome, that of the first row that fits it; without evidence
of use it costs nothing; exact evidence goes before estimates; reported zeros are believed.
`docs/billing.md` is made of the same rows. Source: guarantees, section 2.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from routstr.core.money import ceil_div
from routstr.core.outcome import (
    TEXT_BYTES_PER_TOKEN,
    Ending,
    Evidence,
    Outcome,
    Tally,
    Verdict,
    output_tokens_of,
)
from routstr.core.pricing import NOTHING_USED, Usage


class Rule(StrEnum):
    """What a row charges; the value is how the page says it."""

    FREE = "0"
    COST = "cost"
    ESTIMATE = "estimate"
    COST_OR_ESTIMATE = "cost if usage was seen, else estimate"
    COST_AFTER_OUTPUT = "before output 0, after it: cost if usage was seen, else estimate"
    COST_IF_WHOLE = "cost if the answer came whole with its usage, else 0"
    IMPOSSIBLE = "cannot happen"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Everything a row looks at.

    `begun`: of a stream, a byte was handed to the client; else, the upstream's body had begun.
    """

    ending: Ending
    tally: Tally
    stream: bool
    begun: bool

    @property
    def has_failed(self) -> bool:
        """The upstream refused, broke, or said that it had."""
        return self.ending is Ending.UPSTREAM_FAILED or self.tally.error_seen

    @property
    def is_cut(self) -> bool:
        """It broke off; a clean close counts as that if nothing says that it was the end."""
        tally = self.tally
        ends = tally.done_seen or tally.usage is not None or tally.usage_insane or tally.finish_seen
        return self.ending is Ending.CUT or (self.stream and not ends)

    @property
    def has_output(self) -> bool:
        """Output was on its way; of an answer that is no stream, any byte of it."""
        return self.tally.output_seen if self.stream else self.begun

    @property
    def produced_nothing(self) -> bool:
        """No output was seen, and none was reported."""
        usage = self.tally.usage
        return not self.tally.output_seen and (usage is None or usage.output_tokens == 0)

    @property
    def is_unreadable(self) -> bool:
        """What came is not the dialect, and nothing readable came beside it."""
        has_nothing = self.tally.usage is None and self.produced_nothing
        return self.tally.malformed_events > 0 and (not self.stream or has_nothing)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One situation: how it is named, how it is known, and what it costs in either form.

    It is known by how the exchange ended, if it is one `after` some endings only, and by what fits.
    """

    situation: str
    outcome: Outcome
    after: frozenset[Ending] = frozenset()
    fits: Callable[[Case], bool] = lambda _: True
    body: Rule
    stream: Rule


ROWS: Final[Sequence[Row]] = (
    Row(
        situation="The node dies, or cannot commit before the hold's deadline",
        outcome=Outcome.NODE_CRASHED,
        after=frozenset({Ending.NODE_CRASHED}),
        body=Rule.FREE,
        stream=Rule.FREE,
    ),
    Row(
        situation="The upstream answers 4xx",
        outcome=Outcome.UPSTREAM_REJECTED,
        after=frozenset({Ending.UPSTREAM_REJECTED}),
        body=Rule.FREE,
        stream=Rule.FREE,
    ),
    Row(
        situation="The client leaves before its first byte",
        outcome=Outcome.CLIENT_LEFT_EARLY,
        after=frozenset({Ending.CLIENT_LEFT}),
        fits=lambda case: not case.begun,
        body=Rule.COST_IF_WHOLE,
        stream=Rule.FREE,
    ),
    Row(
        situation="The client leaves after it, or reads nothing for 60 s",
        outcome=Outcome.CLIENT_LEFT,
        after=frozenset({Ending.CLIENT_LEFT}),
        body=Rule.COST_IF_WHOLE,
        stream=Rule.COST_OR_ESTIMATE,
    ),
    Row(
        situation="The node stops in good order, and its grace is over",
        outcome=Outcome.NODE_STOPPED,
        after=frozenset({Ending.NODE_STOPPED}),
        body=Rule.FREE,
        stream=Rule.COST_OR_ESTIMATE,
    ),
    Row(
        situation="The upstream is silent past a time-out",
        outcome=Outcome.STALLED,
        after=frozenset({Ending.STALLED}),
        body=Rule.FREE,
        stream=Rule.COST_AFTER_OUTPUT,
    ),
    Row(
        situation="The key cannot pay the next slice: the stream ends in good order",
        outcome=Outcome.BUDGET_EXHAUSTED,
        after=frozenset({Ending.BUDGET_EXHAUSTED}),
        body=Rule.IMPOSSIBLE,
        stream=Rule.ESTIMATE,
    ),
    Row(
        situation="The upstream refuses, resets, answers 5xx or an error, before output",
        outcome=Outcome.UPSTREAM_FAILED,
        fits=lambda case: case.has_failed and not (case.stream and case.has_output),
        body=Rule.FREE,
        stream=Rule.FREE,
    ),
    Row(
        situation="The upstream breaks off before output",
        outcome=Outcome.CUT_BEFORE_OUTPUT,
        fits=lambda case: case.is_cut and not case.has_output,
        body=Rule.FREE,
        stream=Rule.FREE,
    ),
    Row(
        situation="The upstream breaks off, or fails, after output",
        outcome=Outcome.CUT_AFTER_OUTPUT,
        fits=lambda case: case.is_cut or case.has_failed,
        body=Rule.FREE,
        stream=Rule.COST_OR_ESTIMATE,
    ),
    Row(
        situation="Nothing that came can be read",
        outcome=Outcome.MALFORMED,
        fits=lambda case: case.is_unreadable and not case.tally.usage_insane,
        body=Rule.FREE,
        stream=Rule.FREE,
    ),
    Row(
        situation="The reported usage cannot be: no integer in [0, cap]",
        outcome=Outcome.USAGE_INSANE,
        fits=lambda case: case.tally.usage_insane,
        body=Rule.COST_OR_ESTIMATE,  # units that were counted all the same are exact
        stream=Rule.ESTIMATE,
    ),
    Row(
        situation="There is no output, and none is reported",
        outcome=Outcome.EMPTY,
        fits=lambda case: case.produced_nothing,
        body=Rule.FREE,
        stream=Rule.FREE,
    ),
    Row(
        situation="A stream closes cleanly without its terminal event, after usage or an end",
        outcome=Outcome.NO_DONE,
        fits=lambda case: case.stream and not case.tally.done_seen,
        body=Rule.IMPOSSIBLE,
        stream=Rule.COST_OR_ESTIMATE,
    ),
    Row(
        situation="A whole answer with usage or counted units; of a stream, the last reported",
        outcome=Outcome.COMPLETED,
        fits=lambda case: case.tally.usage is not None,
        body=Rule.COST,
        stream=Rule.COST,
    ),
    Row(
        situation="A whole stream without usage, some of it unreadable",
        outcome=Outcome.MALFORMED,
        fits=lambda case: case.tally.malformed_events > 0,
        body=Rule.IMPOSSIBLE,
        stream=Rule.ESTIMATE,
    ),
    Row(
        situation="A whole answer without usage, and not priced by unit",
        outcome=Outcome.COMPLETED_NO_USAGE,
        body=Rule.ESTIMATE,
        stream=Rule.ESTIMATE,
    ),
)


# Rows for other endings than the one at hand fit nothing of it.
_ROWS_AFTER: Final[Mapping[Ending, Sequence[Row]]] = {
    ending: tuple(row for row in ROWS if not row.after or ending in row.after) for ending in Ending
}


def judge(
    ending: Ending,
    tally: Tally,
    *,
    stream: bool,
    begun: bool,
    prompt_text_bytes: int,
    output_tokens_max: int,
) -> Verdict:
    """The verdict on an exchange: the first row that fits.

    A non-stream `tally` is that of the whole body, or the default if it never became whole.
    `prompt_text_bytes` and `output_tokens_max` (all choices) are the estimate's ground and limit.
    """
    case = Case(ending=ending, tally=tally, stream=stream, begun=begun)
    row = next(row for row in _ROWS_AFTER[ending] if row.fits(case))
    evidence = _evidence(row.stream if stream else row.body, case)
    usage = NOTHING_USED
    if evidence is Evidence.EXACT:
        assert tally.usage is not None
        usage = tally.usage
    elif evidence is Evidence.ESTIMATED:
        usage = Usage(
            input_tokens=ceil_div(prompt_text_bytes, TEXT_BYTES_PER_TOKEN),
            output_tokens=min(output_tokens_of(tally.output_text_bytes), output_tokens_max),
        )
    return Verdict(
        outcome=row.outcome, evidence=evidence, usage=usage, usage_insane=tally.usage_insane
    )


def _evidence(rule: Rule, case: Case) -> Evidence:
    """What the charge of a case rests on under a rule; estimates need output that was seen."""
    tally = case.tally
    estimate = Evidence.ESTIMATED if tally.output_seen else Evidence.NONE
    exact = Evidence.NONE if case.produced_nothing else Evidence.EXACT
    best = estimate if tally.usage is None else exact
    match rule:
        case Rule.FREE | Rule.IMPOSSIBLE:
            return Evidence.NONE
        case Rule.ESTIMATE:
            return estimate
        case Rule.COST_AFTER_OUTPUT:
            return best if tally.output_seen else Evidence.NONE
        case Rule.COST_IF_WHOLE:
            is_whole = tally.done_seen and tally.usage is not None and not tally.error_seen
            return exact if is_whole else Evidence.NONE
        case Rule.COST | Rule.COST_OR_ESTIMATE:
            return best
