"""Signed receipts: made when a hold ends, and made again, the same to the last byte, at any time.

Laws: a receipt says what the ledger committed and nothing else, so none is stored; it is shown to
whoever paid and to nobody else; no paid answer fails for want of one.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from routstr.core.pricing import Price, Usage, cost_lines
from routstr.core.quote import Quote, price_snapshot
from routstr.core.signed_receipt import Line, Settlement, SignedReceipt, signed_receipt
from routstr.ecash.token import decode_token
from routstr.errors import InvalidApiKey, MissingApiKey, NotFound, Pending
from routstr.flows.authenticate import authenticate, credential_text
from routstr.flows.context import Context
from routstr.ledger.book import KeyRef
from routstr.ledger.holds import Hold, Settle, Settled
from routstr.ledger.reads import find_key
from routstr.ledger.reads_ecash import find_deposit
from routstr.ledger.reads_receipts import HoldView, find_hold

HEADER: Final = "X-Routstr-Receipt"
HEADER_BYTES_MAX: Final = 4_096  # what proxies take for granted; beyond it the receipt is asked for
RUNNING_AGAIN_S: Final = 2
MISSED: Final = "receipt"

_REQUEST_ID: Final = re.compile(r"req_[0-9a-f]{32}")
_CLAIM_SECRET: Final = re.compile(r"clm_[0-9a-f]{64}")


class ReceiptNotFound(NotFound):
    """There is no receipt of that request, or it is not yours."""

    code = "receipt_not_found"


def receipt_headers(receipt: SignedReceipt | None) -> dict[str, str]:
    """What an answer that is no stream says of its receipt."""
    compact = None if receipt is None else receipt.compact
    if compact is None or len(compact) > HEADER_BYTES_MAX:
        return {}
    return {HEADER: compact}


def receipt_of_settlement(
    ctx: Context, request_sha256: str, quote: Quote, hold: Hold, command: Settle, settled: Settled
) -> SignedReceipt | None:
    """The receipt of what was just committed, without reading it again.

    None if the settlement had been committed before its answer was lost: what the balance was then
    is for who asks later.
    """
    if settled.ended_at is None:
        return None
    said = command.request_data
    settlement = Settlement(
        request_id=hold.id,
        request_sha256=request_sha256,
        model_id=quote.model_id,
        price_version=quote.price.version,
        lines=_lines(said["lines"]),
        outcome=str(said["outcome"]),
        evidence=str(said["evidence"]),
        quote_msat=hold.quote_msat,
        charged_msat=settled.charged_msat,
        absorbed_msat=settled.absorbed_msat,
        balance_after_msat=None if hold.spender_id else settled.balance_msat,
        settled_at=int(settled.ended_at.timestamp()),
    )
    return _signed(ctx, settlement)


async def read_receipt(ctx: Context, headers: Mapping[str, str], request_id: str) -> SignedReceipt:
    """The receipt of a request for who paid it: by the key, the token or the claim secret.

    A child key and the parent that paid for it may both have it.

    Raises MissingApiKey; ReceiptNotFound, for a stranger as for a request that never was, or
    RateLimited once there were too many of those; Pending while the request runs.
    """
    payer_id, hold = await _payer_id(ctx, headers), None
    if payer_id is not None and _REQUEST_ID.fullmatch(request_id):
        async with ctx.database.reading() as connection:
            hold = await find_hold(connection, request_id)
    if hold is None or payer_id not in {hold.api_key_id, hold.spender_id}:
        ctx.misses.check(MISSED)
        ctx.misses.note(MISSED)
        raise ReceiptNotFound
    if hold.ending is None:
        raise Pending(retry_after_s=RUNNING_AGAIN_S)
    return receipt_of(ctx, hold)


async def receipt_by_id(ctx: Context, request_id: str) -> SignedReceipt | None:
    """The receipt of a request that has ended, if it has one, for whoever was found to own it."""
    async with ctx.database.reading() as connection:
        hold = await find_hold(connection, request_id)
    if hold is None or hold.ending is None:
        return None
    with suppress(ReceiptNotFound):
        return receipt_of(ctx, hold)
    return None


async def _payer_id(ctx: Context, headers: Mapping[str, str]) -> str | None:
    """The account that whoever asks has shown to be theirs, if any."""
    payment, shown = headers.get("x-cashu"), credential_text(headers)
    if payment:
        token = decode_token(payment, bytes_max=ctx.limits.token_header_bytes_max)
        async with ctx.database.reading() as connection:
            known = await find_deposit(connection, token.ys())
        return None if known is None or not known.covers else known.one_shot_id
    if not shown:
        raise MissingApiKey("Send the key that paid, the claim secret, or the token as `X-Cashu`.")
    try:
        if _CLAIM_SECRET.fullmatch(shown):
            ref = KeyRef(hash=ctx.wallet.vault.key_hash(shown))
        else:
            ref = (await authenticate(ctx, headers, opens=False)).ref
    except InvalidApiKey:
        return None
    async with ctx.database.reading() as connection:
        key = await find_key(connection, ref)
    return None if key is None else key.id


def receipt_of(ctx: Context, hold: HoldView) -> SignedReceipt:
    """The receipt of a hold that has ended; a child's says nothing of its parent's balance.

    Raises ReceiptNotFound for one from before requests were hashed.
    """
    ending, snapshot = hold.ending, hold.price_snapshot
    assert ending is not None
    request_sha256 = snapshot.get("request_sha256")
    if request_sha256 is None:
        raise ReceiptNotFound
    said = ending.said
    settlement = Settlement(
        request_id=hold.request_id,
        request_sha256=str(request_sha256),
        model_id=str(snapshot["model_id"]),
        price_version=str(snapshot["price_version"]),
        lines=_lines(said.get("lines", [])),
        outcome=str(said["outcome"]),
        evidence=str(said["evidence"]),
        quote_msat=hold.quote_msat,
        charged_msat=ending.charged_msat,
        absorbed_msat=_int(said["absorbed_msat"]),
        balance_after_msat=None if hold.spender_id else ending.balance_after_msat,
        settled_at=int(ending.ended_at.timestamp()),
    )
    return _signed(ctx, settlement)


def _signed(ctx: Context, settlement: Settlement) -> SignedReceipt:
    return signed_receipt(settlement, pubkey=ctx.receipt_key.public, sign=ctx.receipt_key.sign)


def pinned(quote: Quote, request_sha256: str) -> dict[str, object]:
    """What a reservation keeps: the price, and of the body only its hash."""
    return {**price_snapshot(quote), "request_sha256": request_sha256}


def bill_lines(usage: Usage, price: Price) -> list[Line]:
    """The lines of a bill as its row keeps them, so that no later version can tell others."""
    return [(line.name, line.units, line.rate_msat, line.per) for line in cost_lines(usage, price)]


def _lines(value: object) -> list[Line]:
    assert isinstance(value, list)
    return [(str(name), int(count), int(rate), int(per)) for name, count, rate, per in value]


def _int(value: object) -> int:
    assert isinstance(value, int)
    return value
