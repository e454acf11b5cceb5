"""A paid request with an Idempotency-Key: bought once, and answered again (contract, section 6).

Laws: of all requests that claim the same, in all processes, one holds money and asks the upstream;
the others wait for it a while and get its answer, or hear that it still runs, or that what it gave
cannot be given again. A try that ended at cost 0 without an answer lets the next one run.
"""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import structlog

from routstr.core.dialects import Dialect
from routstr.errors import (
    AnswerGone,
    InvalidParameter,
    Pending,
    RoutstrError,
    ServiceUnavailable,
)
from routstr.flows.aside import joined
from routstr.flows.context import Context
from routstr.flows.exchange import Answer, Exchange
from routstr.flows.kept import replay
from routstr.flows.receipts import receipt_by_id, receipt_headers
from routstr.ledger.holds import Hold, Reserve
from routstr.ledger.idempotency import FirstTry, ForgetAnswers, RequestClaim, ReserveOnce
from routstr.ledger.reads_holds import is_held, kept_answer

log = structlog.get_logger()

HEADER: Final = "idempotency-key"
CLAIM_S: Final = 72 * 3600.0
POLL_S: Final = 0.1
RUNNING_AGAIN_S: Final = 2
FORGET_MAX: Final = 500
_BOUNDARY: Final = re.compile(r'boundary="?([^";]+)', re.IGNORECASE)
LONG_AGO_S: Final = 0.0  # on the loop's clock: a scope moved there ends at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeatable:
    """What a request with an Idempotency-Key claims, and the dialect of its answer."""

    claim: RequestClaim
    dialect: Dialect


def idempotency_key(ctx: Context, headers: Mapping[str, str]) -> str | None:
    """The Idempotency-Key in headers, if there is one. Raises InvalidParameter for an unusable one.

    It may be anything, a secret too, so no row holds it as it is.
    """
    key = headers.get(HEADER)
    if key is None:
        return None
    if not 0 < len(key) <= ctx.limits.idempotency_key_chars_max or not key.isprintable():
        raise InvalidParameter(
            f"Send 1 to {ctx.limits.idempotency_key_chars_max} printable characters.",
            param="Idempotency-Key",
        )
    return ctx.wallet.vault.digest(key.encode())


def claim_of(
    ctx: Context,
    key_digest: str | None,
    dialect: Dialect,
    headers: Mapping[str, str],
    body: bytes,
    *,
    path: str,
    query: str = "",
) -> Repeatable | None:
    """What a request with that Idempotency-Key claims; `body` is as it was received.

    `path` is what it says of itself: the dialect's, or a route's with its method.
    """
    if key_digest is None:
        return None
    said = comparable(body, headers.get("content-type", ""))
    fingerprint = ctx.wallet.vault.digest(f"{query}\n".encode() + said if query else said)
    claim = RequestClaim(path=path, key_digest=key_digest, fingerprint=fingerprint)
    return Repeatable(claim=claim, dialect=dialect)


def comparable(body: bytes, content_type: str) -> bytes:
    """The body without the boundary of its parts, which clients draw anew for each repeat."""
    found = _BOUNDARY.search(content_type)
    if found is None or not content_type.lower().startswith("multipart/"):
        return body
    return body.replace(b"--" + found[1].encode("latin-1"), b"--")


async def hold_once(
    ctx: Context, exchange: Exchange, command: Reserve, repeatable: Repeatable
) -> Hold | Answer:
    """The hold of the one request that may run, or the answer it was given.

    Raises Pending while it runs, AnswerGone, IdempotencyMismatch, and what `Reserve` refuses with.
    """
    deadline_s = ctx.monotonic_s() + ctx.limits.operation_wait_s
    while True:
        if ctx.holds.is_stopping:
            raise ServiceUnavailable("The node is shutting down; repeat the request later.")
        found = await ctx.ledger.submit(
            ReserveOnce(reserve=command, claim=repeatable.claim, ttl_s=CLAIM_S)
        )
        if isinstance(found, Hold):
            return found
        if not found.is_running:
            return await _again(ctx, exchange, repeatable.dialect, found)
        left_s = deadline_s - ctx.monotonic_s()
        if left_s <= 0:
            raise Pending(details={"request_id": found.hold_id}, retry_after_s=RUNNING_AGAIN_S)
        await _wait(ctx, exchange, found.hold_id, left_s)


async def _again(ctx: Context, exchange: Exchange, dialect: Dialect, first: FirstTry) -> Answer:
    receipt = receipt_headers(await receipt_by_id(ctx, first.hold_id))
    sealed = None
    if first.has_answer:
        async with ctx.database.reading() as connection:
            sealed = await kept_answer(connection, first.hold_id)
    if sealed is None:
        raise AnswerGone(
            details={"request_id": first.hold_id, "cost_msats": first.charged_msat},
            headers=receipt,
        )
    ctx.meters.note_replayed()
    log.info("request_replayed", request_id=exchange.request_id, hold_id=first.hold_id)
    answer = replay(ctx, dialect, first, sealed)
    return replace(answer, headers={**answer.headers, **receipt})


async def _wait(ctx: Context, exchange: Exchange, hold_id: str, within_s: float) -> None:
    """Return when the first try may have ended, or the time is over. Its repeats here ask as one.

    Raises RoutstrError, which nobody hears, when the client leaves.
    """
    ctx.admission.forget(exchange.request_id)  # it waits for another request now
    try:
        async with asyncio.timeout(within_s) as patience:
            exchange.when_stopped(lambda: patience.reschedule(LONG_AGO_S))
            try:
                await joined(ctx, f"first try {hold_id}", partial(_watch, ctx, hold_id))
            finally:
                exchange.when_stopped(None)
    except TimeoutError:
        if exchange.stopped is not None:
            raise RoutstrError("The client left.") from None


async def _watch(ctx: Context, hold_id: str) -> None:
    """Return once that hold has ended, or was watched for as long as one repeat waits."""
    deadline_s = ctx.monotonic_s() + ctx.limits.operation_wait_s
    while ctx.monotonic_s() < deadline_s and not ctx.holds.is_stopping:
        async with ctx.database.reading() as connection:
            if not await is_held(connection, hold_id):
                return
        await ctx.clock.sleep(POLL_S)


async def forget_answers(ctx: Context) -> int:
    """Erase what is kept no longer; how much that was."""
    forgotten = 0
    while True:
        some = await ctx.ledger.submit(ForgetAnswers(limit=FORGET_MAX))
        forgotten += some
        if some < FORGET_MAX:
            return forgotten
