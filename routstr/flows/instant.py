"""Taking ecash that is locked to this node without a call to its mint (ecash.md, section 5).

Only this node can spend what is locked to its key, and each Y is credited once; so the mint's
signature is all there is to check, and that is offline (DLEQ). What can still go wrong is the
mint's own doing, is the operator's to bear, and is bounded per mint.
"""

import asyncio
from datetime import timedelta
from typing import Final

from routstr.core.money import msat_from_unit
from routstr.ecash.bdhke import dleq_ok_for_proof
from routstr.ecash.errors import EcashError
from routstr.ecash.keyset import UnknownKeyset, fee
from routstr.ecash.p2pk import P2pkLock
from routstr.ecash.proof import Keyset
from routstr.ecash.token import Token, resolve_ids
from routstr.errors import RoutstrError
from routstr.flows.context import Context
from routstr.flows.mints import fees_ppk, remembered_mint
from routstr.flows.tokens import DLEQS_INLINE_MAX, Checked
from routstr.ledger.reads_ecash import MintRow

LOCKTIME_AHEAD_S: Final = 24 * 3600
KEYSET_AHEAD_S: Final = 30 * 24 * 3600
INSTANT_NUTS: Final = frozenset({10, 11, 12})


async def check_locked(ctx: Context, token: Token) -> Checked | None:
    """The token judged by what is known of its mint, or None if the mint must be asked.

    None says nothing against the token: an unlocked one, a lock that ends soon, a proof without
    its DLEQ, a keyset that retires or a mint that was silent too long all go to the mint.
    """
    locks = None if ctx.limits.p2pk_lock == "off" else _held(ctx, token)
    if locks is None:
        return None
    mint = await _mint(ctx, token.mint_url)
    if mint is None:
        return None
    try:
        resolved = resolve_ids(token, mint.keysets)
    except (UnknownKeyset, RoutstrError):
        return None
    if not _is_sound(ctx, resolved, mint) or not await _was_signed(resolved, mint):
        return None
    ids = [proof.keyset_id for proof in resolved.proofs]
    checked = Checked(
        token=resolved,
        mint=mint,
        keyset=_keyset(mint, ids[0]),
        fee_amount=fee(fees_ppk(mint.keysets, ids)),
        locktimes=tuple(lock.locktime for lock in locks),
    )
    return checked if checked.net_amount >= 1 else None


def waiting_msat_max(ctx: Context) -> int:
    """How much may wait to be redeemed at one mint."""
    return msat_from_unit(ctx.limits.locked_sats_max, "sat")


def _held(ctx: Context, token: Token) -> tuple[P2pkLock, ...] | None:
    locktime_min = int(ctx.clock.now().timestamp()) + LOCKTIME_AHEAD_S
    try:
        return ctx.acceptance.held(token.proofs, locktime_min=locktime_min)
    except EcashError:
        return None


async def _mint(ctx: Context, url: str) -> MintRow | None:
    """The mint as it answered lately, this process or another, if it keeps locks and told so."""
    seen = ctx.shelf.find(url)
    if seen is not None and _keeps_locks(ctx, seen.mint):
        return seen.mint
    mint = await remembered_mint(ctx, url)
    return mint if mint is not None and _keeps_locks(ctx, mint) else None


def _keeps_locks(ctx: Context, mint: MintRow) -> bool:
    if mint.answered_at is None or not mint.nuts >= INSTANT_NUTS:
        return False
    silent = ctx.clock.now() - mint.answered_at
    return silent <= timedelta(seconds=ctx.limits.locked_mint_silent_s)


def _is_sound(ctx: Context, token: Token, mint: MintRow) -> bool:
    """Whether every keyset is of the unit, active, and will be for long; and has the amount."""
    expiry_min = int(ctx.clock.now().timestamp()) + KEYSET_AHEAD_S
    for proof in token.proofs:
        keyset = _keyset(mint, proof.keyset_id)
        if keyset.unit != token.unit or not keyset.active or proof.amount not in keyset.keys:
            return False
        if keyset.final_expiry and keyset.final_expiry <= expiry_min:
            return False
    return True


async def _was_signed(token: Token, mint: MintRow) -> bool:
    """Whether each proof has a DLEQ and it holds; absence is no proof of anything (NUT-12)."""
    keys = [_keyset(mint, proof.keyset_id).keys[proof.amount] for proof in token.proofs]

    def all_hold() -> bool:
        return all(
            proof.dleq is not None and proof.dleq.r is not None and dleq_ok_for_proof(proof, key)
            for proof, key in zip(token.proofs, keys, strict=True)
        )

    if len(keys) <= DLEQS_INLINE_MAX:
        return all_hold()
    return await asyncio.to_thread(all_hold)


def _keyset(mint: MintRow, keyset_id: str) -> Keyset:
    return next(keyset for keyset in mint.keysets if keyset.id == keyset_id)
