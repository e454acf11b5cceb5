"""Making a restored backup safe to live on: what the mints say of everything it thinks it has.

The copy is of the past. Mint by mint: its counters go behind all that was signed since, and what is
unspent of that is taken; what was open when it was made is driven to its end by the mint's word;
coins that were spent since are lost; and the others are swapped for new ones, because any of them
may have been given to somebody since. Users' balances are as the copy has them.

What is true if the process dies, or a mint is silent: no node starts on the database before all of
it is done, and all of it can be done again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import structlog

from routstr.core.money import msat_from_unit
from routstr.ecash.amounts import FloatGoal
from routstr.ecash.errors import InvalidAmount
from routstr.ecash.keyset import fee
from routstr.ecash.proof import Keyset
from routstr.errors import (
    MintShort,
    MintUnreachable,
    RestoreRefused,
    RoutstrError,
    TokenRedemptionFailed,
)
from routstr.flows.audit import audit
from routstr.flows.context import Context
from routstr.flows.expire import expire
from routstr.flows.house.actions import note_action
from routstr.flows.mints import active_keyset, fees_ppk, known_mint, split_on
from routstr.flows.operate import AUDIT_JOB, finish_job
from routstr.flows.own_swap import drive_own_swap
from routstr.flows.restore import EMPTY_BATCHES, STATES_BATCH, patiently, scan, states_of
from routstr.flows.resume import resume_at
from routstr.gateways.mint_limits import Priority
from routstr.gateways.mint_wire import ProofState
from routstr.ledger.audit import AuditReport
from routstr.ledger.catalog import TakeJob
from routstr.ledger.copies import (
    CopyMark,
    MarkAsked,
    OldCoin,
    Quarantine,
    SkipMint,
    copy_mark,
    old_coins,
    open_operations,
)
from routstr.ledger.leases import DropLeases
from routstr.ledger.reads_ecash import MintRow
from routstr.ledger.reads_proofs import held_at
from routstr.ledger.restores import StoreRestored, finish_restore
from routstr.ledger.swaps import BeginSwap

log = structlog.get_logger()

SAFETY_GAP: Final = 100
"""Outputs left out behind the last one signed: what was sent and never signed may be on its way.

Less than a search from the seed takes for the end of a keyset.
"""
RENEW_INPUTS: Final = 100
COINS_MAX: Final = 1_000_000
ROUNDS: Final = 3
ROUND_WAIT_S: Final = 1.0
AUDIT_LEASE_S: Final = 300.0
ACTOR: Final = "cli"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """What came of one mint, in msat.

    `found_msat` was signed since the copy and is the node's, `lost_msat` was spent since, and
    `fee_msat` is what new coins cost. `is_pending`: some are in payments that are not over.
    """

    mint_url: str
    found_msat: int = 0
    lost_msat: int = 0
    fee_msat: int = 0
    is_pending: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """How a restore ended; `failed` is (mint, reason), and while there are any it is not over.

    `open_operations` are for the node to go on with. `report` is the audit's, once it is over.
    """

    mints: tuple[Recovered, ...]
    failed: tuple[tuple[str, str], ...]
    holds_ended: int
    open_operations: int
    report: AuditReport | None

    @property
    def is_done(self) -> bool:
        """Whether nodes may start again."""
        return not self.failed

    @property
    def short_msat(self) -> int:
        """By how much what is owed is more than what is held; the operator's to bring."""
        return 0 if self.report is None else max(0, -self.report.totals.surplus_msat)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How far to look, and whom to do without.

    `empty_batches` as `restore_mint` has it. With `writes_off` coins in payments that are not over
    are lost; `without` are mints that cannot be asked any more.
    """

    empty_batches: int = EMPTY_BATCHES
    writes_off: bool = False
    without: frozenset[str] = field(default=frozenset())


async def recover(ctx: Context, terms: Terms) -> Recovery:
    """Ask every mint, and end the restore if all have answered. Raises RestoreRefused for none."""
    async with ctx.database.reading() as connection:
        if await copy_mark(connection) is None:
            raise RestoreRefused("no backup is being restored here")
    await ctx.ledger.submit(DropLeases())  # of a run that was killed: nobody else is here
    holds_ended = await expire(ctx, orphaned=True)
    recovered: list[Recovered] = []
    failed: list[tuple[str, str]] = []
    for url in terms.without:
        await ctx.ledger.submit(SkipMint(mint_url=url))
    for url in (each for each in ctx.facts.mints if each not in terms.without):
        try:
            found = await _recover_at(ctx, url, terms)
        except RoutstrError as error:
            failed.append((url, error.message))
            continue
        recovered.append(found)
        if found.is_pending:
            failed.append((url, "some of its coins are in a payment that is not over"))
    report = None
    if not failed:
        report = await _end(ctx, recovered)
    async with ctx.database.reading() as connection:
        still_open = await open_operations(connection)
    return Recovery(
        mints=tuple(recovered),
        failed=tuple(failed),
        holds_ended=holds_ended,
        open_operations=still_open,
        report=report,
    )


async def _recover_at(ctx: Context, mint_url: str, terms: Terms) -> Recovered:
    """Raises MintUnreachable, UntrustedMint; what was done before that stays done."""
    mint = await known_mint(ctx, mint_url, since_s=ctx.monotonic_s())
    found_msat, is_pending = 0, False
    for keyset in mint.keysets:
        taken_msat, is_over = await _catch_up(ctx, mint, keyset, terms)
        found_msat += taken_msat
        is_pending |= not is_over
    for _ in range(ROUNDS):
        ctx.failpoint("recover.resuming")
        await resume_at(ctx, mint.id)
        async with ctx.database.reading() as connection:
            if not await open_operations(connection, mint.id):
                break
        await ctx.clock.sleep(ROUND_WAIT_S)
    lost_msat, pending = await _quarantine(ctx, mint_url, terms)
    fee_msat = await _renew(ctx, mint, pending)
    return Recovered(
        mint_url=mint_url,
        found_msat=found_msat,
        lost_msat=lost_msat,
        fee_msat=fee_msat,
        is_pending=is_pending or bool(pending),
    )


async def _end(ctx: Context, recovered: Sequence[Recovered]) -> AuditReport:
    """Nodes may start; what the audit says is what they go by, so a breach pauses withdrawals."""
    await ctx.ledger.submit(
        TakeJob(name=AUDIT_JOB, owner=ctx.owner, lease_s=AUDIT_LEASE_S, orphaned=True)
    )
    report = await audit(ctx, full=True, deep=True, is_running=False)
    breached = {each.name: each.breaches for each in report.invariants if each.breaches}
    await finish_job(ctx, AUDIT_JOB, ok=not breached, result={"breaches": breached}, next_in_s=0)
    mark = await _mark(ctx)
    detail = {each.mint_url: [each.found_msat, each.lost_msat, each.fee_msat] for each in recovered}
    await note_action(ctx, actor=ACTOR, action="backup.restore", target=mark.backup, detail=detail)
    ctx.failpoint("recover.ending")
    await finish_restore(ctx.database, now=ctx.clock.now())
    return report


# ── counters, and what was signed since ───────────────────────────────────────────────────────


async def _catch_up(ctx: Context, mint: MintRow, keyset: Keyset, terms: Terms) -> tuple[int, bool]:
    """Put the counter behind all that was signed, and take what is unspent of it.

    What that is worth in msat, and whether nothing of it is in a payment that is not over.
    """
    mark = await _mark(ctx)
    if keyset.id in mark.upto:
        return 0, True
    first = mark.first.get(keyset.id, 0)
    found = await scan(
        ctx, mint.url, keyset, first_counter=first, empty_batches=terms.empty_batches
    )
    ctx.failpoint("recover.scanned")
    states = await states_of(ctx, mint.url, found)
    is_over = terms.writes_off or ProofState.PENDING not in states.values()
    kept = [each for each in found if states[each.y] is ProofState.UNSPENT]
    upto = max((each.output.counter + 1 for each in found), default=first) + SAFETY_GAP
    taken = await ctx.ledger.submit(
        StoreRestored(
            mint_id=mint.id,
            mint_url=mint.url,
            unit=keyset.unit,
            keyset_id=keyset.id,
            outputs=[each.output for each in kept],
            proofs=[each.proof for each in kept],
            ys=[each.y for each in kept],
            next_counter=upto,
            owner=ctx.owner,
            has_lived=True,
        )
    )
    ctx.failpoint("recover.stored")
    if is_over:
        await ctx.ledger.submit(MarkAsked(keyset_id=keyset.id, upto=upto))
    return msat_from_unit(taken, keyset.unit), is_over


async def _mark(ctx: Context) -> CopyMark:
    async with ctx.database.reading() as connection:
        mark = await copy_mark(connection)
    assert mark is not None, "looked at before"
    return mark


# ── what the copy thinks it has ───────────────────────────────────────────────────────────────


async def _quarantine(ctx: Context, mint_url: str, terms: Terms) -> tuple[int, frozenset[str]]:
    """Give up what was spent since; what that was worth in msat, and the Ys of what is pending."""
    lost_msat, pending, after_y = 0, set[str](), ""
    while True:
        async with ctx.database.reading() as connection:
            ys = await held_at(connection, mint_url, after_y=after_y, limit=STATES_BATCH)
        if not ys:
            return lost_msat, frozenset(pending)
        states = await patiently(ctx, partial(ctx.mints.check_state, mint_url, ys))
        spent = [y for y in ys if states[y] is ProofState.SPENT]
        running = [y for y in ys if states[y] is ProofState.PENDING]
        given_up = [*spent, *running] if terms.writes_off else spent
        if given_up:
            lost_msat += await ctx.ledger.submit(Quarantine(ys=given_up))
            ctx.failpoint("recover.quarantined")
        if not terms.writes_off:
            pending.update(running)
        after_y = ys[-1]


# ── coins that somebody else may have, too ────────────────────────────────────────────────────


async def _renew(ctx: Context, mint: MintRow, pending: frozenset[str]) -> int:
    """Swap every free coin of before for a new one; what that cost, in msat.

    A coin that is not worth its fee stays, and so do those the mint refuses to swap.
    """
    upto = (await _mark(ctx)).upto
    fee_msat = 0
    for unit in sorted({each.unit for each in mint.keysets if each.id in upto}):
        async with ctx.database.reading() as connection:
            coins = await old_coins(connection, mint.url, unit, upto, limit=COINS_MAX)
        free = [each for each in coins if each.y not in pending]
        for at in range(0, len(free), RENEW_INPUTS):
            fee_msat += await _swap(ctx, mint, unit, free[at : at + RENEW_INPUTS])
    return fee_msat


async def _swap(ctx: Context, mint: MintRow, unit: str, coins: Sequence[OldCoin]) -> int:
    """What it cost; a swap that has no answer yet holds its coins, and goes on by itself."""
    try:
        keyset = active_keyset(mint.keysets, unit, ctx.clock.now())
    except TokenRedemptionFailed as error:
        log.warning("coins_not_renewed", mint_url=mint.url, reason=error.message)
        return 0
    fee_amount = fee(fees_ppk(mint.keysets, [each.keyset_id for each in coins]))
    net_amount = sum(each.amount for each in coins) - fee_amount
    if net_amount < 1:
        return 0
    try:
        operation = await ctx.ledger.submit(
            BeginSwap(
                kind="swap",
                mint_id=mint.id,
                unit=unit,
                keyset_id=keyset.id,
                ys=[each.y for each in coins],
                output_amounts=_outputs(ctx.limits.float_goal(keyset.keys), keyset, net_amount),
                owner=ctx.new_id("lease"),
                lease_s=ctx.limits.mint_lease_s,
            )
        )
        ctx.failpoint("recover.renewing")
        is_done = await drive_own_swap(ctx, operation, priority=Priority.RECOVERY)
    except MintShort as error:
        log.warning("coins_not_renewed", mint_url=mint.url, reason=error.message)
        return 0
    except MintUnreachable:
        return msat_from_unit(fee_amount, unit)
    if not is_done:
        log.warning("coins_not_renewed", mint_url=mint.url, count=len(coins))
        return 0
    return msat_from_unit(fee_amount, unit)


def _outputs(goal: FloatGoal, keyset: Keyset, amount: int) -> list[int]:
    try:
        return goal.split(amount, {})
    except InvalidAmount:
        return split_on(keyset, amount)
