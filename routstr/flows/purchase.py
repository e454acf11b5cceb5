"""What a client buys with one request, everything about it checked that costs nothing to check."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from routstr.core.dialects import Dialect
from routstr.core.order import Order
from routstr.core.quota import rate_headers
from routstr.core.quote import Quote
from routstr.ecash.token import Token
from routstr.flows.authenticate import Credential
from routstr.flows.catalog import Candidate
from routstr.flows.context import Context
from routstr.flows.exchange import Exchange
from routstr.flows.repeat import Repeatable
from routstr.flows.reserve import Reserved


@dataclass(frozen=True, slots=True, kw_only=True)
class Purchase:
    """`headers` are the caller's that may be forwarded, `candidates` who may serve it, in order.

    `request_sha256` (64 hex) is of the body as received.
    A `Token` instead of a credential pays for this request alone, and is its own idempotency key:
    with one there is never a `claim`.
    """

    headers: Mapping[str, str] = field(repr=False)
    credential: Credential | Token
    dialect: Dialect
    order: Order
    quote: Quote
    candidates: tuple[Candidate, ...]
    request_sha256: str
    claim: Repeatable | None = None


def paid_headers(ctx: Context, exchange: Exchange, reserved: Reserved) -> dict[str, str]:
    """What a paid answer adds to the upstream's headers, but for its cost (contract, section 6)."""
    headers = {
        "X-Routstr-Max-Cost-Msats": str(reserved.hold.quote_msat),
        "X-Routstr-Provider": exchange.provider,
    }
    if reserved.output_limit is not None:
        headers["X-Routstr-Output-Limit"] = str(reserved.output_limit)
    return headers | rate_headers(reserved.hold.rates, ctx.clock.now())
