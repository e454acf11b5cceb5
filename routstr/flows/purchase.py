"""What a client buys with one request, everything about it checked that costs nothing to check."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from routstr.core.dialects import Dialect
from routstr.core.order import Order
from routstr.core.quote import Quote
from routstr.core.receipt import Receipt, cost_headers
from routstr.ecash.token import Token
from routstr.flows.authenticate import Credential
from routstr.flows.context import Context
from routstr.flows.reserve import Reserved


@dataclass(frozen=True, slots=True, kw_only=True)
class Purchase:
    """`headers` are the caller's that may be forwarded.

    A `Token` instead of a credential pays for this request alone.
    """

    headers: Mapping[str, str] = field(repr=False)
    credential: Credential | Token
    dialect: Dialect
    order: Order
    quote: Quote


def paid_headers(ctx: Context, reserved: Reserved, receipt: Receipt | None) -> dict[str, str]:
    """The headers a paid answer adds to the upstream's (contract, section 6)."""
    headers = {
        "X-Routstr-Max-Cost-Msats": str(reserved.hold.quote_msat),
        "X-Routstr-Provider": ctx.facts.upstream_name,
    }
    if reserved.output_limit is not None:
        headers["X-Routstr-Output-Limit"] = str(reserved.output_limit)
    return headers if receipt is None else headers | cost_headers(receipt)
