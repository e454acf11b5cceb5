"""The dialects other than chat, as their clients speak them, and what any of them costs."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.fakes.upstream_dialects import (
    message_body,
    message_events,
    message_stream,
    response_body,
    response_events,
    response_stream,
)
from tests.fakes.upstream_script import MODEL, Script
from tests.harness.funding import FundedKey, balance_msat, told, usage_rows
from tests.harness.shop import PROMPT, Shop

FUNDS_MSAT = 1_000_000
EXACT = 100 + 10 * 2 + 5 * 5  # 10 tokens in, 5 out
ESTIMATE = 100 + 4 * 2 + 4 * 5  # 14 bytes in, 13 out, four to a token
TWO_PIECES = 100 + 4 * 2 + 3 * 5  # "one two th": the first two of three chunks


@dataclass(frozen=True, kw_only=True)
class Voice:
    """One dialect as its clients speak it."""

    path: str
    limit: str
    asked: dict[str, object]
    body: Callable[..., Script]
    events: Callable[..., list[bytes]]
    stream: Callable[..., Script]
    last: str  # the event that carries the cost
    ends: tuple[str, ...]  # the events after the text, from there on
    usage: Callable[[dict[str, Any]], dict[str, Any]]  # in that event
    cut: str  # the event after a failure
    error: Callable[[dict[str, Any]], dict[str, Any]]  # in that event
    stopped: Callable[[dict[str, Any]], object]  # why it ended, in `last`
    unfinished: str  # what everything but the terminal event comes to
    unfinished_cost: tuple[str, int]
    budget: tuple[str, str]  # the event and that reason when the money ended

    def order(self, **more: object) -> dict[str, object]:
        return {"model": MODEL, self.limit: 100, **self.asked, **more}


MESSAGES = Voice(
    path="/v1/messages",
    limit="max_tokens",
    asked={"messages": [{"role": "user", "content": PROMPT}]},
    body=message_body,
    events=message_events,
    stream=message_stream,
    last="message_delta",
    ends=("message_delta", "message_stop"),
    usage=lambda last: last["usage"],
    cut="error",
    error=lambda last: last["error"],
    stopped=lambda last: last["delta"]["stop_reason"],
    unfinished="no_done",
    unfinished_cost=("exact", EXACT),
    budget=("message_delta", "max_tokens"),
)
RESPONSES = Voice(
    path="/v1/responses",
    limit="max_output_tokens",
    asked={"input": PROMPT},
    body=response_body,
    events=response_events,
    stream=response_stream,
    last="response.completed",
    ends=("response.completed",),
    usage=lambda last: last["response"]["usage"],
    cut="response.failed",
    error=lambda last: last["response"]["error"],
    stopped=lambda last: last["response"]["incomplete_details"]["reason"],
    unfinished="cut_after_output",
    unfinished_cost=("estimated", ESTIMATE),
    budget=("response.incomplete", "max_output_tokens"),
)


async def assert_charged(
    shop: Shop, key: FundedKey, outcome: str, evidence: str, charged_msat: int
) -> None:
    await shop.quiet()
    row = (await usage_rows(shop.ctx, key))[0]
    assert (told(row)["outcome"], told(row)["evidence"]) == (outcome, evidence)
    assert row.amount_msat == -charged_msat
    assert await balance_msat(shop.ctx, key) == FUNDS_MSAT - charged_msat


def events_in(text: str) -> list[dict[str, Any]]:
    """The data of each event, whose name must be the type in it; comments apart."""
    found = []
    for each in text.split("\n\n"):
        if each and not each.startswith(":"):
            name, data = each.split("\n")
            found.append(json.loads(data.removeprefix("data: ")))
            assert name == f"event: {found[-1]['type']}"
    return found


def comment_in(text: str) -> dict[str, Any]:
    """What the comment says, which stands just before the terminal event."""
    *_, comment, terminal, rest = text.split("\n\n")
    assert terminal.startswith("event: ")
    assert rest == ""
    said = json.loads(comment.removeprefix(": routstr "))
    assert isinstance(said, dict)
    return said
