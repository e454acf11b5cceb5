"""Answers kept for a repeat of their request: what is sealed, and how it becomes an answer again.

The upstream's own bytes are kept with what does not change any more; what was charged and what was
left after it are the ledger's to say, and the cost is put in as it was the first time.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from typing import Any, Final

import orjson

from routstr.core.dialects import Dialect
from routstr.core.pricing import Cost, Usage
from routstr.core.receipt import Receipt, cost_headers
from routstr.flows.context import Context
from routstr.flows.exchange import Answer
from routstr.ledger.columns import Sealed
from routstr.ledger.idempotency import FirstTry

KEPT_BYTES_MAX: Final = 1024 * 1024
KEPT_S: Final = 600.0
REPLAYED: Final = "Idempotent-Replayed"


def is_keepable(body: bytes) -> bool:
    """Whether a body is small enough, and text."""
    try:
        return len(body) <= KEPT_BYTES_MAX and bool(body.decode())
    except UnicodeDecodeError:
        return False


def priced(
    dialect: Dialect, answer: Answer, receipt: Receipt, more_headers: Mapping[str, str]
) -> Answer:
    """The answer with what it cost, in its headers and where its dialect has a place for it."""
    assert answer.body is not None
    return Answer(
        status=answer.status,
        headers={**answer.headers, **cost_headers(receipt), **more_headers},
        body=dialect.with_cost(answer.body, receipt),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Keepsake:
    """A whole answer before its cost was put in, and the cost before the ledger had its say."""

    answer: Answer = field(repr=False)
    cost: Cost
    estimated: bool
    btc_usd_text: str


def seal(ctx: Context, keepsake: Keepsake, hold_id: str) -> Sealed:
    """As it is stored with its hold's claim: a line of facts, then the body, which is UTF-8."""
    answer = keepsake.answer
    assert answer.body is not None
    facts = orjson.dumps(
        {
            "status": answer.status,
            "headers": dict(answer.headers),
            "cost": asdict(keepsake.cost),
            "estimated": keepsake.estimated,
            "btc_usd": keepsake.btc_usd_text,
        }
    )
    plain = f"{facts.decode()}\n{answer.body.decode()}"
    return ctx.wallet.vault.seal(plain, table="idempotency", column="answer", row_id=hold_id)


def replay(ctx: Context, dialect: Dialect, first: FirstTry, sealed: str) -> Answer:
    """The first try's answer, byte for byte, marked as a repeat."""
    plain = ctx.wallet.vault.open(
        sealed, table="idempotency", column="answer", row_id=first.hold_id
    )
    line, _, body = plain.partition("\n")
    facts: dict[str, Any] = orjson.loads(line)
    cost = facts["cost"]
    receipt = receipt_of(
        Cost(**{**cost, "usage": Usage(**cost["usage"])}),
        estimated=facts["estimated"],
        btc_usd_text=facts["btc_usd"],
        charged_msat=first.charged_msat,
        available_msat=first.available_msat,
    )
    answer = Answer(status=facts["status"], headers=facts["headers"], body=body.encode())
    return priced(dialect, answer, receipt, {REPLAYED: "true"})


def receipt_of(
    cost: Cost,
    *,
    estimated: bool,
    btc_usd_text: str,
    charged_msat: int,
    available_msat: int | None,
) -> Receipt:
    """The receipt of a settled cost; without `available_msat` there is no key to tell of."""
    return Receipt(
        cost=cost.capped_at(charged_msat),
        estimated=estimated,
        btc_usd=Decimal(btc_usd_text) if btc_usd_text else None,
        remaining_balance_msat=available_msat,
    )
