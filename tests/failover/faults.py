"""The sixteen faults of an upstream, and what must come of each, whole and streamed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from tests.failover.pair import EXACT_MSAT, Got, Pair
from tests.fakes.upstream_script import Fault, Gate, Script, error_event, failure

ESTIMATED_MSAT: Final = 100 + 4 * 2 + 3 * 5  # "one two th", 14 bytes in, at the first one's price
ROUNDS: Final = 6
LEFT_ALONE_AFTER: Final = {"429 with Retry-After": 1, "503 persistent": 5}


@dataclass(frozen=True, slots=True, kw_only=True)
class Must:
    """What a request must come to; `asked` is how often each upstream may have been asked."""

    status: int = 200
    by: str | None = "second"
    code: str | None = None
    charged_msat: int = EXACT_MSAT
    outcome: str = "completed"
    asked: tuple[int, int] = (1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultRow:
    """One fault: what the first upstream does, again and again or `once`."""

    name: str
    whole: Callable[[], Script]
    stream: Callable[[], Script] | None = None  # None: as `whole`
    must: Must = Must()
    must_stream: Must | None = None
    rounds: int = 1
    once: bool = False


def open_gate(times: int) -> Gate:
    gate = Gate()
    gate.open(times)
    return gate


def refusal(code: str, status: int = 400, message: str = "No.") -> Callable[[], Script]:
    return lambda: failure(status, message=message, code=code)


def refused(code: str) -> Must:
    return Must(
        status=400,
        by=None,
        code=code,
        charged_msat=0,
        outcome="upstream_rejected",
        asked=(1, 0),
    )


CUT: Final = Must(
    by="first",
    code="upstream_request_failed",
    charged_msat=ESTIMATED_MSAT,
    outcome="cut_after_output",
    asked=(1, 0),
)
FIRST: Final = Must(by="first", asked=(1, 0))
USAGE: Final = b'"usage":{"prompt_tokens":900,"completion_tokens":900}'
FILTERED: Final = b'data: {"error":{"message":"Filtered.","code":"content_filter"}}\n\n'

FAULTS: Final[Sequence[FaultRow]] = (
    FaultRow(name="429 with Retry-After", whole=lambda: failure(429, retry_after=7), rounds=2),
    FaultRow(name="429 without Retry-After", whole=lambda: failure(429)),
    FaultRow(name="500 once", whole=lambda: failure(500), once=True),
    FaultRow(name="503 persistent", whole=lambda: failure(503), rounds=ROUNDS),
    FaultRow(name="TCP reset", whole=lambda: Script(fault=Fault.RESET_BEFORE_HEADERS)),
    FaultRow(name="silence", whole=lambda: Script(fault=Fault.SILENCE)),
    FaultRow(
        name="slow first token",
        whole=lambda: Script(headers_gate=Gate()),
        stream=lambda: Script(gate=Gate()),
    ),
    FaultRow(
        name="cut stream",
        whole=lambda: Script(fault=Fault.CUT),
        stream=lambda: Script(fault=Fault.CUT, after=2),
        must_stream=CUT,
    ),
    FaultRow(
        name="stalled stream",
        whole=lambda: Script(fault=Fault.STALL),
        stream=lambda: Script(fault=Fault.STALL, after=2),
        must_stream=Must(
            by="first",
            code="UPSTREAM_TIMEOUT",
            charged_msat=ESTIMATED_MSAT,
            outcome="stalled",
            asked=(1, 0),
        ),
    ),
    FaultRow(
        name="malformed chunk",
        whole=lambda: Script(body=b'{"choices":[{"ind'),
        stream=lambda: Script(fault=Fault.BAD_EVENT, after=0, gate=open_gate(1)),
    ),
    FaultRow(
        name="missing [DONE]",
        whole=lambda: Script(until_close=True),
        must=FIRST,
        stream=lambda: Script(done=False),
        must_stream=Must(by="first", outcome="no_done", asked=(1, 0)),
    ),
    FaultRow(
        name="context length",
        whole=refusal("context_length_exceeded"),
        stream=refusal("context_length_exceeded", status=500),
        must=refused("context_length_exceeded"),
    ),
    FaultRow(
        name="content filter",
        whole=refusal("content_filter", status=429),
        stream=lambda: Script(events=[FILTERED]),
        must=refused("content_filter"),
    ),
    FaultRow(
        name="prefill rejection",
        whole=refusal("invalid_value", message="This model takes no assistant prefill."),
        must=refused("invalid_value"),
    ),
    FaultRow(name="flapping", whole=lambda: failure(502), rounds=ROUNDS, once=True),
    FaultRow(
        name="accounting",
        whole=lambda: Script(body=b'{"error":{"message":"no"},%s}' % USAGE),
        stream=lambda: Script(events=[b'data: {"choices":[],%s}\n\n' % USAGE, error_event()]),
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Met:
    """What came of meeting a fault; `complaints` is empty if all is as it must be."""

    found: str
    complaints: list[str]


async def meet(pair: Pair, row: FaultRow, *, stream: bool) -> Met:
    """Meet that fault, in `rounds` requests one after the other.

    Of several rounds, each must be served, and the first upstream left alone once it is known.
    """
    pair.forget()
    script = (row.stream or row.whole) if stream else row.whole
    must = (row.must_stream or row.must) if stream else row.must
    complaints: list[str] = []
    found = ""
    for number in range(row.rounds):
        if not row.once:
            pair.first.default = script()
        elif number % 2 == 0:
            pair.first.script(script())
        got = await pair.buy(stream=stream)
        if number == 0:
            found = _told(got)
            complaints += _differs("asked", asked(pair), must.asked)
            complaints += _complaints(got, must, stream=stream)
        else:
            complaints += _complaints(got, Must(by=got.by), stream=stream)
    limit = LEFT_ALONE_AFTER.get(row.name)
    if limit is not None and asked(pair)[0] > limit:
        complaints.append(f"the first was asked {asked(pair)[0]} times")
    return Met(found=found, complaints=complaints)


def _told(got: Got) -> str:
    by = "" if got.by is None else f" by {got.by}"
    return f"{got.status}{by}, {got.said['outcome']}, {got.charged_msat} msat"


def asked(pair: Pair) -> tuple[int, int]:
    """How often each was asked."""
    return len(pair.first.calls), len(pair.second.calls)


def _complaints(got: Got, must: Must, *, stream: bool) -> list[str]:
    found = _differs("status", got.status, must.status)
    found += _differs("answered by", got.by, must.by)
    found += _differs("code", got.code, must.code)
    found += _differs("charged", got.charged_msat, must.charged_msat)
    found += _differs("outcome", got.said["outcome"], must.outcome)
    if must.status == 200 and got.charged_msat > got.quote_msat:
        found.append("charged above the quote")
    if must.by == "second" and must.charged_msat and "fake-model" not in got.text:
        found.append("no answer")
    if stream and must.status == 200 and must.code is None and "data: [DONE]" not in got.text:
        found.append("the stream does not end")
    return found


def _differs(what: str, found: object, must: object) -> list[str]:
    return [] if found == must else [f"{what} {found}, not {must}"]
