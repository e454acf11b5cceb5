"""A token as this node judges it before its mint is asked to swap it.

Offline first: limits, form, and the allow-list, so that an unlisted mint is never called. Then by
the mint's keysets: ids, unit, amounts, fee, and every DLEQ that the token brings.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from routstr.ecash.bdhke import dleq_ok_for_proof
from routstr.ecash.errors import InvalidSecret
from routstr.ecash.keyset import UnknownKeyset, fee, find_keyset
from routstr.ecash.proof import Keyset, Proof
from routstr.ecash.token import Token, decode_token, resolve_ids
from routstr.errors import InvalidToken, MintRateLimited, SwapFeesExceedAmount
from routstr.flows.context import Context
from routstr.flows.mints import (
    UNITS,
    active_keyset,
    allowed_mint,
    fees_ppk,
    known_mint,
    payable_mint,
)
from routstr.ledger.reads_ecash import KnownDeposit, MintRow, find_deposit

DLEQS_INLINE_MAX: Final = 16
UNKNOWN_KEYSET_AGAIN_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A token whose mint is known and whose proofs look right.

    `locktimes` are there if it is locked to us: one for each proof, None for a lock without end.
    """

    token: Token
    mint: MintRow
    keyset: Keyset
    fee_amount: int
    locktimes: tuple[int | None, ...] = ()

    @property
    def net_amount(self) -> int:
        """What the mint gives for it, in its unit."""
        return self.token.amount - self.fee_amount


def read_token(ctx: Context, text: str, *, bytes_max: int) -> Token:
    """Decode a token and check its mint against the allow-list; asks nobody.

    Raises InvalidToken, also for ecash under a spending condition (NUT-10) that is not a lock to
    this node's key alone, TokenZeroValue and UntrustedMint.
    """
    return _new(ctx, decode_token(text, bytes_max=bytes_max))


async def read_or_known(
    ctx: Context, text: str, *, bytes_max: int
) -> tuple[Token, KnownDeposit | None]:
    """The same, and the deposit that used its Ys, if one did; asks no mint.

    What was brought before stands for what it became, also when its mint's ecash is not taken any
    more, and when its locks are over. Raises what `read_token` raises of a new one.
    """
    token = decode_token(text, bytes_max=bytes_max)
    token = replace(token, mint_url=payable_mint(ctx, token.mint_url), memo=None)
    known = await ctx.database.read(partial(find_deposit, ys=token.ys()))
    return (_new(ctx, token) if known is None else token), known


def _new(ctx: Context, token: Token) -> Token:
    url = allowed_mint(ctx, token.mint_url)
    if token.unit not in UNITS:
        raise InvalidToken("The token's unit is neither sat nor msat.")
    _check_locks(ctx, token)
    return replace(token, mint_url=url, memo=None)


def _check_locks(ctx: Context, token: Token) -> None:
    """Raises InvalidToken for a lock that this node's signature alone does not open (NUT-11)."""
    now = int(ctx.clock.now().timestamp())
    for proof in token.proofs:
        try:
            lock = ctx.acceptance.lock_of(proof.secret)
        except InvalidSecret as error:
            raise InvalidToken(
                "This ecash is locked, and not to this node's key alone; receive it in a wallet"
                " and send it on."
            ) from error
        if lock is None or lock.locktime is None or not lock.refund_keys:
            continue
        if lock.locktime <= now:
            raise InvalidToken("This ecash was locked for a time, and that time is over.")


async def check_token(ctx: Context, token: Token) -> Checked:
    """Judge it by its mint's keysets, which are asked for if they are old or lack one of its own.

    Raises InvalidToken, SwapFeesExceedAmount, TokenRedemptionFailed, and what `known_mint` raises.
    """
    mint, resolved = await _resolve(ctx, token)
    await _check_proofs(resolved, mint.keysets)
    ids = [proof.keyset_id for proof in resolved.proofs]
    checked = Checked(
        token=resolved,
        mint=mint,
        keyset=active_keyset(mint.keysets, resolved.unit, ctx.clock.now()),
        fee_amount=fee(fees_ppk(mint.keysets, ids)),
    )
    if checked.net_amount < 1:
        raise SwapFeesExceedAmount
    return checked


async def _resolve(ctx: Context, token: Token) -> tuple[MintRow, Token]:
    """Its mint, and the token with full keyset ids; an id not listed makes us ask the mint again.

    Not for everybody's nonsense, though: within seconds of the last time the answer is "later",
    because "invalid" must be true.
    """
    mint = await known_mint(ctx, token.mint_url)
    with suppress(UnknownKeyset):
        return mint, resolve_ids(token, mint.keysets)
    now_s = ctx.monotonic_s()
    mint = await known_mint(ctx, token.mint_url, since_s=now_s - UNKNOWN_KEYSET_AGAIN_S)
    try:
        return mint, resolve_ids(token, mint.keysets)
    except UnknownKeyset:
        seen = ctx.shelf.find(token.mint_url)
        if seen is None or seen.seen_at_s >= now_s:
            raise
        raise MintRateLimited(retry_after_s=int(UNKNOWN_KEYSET_AGAIN_S)) from None


async def _check_proofs(token: Token, keysets: tuple[Keyset, ...]) -> None:
    """Amounts and units must be the keysets'; a DLEQ that is there must hold (NUT-12)."""
    stated: list[tuple[Proof, str]] = []
    for proof in token.proofs:
        keyset = find_keyset(proof.keyset_id, keysets)
        if keyset.unit != token.unit:
            raise InvalidToken("The token's unit is not that of its keyset.")
        if proof.amount not in keyset.keys:
            raise InvalidToken("The keyset has no such amount.")
        if proof.dleq is not None and proof.dleq.r is not None:
            stated.append((proof, keyset.keys[proof.amount]))

    def all_hold() -> bool:
        return all(dleq_ok_for_proof(proof, key) for proof, key in stated)

    holds = all_hold() if len(stated) <= DLEQS_INLINE_MAX else await asyncio.to_thread(all_hold)
    if not holds:
        raise InvalidToken("A proof's DLEQ does not hold: this mint did not sign it.")
