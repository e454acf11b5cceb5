"""`docs/billing.md`, made of the table that judges (`make docs` writes it, a test compares it)."""

from pathlib import Path
from typing import Final

from routstr.core.billing import ROWS, Row, Rule

HEAD: Final = """\
# The billing contract

What a request costs, whatever becomes of it. This page is made of the same table that judges every
exchange (`routstr/core/billing.py`); the names are those in receipts, in `/v1/balance/transactions`
and in the logs.

`cost` = metered use times the prices pinned when the request was admitted, rounded up once, to the
millisatoshi. **You pay min(cost, quote, hold + what your key may still spend)**; the operator
absorbs the rest. No request ever costs more than `X-Routstr-Max-Cost-Msats`, the quote.

| Evidence | What a charge rests on |
|---|---|
| exact | the usage that the upstream reported, or units that were counted |
| estimated | our own count of what was handed to you: a token for every four UTF-8 bytes |
| none | nothing proves use: nothing is charged |

*Output* is text, a tool call, reasoning, a refusal, sound, an image or a vector. Reported zeros are
believed. *Cost* is exact; *estimate* is estimated, and never above the output limit or the hold.
Without output both are 0.

## Every outcome

The first row that fits decides.

| Situation | Outcome | Whole answer | Stream |
|---|---|---|---|
"""

TAIL: Final = """\

A completed use above its hold is named `over_reserve`: the hold is extended within the quote and
what the key has, the rest is absorbed.

## Without a row in your statement

| Situation | Named | Cost |
|---|---|---|
| The node refuses before it holds anything: bad request, model, no money | `refused` | 0 |
| A repeat with the same `Idempotency-Key` of a request that was charged | `replayed` | 0 more |

## What follows from it

- **Nothing follows a byte you were sent.** Another upstream is asked only before the first byte.
  Failed attempts cost you nothing; a dearer upstream costs you the pinned price.
- **You leave:** the upstream is closed at once. Only if the answer was complete but for its usage,
  the node waits up to 2 s for that. Leaving before the first byte is free, 20 times in 10 minutes.
- **You run out of money in a stream:** it ends in good order, as if the output limit had been
  reached, with its usage and its cost. The balance never goes below zero.
- **The node dies:** what it held is given back in full; nothing of that request is charged.
- **A stream breaks after output:** it ends with an error event, and a comment before it says what
  was charged.
"""


def billing_page() -> str:
    """The page, as Markdown."""
    return HEAD + "".join(_line(row) for row in ROWS) + TAIL


def _line(row: Row) -> str:
    return f"| {row.situation} | `{row.outcome}` | {_said(row.body)} | {_said(row.stream)} |\n"


def _said(rule: Rule) -> str:
    return "-" if rule is Rule.IMPOSSIBLE else rule.value


if __name__ == "__main__":
    Path(__file__).with_name("billing.md").write_text(billing_page(), encoding="utf-8")
