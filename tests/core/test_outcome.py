"""Guarantees, section 2, row by row: each row of the table is a row here."""

from dataclasses import replace
from itertools import product

import pytest

from routstr.core.billing import judge
from routstr.core.outcome import (
    ERROR_OUTCOMES,
    Ending,
    Evidence,
    Outcome,
    Tally,
    Verdict,
    cost_of_verdict,
    output_tokens_of,
    with_hold,
)
from routstr.core.pricing import NO_COST, NOTHING_USED, Price, Usage

USAGE = Usage(input_tokens=50, output_tokens=7)
NO_OUTPUT = Usage(input_tokens=50, output_tokens=0)
ZEROS = Usage(input_tokens=0, output_tokens=0)
ESTIMATE = Usage(input_tokens=3, output_tokens=2)  # of 9 prompt bytes and 5 output bytes

NOTHING = Tally()
ROLE = Tally(bytes_out=40)
TEXT = Tally(output_seen=True, output_text_bytes=5, bytes_out=90)
FINISH = replace(TEXT, finish_seen=True)
DONE = replace(FINISH, done_seen=True)
FULL = replace(DONE, usage=USAGE)
HIDDEN = Tally(usage=USAGE, finish_seen=True, done_seen=True)  # reasoning the client never sees
BLANK = Tally(finish_seen=True, done_seen=True)

EXACT, ESTIMATED, NONE = Evidence.EXACT, Evidence.ESTIMATED, Evidence.NONE
USED = {EXACT: USAGE, ESTIMATED: ESTIMATE, NONE: NOTHING_USED}

Row = tuple[str, Ending, Tally, bool, Outcome, Evidence]

STREAM: list[Row] = [
    # Upstream refuses, resets, 5xx, error object, before output
    ("refused", Ending.UPSTREAM_FAILED, NOTHING, False, Outcome.UPSTREAM_FAILED, NONE),
    ("reset", Ending.UPSTREAM_FAILED, ROLE, True, Outcome.UPSTREAM_FAILED, NONE),
    ("error", Ending.WHOLE, replace(ROLE, error_seen=True), True, Outcome.UPSTREAM_FAILED, NONE),
    ("4xx", Ending.UPSTREAM_REJECTED, NOTHING, False, Outcome.UPSTREAM_REJECTED, NONE),
    # 2xx with usage
    ("usage", Ending.WHOLE, FULL, True, Outcome.COMPLETED, EXACT),
    ("hidden output", Ending.WHOLE, HIDDEN, True, Outcome.COMPLETED, EXACT),
    # 2xx, whole, no usage
    ("no usage", Ending.WHOLE, DONE, True, Outcome.COMPLETED_NO_USAGE, ESTIMATED),
    # no output, usage absent or 0 output
    ("empty", Ending.WHOLE, BLANK, True, Outcome.EMPTY, NONE),
    ("empty, input", Ending.WHOLE, replace(BLANK, usage=NO_OUTPUT), True, Outcome.EMPTY, NONE),
    # cut by upstream before and after output
    ("cut, nothing", Ending.CUT, NOTHING, False, Outcome.CUT_BEFORE_OUTPUT, NONE),
    ("cut, role", Ending.CUT, ROLE, True, Outcome.CUT_BEFORE_OUTPUT, NONE),
    ("cut, usage", Ending.CUT, replace(ROLE, usage=USAGE), True, Outcome.CUT_BEFORE_OUTPUT, NONE),
    ("cut, text", Ending.CUT, TEXT, True, Outcome.CUT_AFTER_OUTPUT, ESTIMATED),
    ("cut, C", Ending.CUT, replace(TEXT, usage=USAGE), True, Outcome.CUT_AFTER_OUTPUT, EXACT),
    ("reset, text", Ending.UPSTREAM_FAILED, TEXT, True, Outcome.CUT_AFTER_OUTPUT, ESTIMATED),
    (
        "error, text",
        Ending.WHOLE,
        replace(TEXT, error_seen=True),
        True,
        Outcome.CUT_AFTER_OUTPUT,
        ESTIMATED,
    ),
    # malformed chunk: usage later, else estimate of the readable
    ("bad", Ending.WHOLE, replace(DONE, malformed_events=1), True, Outcome.MALFORMED, ESTIMATED),
    ("bad, usage", Ending.WHOLE, replace(FULL, malformed_events=2), True, Outcome.COMPLETED, EXACT),
    ("all bad", Ending.WHOLE, replace(BLANK, malformed_events=9), True, Outcome.MALFORMED, NONE),
    # clean close, no [DONE]
    ("finish", Ending.WHOLE, FINISH, True, Outcome.NO_DONE, ESTIMATED),
    ("C, no done", Ending.WHOLE, replace(TEXT, usage=USAGE), True, Outcome.NO_DONE, EXACT),
    ("text, no done", Ending.WHOLE, TEXT, True, Outcome.CUT_AFTER_OUTPUT, ESTIMATED),
    ("role, no done", Ending.WHOLE, ROLE, True, Outcome.CUT_BEFORE_OUTPUT, NONE),
    ("no bytes", Ending.WHOLE, NOTHING, False, Outcome.CUT_BEFORE_OUTPUT, NONE),
    ("empty finish", Ending.WHOLE, Tally(finish_seen=True), True, Outcome.EMPTY, NONE),
    # upstream silent past a time-out
    ("silent", Ending.STALLED, NOTHING, False, Outcome.STALLED, NONE),
    ("silent, role", Ending.STALLED, replace(ROLE, usage=USAGE), True, Outcome.STALLED, NONE),
    ("silent, text", Ending.STALLED, TEXT, True, Outcome.STALLED, ESTIMATED),
    ("silent, C", Ending.STALLED, replace(TEXT, usage=USAGE), True, Outcome.STALLED, EXACT),
    # client gone before its first byte, whatever was seen
    ("left", Ending.CLIENT_LEFT, NOTHING, False, Outcome.CLIENT_LEFT_EARLY, NONE),
    ("left, whole", Ending.CLIENT_LEFT, FULL, False, Outcome.CLIENT_LEFT_EARLY, NONE),
    # client gone after it, drain included
    ("gone, role", Ending.CLIENT_LEFT, ROLE, True, Outcome.CLIENT_LEFT, NONE),
    ("gone, text", Ending.CLIENT_LEFT, TEXT, True, Outcome.CLIENT_LEFT, ESTIMATED),
    ("gone, C", Ending.CLIENT_LEFT, FULL, True, Outcome.CLIENT_LEFT, EXACT),
    (
        "gone, 0",
        Ending.CLIENT_LEFT,
        replace(ROLE, usage=NO_OUTPUT),
        True,
        Outcome.CLIENT_LEFT,
        NONE,
    ),
    # node dies
    ("crash", Ending.NODE_CRASHED, FULL, True, Outcome.NODE_CRASHED, NONE),
    # orderly stop
    ("stop", Ending.NODE_STOPPED, NOTHING, False, Outcome.NODE_STOPPED, NONE),
    ("stop, text", Ending.NODE_STOPPED, TEXT, True, Outcome.NODE_STOPPED, ESTIMATED),
    ("stop, C", Ending.NODE_STOPPED, FULL, True, Outcome.NODE_STOPPED, EXACT),
    (
        "stop, 0",
        Ending.NODE_STOPPED,
        replace(ROLE, usage=NO_OUTPUT),
        True,
        Outcome.NODE_STOPPED,
        NONE,
    ),
    # key cannot pay the next slice
    ("budget", Ending.BUDGET_EXHAUSTED, TEXT, True, Outcome.BUDGET_EXHAUSTED, ESTIMATED),
    (
        "budget, running usage",
        Ending.BUDGET_EXHAUSTED,
        replace(TEXT, usage=USAGE),
        True,
        Outcome.BUDGET_EXHAUSTED,
        ESTIMATED,
    ),
    ("budget, role", Ending.BUDGET_EXHAUSTED, ROLE, True, Outcome.BUDGET_EXHAUSTED, NONE),
    # usage not an int in [0, cap]: as without usage
    (
        "insane",
        Ending.WHOLE,
        replace(DONE, usage_insane=True),
        True,
        Outcome.USAGE_INSANE,
        ESTIMATED,
    ),
    (
        "insane, blank",
        Ending.WHOLE,
        replace(BLANK, usage_insane=True),
        True,
        Outcome.USAGE_INSANE,
        NONE,
    ),
    (
        "insane, no done",
        Ending.WHOLE,
        replace(TEXT, usage_insane=True),
        True,
        Outcome.USAGE_INSANE,
        ESTIMATED,
    ),
    (
        "insane, cut",
        Ending.CUT,
        replace(TEXT, usage_insane=True),
        True,
        Outcome.CUT_AFTER_OUTPUT,
        ESTIMATED,
    ),
]

BODY: list[Row] = [
    ("refused", Ending.UPSTREAM_FAILED, NOTHING, False, Outcome.UPSTREAM_FAILED, NONE),
    ("error", Ending.WHOLE, Tally(error_seen=True), True, Outcome.UPSTREAM_FAILED, NONE),
    (
        "error, usage",
        Ending.WHOLE,
        replace(FULL, error_seen=True),
        True,
        Outcome.UPSTREAM_FAILED,
        NONE,
    ),
    ("4xx", Ending.UPSTREAM_REJECTED, NOTHING, False, Outcome.UPSTREAM_REJECTED, NONE),
    ("usage", Ending.WHOLE, FULL, True, Outcome.COMPLETED, EXACT),
    ("hidden output", Ending.WHOLE, HIDDEN, True, Outcome.COMPLETED, EXACT),
    ("no usage", Ending.WHOLE, DONE, True, Outcome.COMPLETED_NO_USAGE, ESTIMATED),
    ("empty", Ending.WHOLE, BLANK, True, Outcome.EMPTY, NONE),
    ("empty, input", Ending.WHOLE, replace(BLANK, usage=NO_OUTPUT), True, Outcome.EMPTY, NONE),
    ("cut, nothing", Ending.CUT, NOTHING, False, Outcome.CUT_BEFORE_OUTPUT, NONE),
    ("cut, begun", Ending.CUT, NOTHING, True, Outcome.CUT_AFTER_OUTPUT, NONE),
    ("bad", Ending.WHOLE, Tally(malformed_events=1), True, Outcome.MALFORMED, NONE),
    ("silent", Ending.STALLED, NOTHING, False, Outcome.STALLED, NONE),
    ("silent, begun", Ending.STALLED, NOTHING, True, Outcome.STALLED, NONE),
    ("left", Ending.CLIENT_LEFT, NOTHING, False, Outcome.CLIENT_LEFT_EARLY, NONE),
    ("left, whole", Ending.CLIENT_LEFT, FULL, False, Outcome.CLIENT_LEFT_EARLY, EXACT),
    ("left, whole, no usage", Ending.CLIENT_LEFT, DONE, False, Outcome.CLIENT_LEFT_EARLY, NONE),
    ("gone, drained", Ending.CLIENT_LEFT, FULL, True, Outcome.CLIENT_LEFT, EXACT),
    ("gone, not drained", Ending.CLIENT_LEFT, NOTHING, True, Outcome.CLIENT_LEFT, NONE),
    ("crash", Ending.NODE_CRASHED, FULL, True, Outcome.NODE_CRASHED, NONE),
    ("stop", Ending.NODE_STOPPED, NOTHING, True, Outcome.NODE_STOPPED, NONE),
    ("budget", Ending.BUDGET_EXHAUSTED, NOTHING, True, Outcome.BUDGET_EXHAUSTED, NONE),
    (
        "insane",
        Ending.WHOLE,
        replace(DONE, usage_insane=True),
        True,
        Outcome.USAGE_INSANE,
        ESTIMATED,
    ),
    (
        "insane, blank",
        Ending.WHOLE,
        replace(BLANK, usage_insane=True),
        True,
        Outcome.USAGE_INSANE,
        NONE,
    ),
]


def judged(ending: Ending, tally: Tally, *, stream: bool, begun: bool) -> Verdict:
    return judge(
        ending, tally, stream=stream, begun=begun, prompt_text_bytes=9, output_tokens_max=100
    )


@pytest.mark.parametrize("row", STREAM, ids=lambda row: row[0])
def test_streams(row: Row) -> None:
    check(row, stream=True)


@pytest.mark.parametrize("row", BODY, ids=lambda row: row[0])
def test_json_answers(row: Row) -> None:
    check(row, stream=False)


def check(row: Row, *, stream: bool) -> None:
    _, ending, tally, begun, outcome, evidence = row
    verdict = judged(ending, tally, stream=stream, begun=begun)
    assert (verdict.outcome, verdict.evidence) == (outcome, evidence)
    assert verdict.usage == USED[evidence]
    assert verdict.usage_insane is tally.usage_insane


def test_every_outcome_has_a_row() -> None:
    seen = {row[4] for row in STREAM + BODY}
    assert set(Outcome) - seen == {Outcome.OVER_RESERVE}  # known only once there is a cost
    assert {row[1] for row in STREAM} == {row[1] for row in BODY} == set(Ending)


@pytest.mark.parametrize("stream", [True, False])
def test_reported_zeros_are_believed(stream: bool) -> None:
    tally = replace(FULL, usage=ZEROS)
    verdict = judged(Ending.WHOLE, tally, stream=stream, begun=True)
    assert verdict == Verdict(outcome=Outcome.COMPLETED, evidence=EXACT, usage=ZEROS)


def test_no_exchange_goes_without_a_verdict_or_costs_without_evidence() -> None:
    price = Price(version="v", input_msat_per_mtok=1, output_msat_per_mtok=1, request_msat=5)
    flags = list(product((False, True), repeat=6))
    for ending, stream, begun in product(Ending, (False, True), (False, True)):
        for insane, finish, done, output, malformed, error in flags:
            for usage in (None, ZEROS, USAGE) if not insane else (None,):
                tally = Tally(
                    usage=usage,
                    usage_insane=insane,
                    finish_seen=finish,
                    done_seen=done,
                    output_seen=output,
                    output_text_bytes=5 if output else 0,
                    malformed_events=int(malformed),
                    error_seen=error,
                )
                verdict = judged(ending, tally, stream=stream, begun=begun)
                cost = cost_of_verdict(verdict, price, hold_msat=100)
                assert (verdict.evidence is NONE) == (cost == NO_COST)
                assert verdict.usage == USED[verdict.evidence] or verdict.usage == usage
                if verdict.evidence is ESTIMATED:
                    assert output
                if verdict.evidence is EXACT:
                    assert usage is not None


def test_an_estimate_stays_within_the_output_limit() -> None:
    verdict = judge(
        Ending.WHOLE,
        replace(DONE, output_text_bytes=4_001),
        stream=True,
        begun=True,
        prompt_text_bytes=0,
        output_tokens_max=1_000,
    )
    assert verdict.usage == Usage(input_tokens=0, output_tokens=1_000)
    assert output_tokens_of(4_001) == 1_001


def test_an_estimate_stays_within_the_hold() -> None:
    price = Price(version="v", input_msat_per_mtok=10**6, output_msat_per_mtok=10**6)
    estimate = Verdict(outcome=Outcome.BUDGET_EXHAUSTED, evidence=ESTIMATED, usage=ESTIMATE)
    assert cost_of_verdict(estimate, price, hold_msat=4).total_msat == 4
    exact = replace(estimate, evidence=EXACT)
    assert cost_of_verdict(exact, price, hold_msat=4).total_msat == 5


def test_use_above_the_reserve_is_named() -> None:
    completed = Verdict(outcome=Outcome.COMPLETED, evidence=EXACT, usage=USAGE)
    assert with_hold(completed, cost_msat=10, hold_msat=10) is completed
    over = with_hold(completed, cost_msat=11, hold_msat=10)
    assert over == replace(completed, outcome=Outcome.OVER_RESERVE)
    cut = replace(completed, outcome=Outcome.CUT_AFTER_OUTPUT)
    assert with_hold(cut, cost_msat=11, hold_msat=10) is cut


def test_streams_that_broke_end_with_an_error() -> None:
    in_good_order = {
        Outcome.COMPLETED,
        Outcome.COMPLETED_NO_USAGE,
        Outcome.EMPTY,
        Outcome.MALFORMED,
        Outcome.NO_DONE,
        Outcome.OVER_RESERVE,
        Outcome.USAGE_INSANE,
        Outcome.BUDGET_EXHAUSTED,
    }
    without_a_reader = {
        Outcome.CLIENT_LEFT,
        Outcome.CLIENT_LEFT_EARLY,
        Outcome.NODE_CRASHED,
        Outcome.UPSTREAM_REJECTED,
    }
    assert set(Outcome) - in_good_order - without_a_reader == ERROR_OUTCOMES
