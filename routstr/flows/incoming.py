"""Money onto a key from whoever has its payment request: a wallet scans it, and the key is richer.

Laws: the key's public id can receive and never spend, so it is all that the address of a request
has; a payer is told what arrived and nothing else of the key; a payment is a top-up like any other,
so the same ecash is credited once. Source: NUT-18 (HTTP POST transport), NUT-26.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from routstr.core.money import msat_from_unit
from routstr.ecash.request import (
    Lock,
    PaymentRequest,
    Transport,
    encode_request_a,
    encode_request_b,
)
from routstr.errors import KeyExpired, NotFound
from routstr.flows.context import Context
from routstr.flows.deposit import Received
from routstr.flows.keys import own_key, parent_of, topup
from routstr.flows.offer import acceptance_lock
from routstr.flows.operate import check_deposits
from routstr.flows.teams import payee_of
from routstr.ledger.book import KeyRef

UNIT: Final = "sat"
PATH: Final = "/v1/balance/receive"
MISSED: Final = "receive"


@dataclass(frozen=True, slots=True, kw_only=True)
class TopupRequest:
    """A request to pay onto a key: `request_a` is `creqA…`, `request_b` `CREQB…`."""

    id: str
    amount: int | None
    mints: tuple[str, ...]
    target: str
    request_a: str
    request_b: str


async def topup_request(
    ctx: Context, caller: KeyRef, *, amount_sat: int | None, base_url: str
) -> TopupRequest:
    """A request whose payment arrives on the caller's key, a child's on its parent's.

    `base_url` is where the payer's wallet reaches this node. Ecash has to be locked only where the
    node takes no other: locked ecash that is never delivered is nobody's.

    Raises InvalidApiKey, KeyRevoked, KeyExpired, and Paused while it would be refused.
    """
    key = await own_key(ctx, caller)
    async with ctx.database.reading() as connection:
        payee = await parent_of(connection, key) or key
    if payee.expires_at is not None and payee.expires_at <= ctx.clock.now():
        raise KeyExpired
    await check_deposits(ctx, msat_from_unit(amount_sat or 0, UNIT))
    lock: Lock | None = acceptance_lock(ctx) if ctx.limits.p2pk_lock == "require" else None
    request = PaymentRequest(
        id=ctx.new_id("pay"),
        amount=amount_sat,
        unit=UNIT,
        single_use=False,
        mints=ctx.facts.mints,
        description=f"Top up at {ctx.facts.name}",
        transports=(Transport(kind="post", target=f"{base_url.rstrip('/')}{PATH}/{payee.id}"),),
        lock=lock,
    )
    assert request.id is not None
    return TopupRequest(
        id=request.id,
        amount=amount_sat,
        mints=request.mints,
        target=request.transports[0].target,
        request_a=encode_request_a(request),
        request_b=encode_request_b(request),
    )


async def receive_payment(
    ctx: Context, key_id: str, *, mint: str, unit: str, proofs: Sequence[Mapping[str, object]]
) -> Received:
    """Credit the ecash that a payer's wallet delivers (NUT-18, PaymentRequestPayload).

    It is read as the token it could as well have come as, by the one parser of tokens. Raises
    NotFound, RateLimited after too many of those, and what `topup` raises.
    """
    ctx.misses.check(MISSED)
    try:
        payee = await payee_of(ctx, key_id)
    except NotFound:
        ctx.misses.note(MISSED)
        raise
    said = {"token": [{"mint": mint, "proofs": [dict(each) for each in proofs]}], "unit": unit}
    text = "cashuA" + base64.urlsafe_b64encode(orjson.dumps(said)).decode()
    return await topup(ctx, KeyRef(id=payee.id), text, idempotency_key=None)
