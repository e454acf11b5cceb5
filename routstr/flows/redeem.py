"""Redeeming locked ecash: swapped for coins of the node's own, in batches, the earliest lock first.

A batch is asked about before it is swapped, so what its mint calls spent is found by name: nobody
but this node could have spent it, so the mint went back on its word, and the credit is the
operator's loss. A batch that is refused is halved down to the proof it was refused for.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Final

import structlog

from routstr.core.money import msat_from_unit
from routstr.ecash.errors import InvalidAmount
from routstr.ecash.keyset import fee
from routstr.ecash.proof import Keyset
from routstr.errors import MintShort, RoutstrError
from routstr.flows.aside import begun, joined
from routstr.flows.context import Context
from routstr.flows.mints import active_keyset, fees_ppk, known_mint, unreachable
from routstr.flows.own_swap import drive_own_swap
from routstr.gateways.mint_failure import MintMisbehaved, MintRefused, MintUnknown
from routstr.gateways.mint_limits import Priority
from routstr.gateways.mint_wire import ProofState
from routstr.ledger.locked import Waiting, WriteOff
from routstr.ledger.reads_ecash import LockedProof, MintRow, locked_proofs
from routstr.ledger.reads_proofs import piles_at
from routstr.ledger.swaps import BeginSwap

log = structlog.get_logger()

BATCH_MAX: Final = 100
ASKED_MAX: Final = 500  # the states of so many are one call
SOON_PROOFS: Final = 50
LOCK_ENDS_S: Final = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Redeemed:
    """How many proofs were redeemed, and how many their mint went back on."""

    done: int = 0
    lost: int = 0

    def __add__(self, other: "Redeemed") -> "Redeemed":
        return Redeemed(done=self.done + other.done, lost=self.lost + other.lost)


async def redeem(ctx: Context) -> Redeemed:
    """Redeem what is locked at each listed mint, side by side; a mint that is down keeps its own.

    The mints are asked for their keysets on the way, so that it is known which still answer.
    """
    former = [url for url in ctx.live.now.former_mints if await _locked(ctx, url)]
    urls = (*ctx.facts.mints, *former)
    found = await asyncio.gather(*(redeem_at(ctx, url) for url in urls))
    return sum(found, Redeemed())


async def redeem_at(ctx: Context, mint_url: str) -> Redeemed:
    """Redeem what is locked at one mint, as far as it answers."""
    redeemed = Redeemed()
    try:
        mint = await known_mint(ctx, mint_url)
        while page := await _locked(ctx, mint_url):
            batch = await _redeem_all(ctx, mint, _whole_deposits(page))
            redeemed += batch
            if batch == Redeemed() or len(page) < ASKED_MAX:
                break
    except RoutstrError as error:
        await _warn(ctx, mint_url, error)
    return redeemed


def redeem_soon(ctx: Context, mint_url: str, waiting: Waiting) -> None:
    """Start redeeming ahead of time when much is waiting: half the cap, or many proofs."""
    much_msat = msat_from_unit(ctx.limits.locked_sats_max, "sat") // 2
    is_much = waiting.proofs >= SOON_PROOFS or waiting.amount_msat >= much_msat
    if is_much:
        begun(ctx, f"redeem {mint_url}", partial(redeem_at, ctx, mint_url))


async def redeem_now(ctx: Context, mint_url: str) -> Redeemed:
    """Redeem at once, because its coins are wanted; joins whoever does so at that mint already."""
    return await joined(ctx, f"redeem {mint_url}", partial(redeem_at, ctx, mint_url))


async def _locked(ctx: Context, mint_url: str) -> list[LockedProof]:
    async with ctx.database.reading() as connection:
        return await locked_proofs(connection, mint_url, limit=ASKED_MAX)


def _whole_deposits(page: Sequence[LockedProof]) -> Sequence[LockedProof]:
    """The page without the deposit that its end may have cut: that one is the next page's."""
    if len(page) < ASKED_MAX:
        return page
    return [proof for proof in page if proof.deposit_id != page[-1].deposit_id] or page


async def _redeem_all(ctx: Context, mint: MintRow, locked: Sequence[LockedProof]) -> Redeemed:
    """Ask which are spent, write those off, swap the others batch by batch, unit by unit."""
    try:
        states = await ctx.mints.check_state(
            mint.url, [proof.y for proof in locked], priority=Priority.REDEEM
        )
    except (MintUnknown, MintRefused, MintMisbehaved) as error:
        raise unreachable(error) from error
    spent = [proof for proof in locked if states[proof.y] is ProofState.SPENT]
    redeemed = await _write_off(ctx, mint, spent)
    by_unit: dict[str, list[LockedProof]] = defaultdict(list)
    for proof in locked:
        if states[proof.y] is ProofState.UNSPENT:
            by_unit[proof.unit].append(proof)
    for unit, proofs in by_unit.items():
        for batch in _batches(proofs):
            done = await _redeem_unit(ctx, mint, unit, batch)
            redeemed += done
            if done == Redeemed():
                break
    return redeemed


def _batches(proofs: Sequence[LockedProof]) -> list[list[LockedProof]]:
    """At most so many a batch, and no deposit in two of them if it fits in one.

    Each deposit paid its own redemption fee, rounded up; one cut in two would cost more than that.
    """
    batches: list[list[LockedProof]] = [[]]
    for _, each in groupby(proofs, key=lambda proof: proof.deposit_id):
        deposit = list(each)
        if len(batches[-1]) + len(deposit) > BATCH_MAX:
            batches.append([])
        batches[-1] += deposit
    return [batch for batch in batches if batch]


async def _redeem_unit(
    ctx: Context, mint: MintRow, unit: str, proofs: Sequence[LockedProof]
) -> Redeemed:
    """Swap them, halving what is refused down to the proofs that are refused alone: those are lost.

    Unless the mint changed its keysets meanwhile, or refuses all: then nothing is wrong with them.
    """
    if await _swap(ctx, mint, unit, proofs):
        return Redeemed(done=len(proofs))
    if await _has_moved_on(ctx, mint):
        return Redeemed()
    refused: list[LockedProof] = []
    halves = _halves(proofs)
    redeemed = Redeemed()
    while halves:
        half = halves.pop()
        if _net_amount(mint, half) < 1:
            continue  # too small to be swapped alone: it waits for others
        if await _swap(ctx, mint, unit, half):
            redeemed += Redeemed(done=len(half))
        elif len(half) > 1:
            halves += _halves(half)
        else:
            refused += half
    if not redeemed.done:
        log.error("locked_proofs_refused", mint_url=mint.url, count=len(proofs))
        return redeemed
    if not refused or await _has_moved_on(ctx, mint):
        return redeemed
    return redeemed + await _write_off(ctx, mint, refused)


async def _has_moved_on(ctx: Context, mint: MintRow) -> bool:
    """Whether the mint's keysets or fees are others now (NUT-02); the next round knows them."""
    fresh = await known_mint(ctx, mint.url, since_s=ctx.monotonic_s())
    return fresh.keysets != mint.keysets


def _halves(proofs: Sequence[LockedProof]) -> list[Sequence[LockedProof]]:
    middle = len(proofs) // 2
    return [half for half in (proofs[middle:], proofs[:middle]) if half and len(half) < len(proofs)]


async def _swap(ctx: Context, mint: MintRow, unit: str, proofs: Sequence[LockedProof]) -> bool:
    """Whether the mint took them. Raises MintUnreachable while that is open, MintShort for none."""
    keyset = active_keyset(mint.keysets, unit)
    net_amount = _net_amount(mint, proofs)
    if net_amount < 1:
        raise MintShort("The mint's fee is more than what is to be redeemed.")
    outputs = await _wanted_coins(ctx, mint, keyset, net_amount)
    operation = await ctx.ledger.submit(
        BeginSwap(
            kind="redeem",
            mint_id=mint.id,
            unit=unit,
            keyset_id=keyset.id,
            ys=[proof.y for proof in proofs],
            output_amounts=outputs,
            owner=ctx.new_id("lease"),
            lease_s=ctx.limits.mint_lease_s,
            unlock=ctx.acceptance.unlock,
        )
    )
    ctx.failpoint("redeem.begun")
    return await drive_own_swap(ctx, operation, priority=Priority.REDEEM)


async def _wanted_coins(ctx: Context, mint: MintRow, keyset: Keyset, amount: int) -> Sequence[int]:
    """The coins to take for it, those first that the change float lacks."""
    async with ctx.database.reading() as connection:
        piles = await piles_at(connection, mint.id, keyset.unit)
    counts = {each.amount: each.count for each in piles if each.keyset_id == keyset.id}
    try:
        return ctx.limits.float_goal(keyset.keys).split(amount, counts)
    except InvalidAmount as error:
        raise MintShort("The mint's denominations do not fit this amount.") from error


def _net_amount(mint: MintRow, proofs: Sequence[LockedProof]) -> int:
    """What the mint gives for them, in their unit."""
    fee_amount = fee(fees_ppk(mint.keysets, [proof.keyset_id for proof in proofs]))
    return sum(proof.amount for proof in proofs) - fee_amount


async def _write_off(ctx: Context, mint: MintRow, proofs: Sequence[LockedProof]) -> Redeemed:
    if not proofs:
        return Redeemed()
    lost = await ctx.ledger.submit(WriteOff(ys=[proof.y for proof in proofs]))
    amount_msat = sum(msat_from_unit(proof.amount, proof.unit) for proof in proofs)
    log.error("locked_proofs_lost", mint_url=mint.url, count=lost, amount_msat=amount_msat)
    return Redeemed(lost=lost)


async def _warn(ctx: Context, mint_url: str, error: RoutstrError) -> None:
    """Say so when a mint cannot be asked and somebody else may soon spend what is locked there."""
    locked = await _locked(ctx, mint_url)
    ends = [proof.locktime for proof in locked if proof.locktime is not None]
    soon = int(ctx.clock.now().timestamp()) + LOCK_ENDS_S
    if ends and min(ends) <= soon:
        log.error("locks_end_soon", mint_url=mint_url, code=error.code)
