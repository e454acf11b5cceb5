"""What is left of a payment without an account: given out once, shown until the mint says spent.

Change is an ordinary withdrawal of a one-shot account, with an idempotency key of its own: the
request that was paid, and every claim after it, meet in one row. What is less than the mint's unit
stays on the account. Its id is the account's in another dress, and only the token that was paid or
the claim secret opens it.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from routstr.core.money import unit_from_msat
from routstr.ecash.token import decode_token
from routstr.errors import (
    BalanceTooSmall,
    KeyRevoked,
    MintShort,
    MintUnreachable,
    NoBalance,
    Pending,
    RefundKeyNotFound,
    RefundNotFound,
    RoutstrError,
    TokenAlreadySpent,
    UntrustedMint,
)
from routstr.flows.context import Context
from routstr.flows.deposit import in_doubt
from routstr.flows.redeem import redeem_now
from routstr.flows.refill import refill_now
from routstr.flows.refunds import read_withdrawal
from routstr.flows.sources import Source
from routstr.flows.withdraw import Wish, withdraw, withdraw_from
from routstr.gateways.mint_failure import MintMisbehaved, MintRefused, MintUnknown
from routstr.gateways.mint_limits import Priority
from routstr.gateways.mint_wire import ProofState
from routstr.ledger.book import KeyRef
from routstr.ledger.issued import WithdrawalView
from routstr.ledger.reads import find_withdrawal
from routstr.ledger.reads_ecash import KnownDeposit, deposit_progress, find_deposit, proof_ys
from routstr.ledger.reads_oneshot import OneShotView, find_one_shot

CHANGE_PATH: Final = "/v1/balance/change/"
RUNNING_AGAIN_S: Final = 2
REFILLS_MAX: Final = 4
CHANGE: Final = Wish(idempotency_key="change", is_change=True)

ChangeStatus = Literal["ready", "claimed", "none"]


class ChangeSwept(RefundNotFound):
    """The change was spent, and its token is no longer kept."""

    status, type, code = 410, "gone", "change_swept"


class NothingToRefund(TokenAlreadySpent):
    """No balance to refund"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a request left; `amount` is in the mint's unit, `token` there while it can be spent."""

    id: str
    status: ChangeStatus
    token: str | None = field(repr=False)
    amount: int
    unit: str
    cost_msat: int
    request_id: str | None


def change_url(account_id: str) -> str:
    """Where the change of that one-shot account is claimed."""
    return f"{CHANGE_PATH}{_change_id(account_id)}"


async def answer_with_change(
    ctx: Context, account_id: str, mint_url: str, unit: str
) -> WithdrawalView:
    """The change of the request that has just ended, for its answer.

    First from the coins at hand, of the unit that was paid, which asks nobody and looks nothing up.
    Raises what `withdraw` raises.
    """
    if mint_url in ctx.payable_mints:
        with suppress(MintShort, MintUnreachable):
            source = Source(mint_url=mint_url, unit=unit)
            wish = replace(CHANGE, mint_url=mint_url, at_once=True)
            return await withdraw_from(ctx, KeyRef(id=account_id), wish, source)
    return await issue_change(ctx, account_id, mint_url, is_answer=True)


async def issue_change(
    ctx: Context, account_id: str, mint_url: str, *, is_answer: bool = False
) -> WithdrawalView:
    """All that is left on a one-shot account, from the mint it was paid with.

    A repeat yields the same token, until that came back unspent. In a crowd that wants change
    faster than coins can be had, an answer leaves it to be claimed: a swap for each would take the
    mint's whole patience. Raises what `withdraw` raises.
    """
    wish = replace(CHANGE, mint_url=mint_url if mint_url in ctx.payable_mints else None)
    account = KeyRef(id=account_id)
    for _ in range(REFILLS_MAX):
        with suppress(MintShort):
            return await withdraw(ctx, account, replace(wish, at_once=True))
        if not await _make_change(ctx, mint_url):
            return await withdraw(ctx, account, wish)
    return await withdraw(ctx, account, replace(wish, at_once=is_answer))


async def _make_change(ctx: Context, mint_url: str) -> bool:
    """Get small coins, of what was paid just now or of large ones; whether there are any new.

    A crowd joins in one redemption and one refill, where each by itself would need a swap.
    """
    with suppress(RoutstrError):
        if await refill_now(ctx, mint_url, priority=Priority.ISSUE):
            return True
    redeemed = await redeem_now(ctx, mint_url)
    return redeemed.done > 0


async def change_by_secret(ctx: Context, secret: str, change_id: str) -> Change:
    """The change that a claim secret opens. Raises RefundNotFound, and what `_change` raises."""
    async with ctx.database.reading() as connection:
        ref = KeyRef(hash=ctx.wallet.vault.key_hash(secret))
        account = await find_one_shot(connection, ref)
    if account is None or _change_id(account.id) != change_id:
        raise RefundNotFound
    return await _change(ctx, account)


async def change_by_token(ctx: Context, text: str, change_id: str | None = None) -> Change:
    """The change of the request that was paid with that token.

    Raises InvalidToken, RefundNotFound for a token or an id that do not belong together,
    RefundKeyNotFound without an id for a token nobody brought here, and what `_change` raises.
    """
    token = decode_token(text, bytes_max=ctx.limits.token_header_bytes_max)
    async with ctx.database.reading() as connection:
        known = await find_deposit(connection, token.ys())
    account_id = None if known is None or not known.covers else known.one_shot_id
    if known is None or account_id is None or change_id not in {None, _change_id(account_id)}:
        raise RefundKeyNotFound if change_id is None else RefundNotFound
    if known.state == "pending":
        raise await still_pending(ctx, known)
    async with ctx.database.reading() as connection:
        account = await find_one_shot(connection, KeyRef(id=account_id))
    if account is None:  # its deposit failed meanwhile: the token is its owner's again
        raise RefundNotFound
    return await _change(ctx, account)


async def still_pending(ctx: Context, known: KnownDeposit) -> RoutstrError:
    """What somebody hears whose token the mint has not answered for yet."""
    async with ctx.database.reading() as connection:
        progress = await deposit_progress(connection, known.id, ctx.clock.now())
    if progress.is_in_doubt:
        return in_doubt(known.id, progress.last_code)
    return Pending(retry_after_s=RUNNING_AGAIN_S)


async def is_running(ctx: Context, account_id: str) -> bool:
    """Whether the request that a one-shot account pays for has not ended yet."""
    if account_id in ctx.one_shots:
        return True
    async with ctx.database.reading() as connection:
        account = await find_one_shot(connection, KeyRef(id=account_id))
    return account is not None and account.reserved_msat > 0


async def _change(ctx: Context, account: OneShotView) -> Change:
    """The change as it stands, given out now if nobody did yet.

    Raises Pending while the request runs, ChangeSwept, also for an account that was erased, and
    what `withdraw` raises.
    """
    if account.id in ctx.one_shots or account.reserved_msat:
        raise Pending(retry_after_s=RUNNING_AGAIN_S)
    try:
        view, is_new = await _given(ctx, account)
    except KeyRevoked as error:
        raise ChangeSwept from error
    if view is None:
        return _told(account, None, "none")
    if view.status == "claimed" or (not is_new and await _is_spent(ctx, view)):
        return _told(account, view, "claimed")
    if view.token is None:
        raise ChangeSwept
    return _told(account, view, "ready")


async def _given(ctx: Context, account: OneShotView) -> tuple[WithdrawalView | None, bool]:
    """The change, if there is any, and whether it was given out just now, so is surely unspent."""
    async with ctx.database.reading() as connection:
        last = await find_withdrawal(connection, account.id)
    if last is not None and last.status in {"completed", "claimed"}:
        return await read_withdrawal(ctx, KeyRef(id=account.id), last.id), False
    try:
        return await issue_change(ctx, account.id, account.mint_url), True
    except (NoBalance, BalanceTooSmall):
        return None, False


async def _is_spent(ctx: Context, view: WithdrawalView) -> bool:
    """Whether the mint calls all of it spent; one that does not answer in time says no.

    A claimer may ask as often as he likes, so at most one such question is under way per mint, and
    it gives way to everything that moves money.
    """
    async with ctx.database.reading() as connection:
        ys = await proof_ys(connection, withdrawal_id=view.id)
    if not ys or view.mint_url in ctx.shelf.telling:
        return False
    ctx.shelf.telling.add(view.mint_url)
    asking = ctx.tasks.start(_all_spent(ctx, view.mint_url, ys), name="change state")
    asking.add_done_callback(lambda _: ctx.shelf.telling.discard(view.mint_url))
    await asyncio.wait({asking}, timeout=ctx.limits.change_wait_s)
    return asking.done() and not asking.cancelled() and asking.result()


async def _all_spent(ctx: Context, mint_url: str, ys: list[str]) -> bool:
    try:
        states = await ctx.mints.check_state(mint_url, ys, priority=Priority.FLOAT)
    except (MintUnknown, MintRefused, MintMisbehaved, UntrustedMint):
        return False
    return set(states.values()) == {ProofState.SPENT}


def _told(account: OneShotView, view: WithdrawalView | None, status: ChangeStatus) -> Change:
    unit = account.unit if view is None else view.unit
    return Change(
        id=_change_id(account.id),
        status=status,
        token=view.token if view is not None and status == "ready" else None,
        amount=0 if view is None else unit_from_msat(view.amount_msat, unit),
        unit=unit,
        cost_msat=account.spent_msat,
        request_id=account.request_id,
    )


def _change_id(account_id: str) -> str:
    """`chg_` for `key_`, and the same 32 digits."""
    return f"chg_{account_id.removeprefix('key_')}"
