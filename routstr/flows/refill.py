"""Small change at hand, and no coin in a keyset that retires: swaps of the node's own coins.

A withdrawal that finds exact coins asks no mint, so some of each small coin are kept ready on the
active keyset (ecash.md, section 5). Coins of keysets that are inactive or end within a month move
to the active one (section 4, F). One swap at a time per mint and unit; its fee is the operator's,
never the users': without a surplus that covers it nothing is swapped.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final

import structlog

from routstr.core.money import msat_from_unit
from routstr.ecash.amounts import FloatGoal
from routstr.ecash.errors import InvalidAmount
from routstr.ecash.keyset import fee
from routstr.ecash.proof import Keyset
from routstr.ecash.refill import INPUTS_MAX, fewest, plan_refill
from routstr.errors import MintShort, RoutstrError, TokenRedemptionFailed
from routstr.flows.aside import joined, side_by_side
from routstr.flows.context import Context
from routstr.flows.mints import UNITS, active_keyset, expires_soon, known_mint
from routstr.flows.own_swap import drive_own_swap
from routstr.gateways.mint_limits import Priority
from routstr.ledger.reads_ecash import MintRow
from routstr.ledger.reads_proofs import (
    OwnSwap,
    Pick,
    mints_to_ask,
    own_swaps,
    pick,
    piles_at,
    seen_surplus_msat,
)
from routstr.ledger.sagas import OPEN_STATES, Operation, OperationState
from routstr.ledger.swaps import BeginSwap

log = structlog.get_logger()

LAST_CHANCE_S: Final = 7 * 86_400
REFUSED_WAIT_S: Final = 60
REFUSED_WAIT_MAX_S: Final = 3600
REMEMBERED: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnPlan:
    """A swap to begin: these coins for those. A `must` is begun whatever it costs."""

    picks: tuple[Pick, ...]
    outputs: tuple[int, ...]
    must: bool = False

    @property
    def fee_amount(self) -> int:
        """What it costs, in the unit."""
        return fee(each.input_fee_ppk for each in self.picks)


async def refill(ctx: Context) -> tuple[bool, dict[str, object]]:
    """One swap per mint and unit where one is needed, mints side by side; how many were done.

    At a mint whose ecash is not taken any more no float is kept, but what lies there is kept good.
    """
    urls = (*ctx.facts.mints, *await _left_behind(ctx))
    done = await side_by_side(ctx, "refill", urls, partial(refill_now, ctx))
    return True, {"swapped": sum(done.values())}


async def _left_behind(ctx: Context) -> list[str]:
    """The mints whose ecash is not taken any more that still have some of the node's."""
    former = ctx.live.now.former_mints
    if not former:
        return []
    async with ctx.database.reading() as connection:
        holding = await mints_to_ask(connection)
    return [url for url in former if url in holding]


async def refill_now(ctx: Context, url: str, *, priority: Priority = Priority.FLOAT) -> int:
    """The same for one mint, because coins are wanted; joins whoever does so there already."""
    return await joined(ctx, f"change {url}", partial(_at_mint, ctx, url, priority))


async def _at_mint(ctx: Context, url: str, priority: Priority) -> int:
    swapped = 0
    try:
        mint = await known_mint(ctx, url)
        for unit in UNITS:
            swapped += await _at_unit(ctx, mint, unit, priority)
    except RoutstrError as error:  # it is away, or its swap has no end yet: recovery goes on
        log.info("mint_not_refilled", mint_url=url, code=error.code)
    return swapped


async def _at_unit(ctx: Context, mint: MintRow, unit: str, priority: Priority) -> bool:
    now = ctx.clock.now()
    try:
        keyset = active_keyset(mint.keysets, unit, now)
    except TokenRedemptionFailed:
        return False
    async with ctx.database.reading() as connection:
        recent = await own_swaps(connection, mint.id, unit, limit=REMEMBERED)
    refusals = _refusals(recent)
    if _must_wait(recent, refusals, now):
        return False
    is_wanted = mint.url in ctx.facts.mints or priority is not Priority.FLOAT
    plans = [await _change(ctx, mint, keyset) if is_wanted else None]
    # One that the mint refuses again and again must not keep the others from their turn.
    plans = [*plans, *await _retired(ctx, mint, keyset)][:: 1 if refusals % 2 else -1]
    for plan in plans:
        operation = None if plan is None else await _begin(ctx, mint, keyset, plan)
        if operation is not None:
            ctx.failpoint("refill.begun")
            if await drive_own_swap(ctx, operation, priority=priority):
                return True
            await known_mint(ctx, mint.url, since_s=ctx.monotonic_s())
            return False
    return False


async def _begin(ctx: Context, mint: MintRow, keyset: Keyset, plan: OwnPlan) -> Operation | None:
    """The operation, if the node can afford it and the coins are still there."""
    if not await _is_affordable(ctx, mint, keyset, plan):
        return None
    try:
        return await ctx.ledger.submit(
            BeginSwap(
                kind="swap",
                mint_id=mint.id,
                unit=keyset.unit,
                keyset_id=keyset.id,
                ys=[each.y for each in plan.picks],
                output_amounts=plan.outputs,
                owner=ctx.new_id("lease"),
                lease_s=ctx.limits.mint_lease_s,
                must=plan.must or plan.fee_amount == 0,
            )
        )
    except MintShort as error:  # a withdrawal was quicker, or a payout
        log.info("mint_not_refilled", mint_url=mint.url, reason=error.message)
        return None


async def _is_affordable(ctx: Context, mint: MintRow, keyset: Keyset, plan: OwnPlan) -> bool:
    fee_msat = msat_from_unit(plan.fee_amount, keyset.unit)
    if fee_msat == 0:
        return True
    async with ctx.database.reading() as connection:
        surplus = await seen_surplus_msat(connection)
    if fee_msat <= surplus:
        return True
    if plan.must:
        log.error("keyset_swept_at_a_loss", mint_url=mint.url, amount_msat=fee_msat)
    else:
        log.info("fee_above_surplus", mint_url=mint.url, unit=keyset.unit, amount_msat=fee_msat)
    return plan.must


def _refusals(recent: Sequence[OwnSwap]) -> int:
    """How many of the newest swaps were refused in a row."""
    count = 0
    while count < len(recent) and recent[count].state is OperationState.FAILED:
        count += 1
    return count


def _must_wait(recent: Sequence[OwnSwap], refusals: int, now: datetime) -> bool:
    """One is under way, or the mint refused the last; twice as long after each refusal."""
    if any(each.state in OPEN_STATES for each in recent):
        return True
    ended_at = recent[0].ended_at if refusals else None
    if ended_at is None:
        return False
    wait_s = min(REFUSED_WAIT_S << (refusals - 1), REFUSED_WAIT_MAX_S)
    return (now - ended_at).total_seconds() < wait_s


# ── the change float ──────────────────────────────────────────────────────────────────────────


async def _change(ctx: Context, mint: MintRow, keyset: Keyset) -> OwnPlan | None:
    """What the float lacks, out of coins it has too many of."""
    current = {each.id: each for each in mint.keysets if _is_current(each, keyset, ctx.clock.now())}
    async with ctx.database.reading() as connection:
        piles = await piles_at(connection, mint.id, keyset.unit)
        counts: Counter[int] = Counter()
        for pile in piles:
            if pile.keyset_id in current:
                counts[pile.amount] += pile.count
        goal = ctx.limits.float_goal(keyset.keys)
        fee_ppk = max(each.input_fee_ppk for each in current.values())
        planned = plan_refill(goal, counts, fee_ppk=fee_ppk)
        if planned is None or 1 not in keyset.keys:
            return None
        picks = await pick(connection, list(current), planned.inputs)
    rest = _net(picks) - sum(planned.wanted)
    if rest < 0:
        return None  # some were taken meanwhile
    return OwnPlan(picks=tuple(picks), outputs=(*planned.wanted, *fewest(rest, keyset.keys)))


def _is_current(keyset: Keyset, target: Keyset, now: datetime) -> bool:
    """Whether its coins are as good as those of the keyset to get new ones from."""
    is_alike = keyset.active and not expires_soon(keyset, now)
    return keyset.unit == target.unit and (is_alike or keyset.id == target.id)


def _net(picks: Sequence[Pick]) -> int:
    return sum(each.amount for each in picks) - fee(each.input_fee_ppk for each in picks)


# ── keysets that retire ───────────────────────────────────────────────────────────────────────


async def _retired(ctx: Context, mint: MintRow, target: Keyset) -> list[OwnPlan | None]:
    """A swap per keyset that retires, the one that ends first last in the list."""
    now = ctx.clock.now()
    retiring = [each for each in mint.keysets if _is_retiring(each, target, now)]
    if not retiring:
        return []
    async with ctx.database.reading() as connection:
        piles = await piles_at(connection, mint.id, target.unit)
    counts = Counter({each.amount: each.count for each in piles if each.keyset_id == target.id})
    goal = ctx.limits.float_goal(target.keys)
    plans: list[OwnPlan | None] = []
    for keyset in sorted(retiring, key=lambda each: -(each.final_expiry or 2**62)):
        # A coin that costs its own worth to swap stays where it is.
        held = {
            each.amount: each.count
            for each in piles
            if each.keyset_id == keyset.id and each.amount * 1000 > keyset.input_fee_ppk
        }
        if held:
            plans.append(await _sweep(ctx, keyset, held, goal, counts))
    return plans


def _is_retiring(keyset: Keyset, target: Keyset, now: datetime) -> bool:
    """Inactive, or at its end within a month, while there is a better one; not over already."""
    if (
        keyset.unit != target.unit
        or keyset.id == target.id
        or expires_soon(keyset, now, within_s=0)
    ):
        return False
    if keyset.active and not expires_soon(keyset, now):
        return False
    is_worse = (target.final_expiry or 2**62) <= (keyset.final_expiry or 2**62)
    return not (expires_soon(target, now) and is_worse)


async def _sweep(
    ctx: Context,
    keyset: Keyset,
    held: Mapping[int, int],
    goal: FloatGoal,
    counts: Mapping[int, int],
) -> OwnPlan | None:
    """The largest coins of the keyset for coins of the active one."""
    chosen: dict[int, int] = {}
    for amount in sorted(held, reverse=True):
        chosen[amount] = min(held[amount], INPUTS_MAX - sum(chosen.values()))
    async with ctx.database.reading() as connection:
        picks = await pick(connection, [keyset.id], {a: n for a, n in chosen.items() if n})
    try:
        outputs = goal.split(_net(picks), counts) if _net(picks) > 0 else []
    except InvalidAmount:
        outputs = []
    if not outputs:
        return None
    must = expires_soon(keyset, ctx.clock.now(), within_s=LAST_CHANCE_S)
    return OwnPlan(picks=tuple(picks), outputs=tuple(outputs), must=must)
