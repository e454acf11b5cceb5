"""Paying the operator: profit is taken out of the surplus, then it leaves like anybody's money.

What is true if the process dies: before the withdrawal is committed the money is on the operator's
account, and the next payout uses it first; after that it is a withdrawal like any other, and its
token can be read again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from routstr.core.money import msat_from_unit, unit_from_msat
from routstr.errors import (
    IdempotencyMismatch,
    InsufficientBalance,
    MintShort,
    MintUnreachable,
    ProfitTooSmall,
)
from routstr.flows.aside import joined
from routstr.flows.context import Context
from routstr.flows.mints import active_keyset, known_mint, payable_mint
from routstr.flows.operate import check_not_paused, hourly_msat_max
from routstr.flows.refunds import read_payment
from routstr.flows.withdraw import REFUSED, WithdrawalView, drive_withdrawal, existing
from routstr.ledger.accounts import OWNER_KEY_ID
from routstr.ledger.book import KeyRef
from routstr.ledger.issued import Withdrawing
from routstr.ledger.profit import TakeProfit
from routstr.ledger.reads import find_key
from routstr.ledger.reads_ecash import MintRow, find_payment
from routstr.ledger.reads_wallet import coins, house_money
from routstr.ledger.withdrawals import BeginWithdrawal

OWNER: Final = KeyRef(id=OWNER_KEY_ID)
ROUNDS_MAX: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Pot:
    """Where profit can be paid from: free coins of one mint and unit, in that unit."""

    mint_url: str
    unit: str
    unspent: int


async def profit_msat(ctx: Context) -> int:
    """What could be paid out now: surplus less what is kept back, and what was taken before."""
    async with ctx.database.reading() as connection:
        money = await house_money(connection)
    return payable_msat(ctx, surplus_msat=money.surplus_msat, taken_msat=money.taken_msat)


def payable_msat(ctx: Context, *, surplus_msat: int, taken_msat: int) -> int:
    """What of a surplus can be paid out, with what an earlier payment left."""
    return max(0, surplus_msat - _keep_msat(ctx)) + taken_msat


@dataclass(frozen=True, slots=True, kw_only=True)
class Once:
    """What a repeat is known by: its Idempotency-Key, and a digest of what it asks for."""

    idempotency_key: str | None = None
    fingerprint: str | None = None


async def send_profit(
    ctx: Context,
    amount: int,
    *,
    unit: str,
    mint_url: str | None = None,
    once: Once | None = None,
) -> WithdrawalView:
    """A token of that amount out of the profit, in `unit`; the mint's fee for change is extra.

    With an Idempotency-Key a repeat yields the first one. Raises ProfitTooSmall, MintShort,
    MintUnreachable, UntrustedMint, InvalidParameter, IdempotencyMismatch, Paused, and RefundPending
    while the mint's answer is awaited: then the token comes with the next payout.
    """
    send = partial(_send_profit, ctx, amount, unit, mint_url, once or Once())
    if once is None or once.idempotency_key is None:
        return await send()
    return await joined(ctx, f"payout {once.idempotency_key} {once.fingerprint}", send)


async def _send_profit(
    ctx: Context, amount: int, unit: str, mint_url: str | None, once: Once
) -> WithdrawalView:
    again = await _again(ctx, once)
    if again is not None:
        return again
    await check_not_paused(ctx)
    pots = [pot for pot in await _pots(ctx, mint_url) if pot.unit == unit]
    return await ctx.tasks.carry_through(_from_first(ctx, pots, amount, once), name="payout")


async def _again(ctx: Context, once: Once) -> WithdrawalView | None:
    """What this Idempotency-Key began, driven to its end. Raises IdempotencyMismatch."""
    if once.idempotency_key is None:
        return None
    async with ctx.database.reading() as connection:
        known = await find_payment(
            connection, OWNER_KEY_ID, idempotency_key=once.idempotency_key, payment_hash=None
        )
    if known is None:
        return None
    if known.fingerprint != once.fingerprint:
        raise IdempotencyMismatch
    view = await existing(ctx, await read_payment(ctx, OWNER_KEY_ID, known.id))
    return replace(view, is_replay=True)


async def send_all_profit(
    ctx: Context, *, mint_url: str | None = None
) -> tuple[WithdrawalView, ...]:
    """As much of the profit as the coins at hand make, a token for each mint and unit.

    Raises as `send_profit` does when there is nothing to send; what was sent before is returned.
    """
    await check_not_paused(ctx)
    if not await profit_msat(ctx):
        raise ProfitTooSmall(details={"profit_msat": 0})
    sent: list[WithdrawalView] = []
    for pot in await _pots(ctx, mint_url):
        view = await ctx.tasks.carry_through(_send_most(ctx, pot), name="payout")
        if view is not None:
            sent.append(view)
    if not sent:
        raise MintShort
    return tuple(sent)


NOT_ONCE: Final = Once()


async def _pots(ctx: Context, mint_url: str | None) -> list[Pot]:
    """The fullest first."""
    urls = ctx.payable_mints if mint_url is None else (payable_mint(ctx, mint_url),)
    async with ctx.database.reading() as connection:
        held = await coins(connection)
    pots = [
        Pot(mint_url=each.mint_url, unit=each.unit, unspent=each.unspent)
        for each in held
        if each.mint_url in urls and each.unspent
    ]
    return sorted(pots, key=lambda pot: -msat_from_unit(pot.unspent, pot.unit))


async def _from_first(ctx: Context, pots: Sequence[Pot], amount: int, once: Once) -> WithdrawalView:
    """Pay from the first mint that can; one that cannot never hides one that can."""
    shortage: MintShort | MintUnreachable = MintShort()
    for pot in pots:
        try:
            return await _send(ctx, pot, amount, once)
        except (MintShort, MintUnreachable) as error:
            shortage = error
    raise shortage


async def _send_most(ctx: Context, pot: Pot) -> WithdrawalView | None:
    """The most that profit and coins allow, their fee considered; None if that is nothing."""
    mint = await known_mint(ctx, pot.mint_url)
    amount = min(unit_from_msat(await profit_msat(ctx), pot.unit), pot.unspent)
    step = 1
    while amount > 0:
        try:
            begun = await _begin(ctx, pot, mint, amount)
        except (MintShort, ProfitTooSmall):  # the fee of the coins does not fit in
            amount, step = amount - step, step * 2
            continue
        return await _finish(ctx, begun)
    return None


async def _send(ctx: Context, pot: Pot, amount: int, once: Once) -> WithdrawalView:
    mint = await known_mint(ctx, pot.mint_url)
    return await _finish(ctx, await _begin(ctx, pot, mint, amount, once))


async def _begin(
    ctx: Context, pot: Pot, mint: MintRow, amount: int, once: Once = NOT_ONCE
) -> Withdrawing:
    """Put what is needed on the operator's account and withdraw it, the fee in a second round."""
    need_msat: int = msat_from_unit(amount, pot.unit)
    for _ in range(ROUNDS_MAX):
        await provide(ctx, need_msat)
        ctx.failpoint("payout.taken")
        try:
            return await _withdraw(ctx, pot, mint, amount, once)
        except InsufficientBalance as error:
            need_msat = int(str(error.details["required_msat"]))
    raise MintShort


async def provide(ctx: Context, need_msat: int) -> None:
    """Have at least that much on the operator's account. Raises ProfitTooSmall."""
    async with ctx.database.reading() as connection:
        account = await find_key(connection, OWNER)
    missing_msat = need_msat - (0 if account is None else account.available_msat)
    if account is None or missing_msat > 0:
        await _take(ctx, missing_msat)


async def provide_all(ctx: Context) -> None:
    """Have all profit on the operator's account. Raises ProfitTooSmall when that is nothing."""
    try:
        await _take(ctx, None)
    except ProfitTooSmall:
        async with ctx.database.reading() as connection:
            account = await find_key(connection, OWNER)
        if account is None or not account.available_msat:
            raise


async def _take(ctx: Context, amount_msat: int | None) -> None:
    await ctx.ledger.submit(
        TakeProfit(
            payout_id=ctx.new_id("pay"),
            amount_msat=amount_msat,
            keep_msat=_keep_msat(ctx),
            # Of a text that is thrown away, and that no credential's form fits.
            key_hash=ctx.wallet.vault.key_hash(f"owner {ctx.new_api_key()}"),
        )
    )


async def _withdraw(ctx: Context, pot: Pot, mint: MintRow, amount: int, once: Once) -> Withdrawing:
    keyset = active_keyset(mint.keysets, pot.unit, ctx.clock.now())
    return await ctx.ledger.submit(
        BeginWithdrawal(
            withdrawal_id=ctx.new_id("rfd"),
            caller=OWNER,
            amount=amount,
            unit=pot.unit,
            mint_id=mint.id,
            mint_url=mint.url,
            keyset_id=keyset.id,
            goal=ctx.limits.float_goal(keyset.keys),
            owner=ctx.new_id("lease"),
            lease_s=ctx.limits.mint_lease_s,
            hourly_msat_max=hourly_msat_max(ctx),
            idempotency_key=once.idempotency_key,
            fingerprint=once.fingerprint,
        )
    )


async def _finish(ctx: Context, begun: Withdrawing) -> WithdrawalView:
    ctx.failpoint("payout.begun")
    if begun.is_replay:
        return replace(await existing(ctx, begun.withdrawal), is_replay=True)
    if begun.operation is None:
        return begun.withdrawal
    view = await drive_withdrawal(ctx, begun.operation, OWNER_KEY_ID)
    if view.status == "failed":
        raise MintShort(REFUSED)
    return view


def _keep_msat(ctx: Context) -> int:
    return msat_from_unit(ctx.limits.payout_keep_sats, "sat")
