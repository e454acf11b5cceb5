"""What the node knows of a mint before it deals with it: allowed, its keysets, the fee, the keyset.

A mint that does not answer is still known from the last time it did, so that nothing which needs
no answer of it has to fail.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import structlog

from routstr.core.url import BadUrl, canonical_mint_url
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


async def known_mint(ctx: Context, url: str, *, fresh: bool = False) -> MintRow:
    """The mint and its keysets, asked again when older than `keyset_refresh_s` or `fresh`.

    Raises MintUnreachable or MintRateLimited when it was never seen and does not answer,
    UntrustedMint when its answer breaks the protocol.
    """
    seen = ctx.shelf.find(url)
    if seen is not None and not fresh:
        age_s = ctx.monotonic_s() - seen.seen_at_s
        if age_s < ctx.limits.keyset_refresh_s:
            return seen.mint
    try:
        keysets = await ctx.mints.load_keysets(url)
    except MintMisbehaved as error:
        log.error("mint_misbehaved", mint_url=url, reason=str(error))
        raise UntrustedMint("This mint's keysets do not hold what the protocol asks.") from error
    except (MintUnknown, MintRefused) as error:
        remembered = seen.mint if seen is not None else await _remembered(ctx, url)
        if remembered is None or fresh:
            raise unreachable(error) from error
        return remembered
    known = tuple(keyset for keyset in keysets if keyset.unit in UNITS)
    mint_id = await ctx.ledger.submit(SaveMint(mint_url=url, keysets=known))
    mint = MintRow(id=mint_id, url=url, keysets=known)
    ctx.shelf.put(url, SeenMint(mint=mint, seen_at_s=ctx.monotonic_s()))
    return mint


async def _remembered(ctx: Context, url: str) -> MintRow | None:
    async with ctx.database.reading() as connection:
        return await find_mint(connection, url)


def unreachable(error: Exception, *, deposit_id: str | None = None) -> MintUnreachable:
    """What the user hears when a mint gave no usable answer."""
    details = {} if deposit_id is None else {"deposit_id": deposit_id}
    if isinstance(error, MintLimited):
        return MintRateLimited(details=details, retry_after_s=error.retry_after_s or 5)
    return MintUnreachable(details=details)


def active_keyset(keysets: Iterable[Keyset], unit: str) -> Keyset:
    """The keyset to get new ecash from: active, cheapest first. Raises TokenRedemptionFailed."""
    active = [keyset for keyset in keysets if keyset.active and keyset.unit == unit]
    if not active:
        raise TokenRedemptionFailed(f"The mint has no active keyset for {unit}.")
    return min(active, key=lambda keyset: (keyset.input_fee_ppk, keyset.id))


def fees_ppk(keysets: Sequence[Keyset], keyset_ids: Iterable[str]) -> list[int]:
    """The input fee of each of those keyset ids, in parts per thousand (NUT-02)."""
    by_id = {keyset.id: keyset.input_fee_ppk for keyset in keysets}
    return [by_id[keyset_id] for keyset_id in keyset_ids]
