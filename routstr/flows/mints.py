"""What the node knows of a mint before it deals with it: allowed, its keysets, the fee, the keyset.

A mint that does not answer is still known from the last time it did, so that nothing which needs
no answer of it has to fail.
"""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Final

import structlog

from routstr.core.url import BadUrl, canonical_mint_url
from routstr.ecash.amounts import split_for_float
from routstr.ecash.errors import InvalidAmount
from routstr.ecash.keyset import RETIRING_S
from routstr.ecash.proof import Keyset
from routstr.errors import MintRateLimited, MintUnreachable, TokenRedemptionFailed, UntrustedMint
from routstr.flows.context import Context, SeenMint
from routstr.gateways.mint_failure import MintLimited, MintMisbehaved, MintRefused, MintUnknown
from routstr.ledger.catalog import SaveMint
from routstr.ledger.reads_ecash import MintRow, find_mint

log = structlog.get_logger()

UNITS: Final = ("sat", "msat")


def allowed_mint(ctx: Context, text: str) -> str:
    """The canonical URL, if this node accepts that mint. Raises UntrustedMint, asks nobody."""
    try:
        url = canonical_mint_url(text, allow_loopback_http=ctx.facts.allow_loopback_http)
    except BadUrl as error:
        raise UntrustedMint from error
    if url not in ctx.facts.mints:
        raise UntrustedMint(details={"mints": list(ctx.facts.mints)})
    return url


def payable_mint(ctx: Context, text: str) -> str:
    """The same for money that goes out: also a mint whose ecash is not taken any more."""
    with suppress(BadUrl):
        url = canonical_mint_url(text, allow_loopback_http=ctx.facts.allow_loopback_http)
        if url in ctx.payable_mints:
            return url
    return allowed_mint(ctx, text)


async def known_mint(ctx: Context, url: str, *, since_s: float | None = None) -> MintRow:
    """The mint and its keysets as it told them after `since_s`, a moment of the monotonic clock.

    Without one, what it said in the last `keyset_refresh_s` will do, and if it does not answer,
    whatever it said last. Raises MintUnreachable or MintRateLimited when that is not to be had,
    UntrustedMint when its answer breaks the protocol.
    """
    oldest_s = ctx.monotonic_s() - ctx.limits.keyset_refresh_s if since_s is None else since_s
    seen = ctx.shelf.find(url)
    if seen is not None and seen.seen_at_s >= oldest_s:
        return seen.mint
    try:
        while True:
            seen = await _ask_together(ctx, url)
            if seen.seen_at_s >= oldest_s:
                return seen.mint
    except MintUnreachable:
        remembered = None if since_s is not None else await remembered_mint(ctx, url)
        if remembered is None:
            raise
        return remembered


async def remembered_mint(ctx: Context, url: str) -> MintRow | None:
    """The mint with every keyset it ever showed, as last seen by any process; asks nobody."""
    async with ctx.database.reading() as connection:
        return await find_mint(connection, url)


async def shown_keyset(ctx: Context, url: str, keyset_id: str) -> Keyset:
    """A keyset that the mint once showed, whether it still lists it or not; asks nobody."""
    seen = ctx.shelf.find(url)
    mint = None if seen is None else seen.mint
    for _ in range(2):
        for keyset in () if mint is None else mint.keysets:
            if keyset.id == keyset_id:
                return keyset
        mint = await remembered_mint(ctx, url)
    raise AssertionError("an operation's outputs refer to a stored keyset")


async def _ask_together(ctx: Context, url: str) -> SeenMint:
    """Ask the mint, or join who is asking it: a crowd costs it one question."""
    asking = ctx.shelf.asking.get(url)
    if asking is None:
        asking = ctx.tasks.start(_ask(ctx, url), name="keysets")
        ctx.shelf.asking[url] = asking
        asking.add_done_callback(lambda _: ctx.shelf.asking.pop(url))
    return await asyncio.shield(asking)


async def _ask(ctx: Context, url: str) -> SeenMint:
    asked_at_s, asked_at = ctx.monotonic_s(), ctx.clock.now()
    try:
        about, keysets = await ctx.mints.load_mint(url)
    except MintMisbehaved as error:
        log.error("mint_misbehaved", mint_url=url, reason=str(error))
        raise UntrustedMint("This mint's keysets do not hold what the protocol asks.") from error
    except (MintUnknown, MintRefused) as error:
        raise unreachable(error) from error
    known = tuple(keyset for keyset in keysets if keyset.unit in UNITS)
    mint_id = await ctx.ledger.submit(SaveMint(mint_url=url, keysets=known, nuts=about.nuts))
    mint = MintRow(id=mint_id, url=url, keysets=known, nuts=about.nuts, answered_at=asked_at)
    seen = SeenMint(mint=mint, seen_at_s=asked_at_s)
    ctx.shelf.put(url, seen)
    return seen


def unreachable(error: Exception, *, deposit_id: str | None = None) -> MintUnreachable:
    """What the user hears when a mint gave no usable answer."""
    details = {} if deposit_id is None else {"deposit_id": deposit_id}
    if isinstance(error, MintLimited):
        return MintRateLimited(details=details, retry_after_s=error.retry_after_s or 5)
    return MintUnreachable(details=details)


def active_keyset(keysets: Iterable[Keyset], unit: str, now: datetime | None = None) -> Keyset:
    """The keyset to get new ecash from: active, cheapest first. Raises TokenRedemptionFailed.

    Given the time, one that outlives the month comes before one that does not.
    """
    active = [keyset for keyset in keysets if keyset.active and keyset.unit == unit]
    if not active:
        raise TokenRedemptionFailed(f"The mint has no active keyset for {unit}.")
    return min(
        active,
        key=lambda keyset: (
            now is not None and expires_soon(keyset, now),
            keyset.input_fee_ppk,
            keyset.id,
        ),
    )


def expires_soon(keyset: Keyset, now: datetime, *, within_s: int = RETIRING_S) -> bool:
    """Whether its final expiry (NUT-02), if it has one, is that near; 0 is read as none."""
    return 0 < (keyset.final_expiry or 0) <= int(now.timestamp()) + within_s


def fees_ppk(keysets: Sequence[Keyset], keyset_ids: Iterable[str]) -> list[int]:
    """The input fee of each of those keyset ids, in parts per thousand (NUT-02).

    Raises TokenRedemptionFailed for an id that is not among the keysets.
    """
    by_id = {keyset.id: keyset.input_fee_ppk for keyset in keysets}
    try:
        return [by_id[keyset_id] for keyset_id in keyset_ids]
    except KeyError as error:
        raise TokenRedemptionFailed("The mint no longer lists a keyset of this token.") from error


def split_on(keyset: Keyset, amount: int) -> list[int]:
    """The output amounts that leave a complete purse. Raises TokenRedemptionFailed."""
    try:
        return split_for_float(amount, keyset.keys)
    except InvalidAmount as error:
        raise TokenRedemptionFailed("The mint's denominations do not fit this amount.") from error
