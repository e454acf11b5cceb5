"""One request paid by the token it brings: no account before it, and nothing kept after it.

The token opens a one-shot account, a row like every key's, whose only secret is a claim secret
that spends nothing here. From then on the request is paid as by any key; before its last byte the
change is given out. Whatever dies and whenever: what was credited is on that account, and the
token or the secret claims it. Source: contract, section 7; NUT-24.
"""

import asyncio
from contextlib import suppress
from typing import Final

import structlog

from routstr.core.money import msat_from_unit
from routstr.core.outcome import Ending
from routstr.core.quote import Quote
from routstr.ecash.keyset import UnknownKeyset, fee
from routstr.ecash.secret import Nut10Secret, parse_secret
from routstr.ecash.token import Token, resolve_ids
from routstr.errors import (
    BalanceTooSmall,
    InvalidToken,
    NoBalance,
    Pending,
    RoutstrError,
    TokenAlreadySpent,
)
from routstr.flows.authenticate import Caller
from routstr.flows.change import (
    RUNNING_AGAIN_S,
    answer_with_change,
    change_url,
    is_running,
    still_pending,
)
from routstr.flows.context import Context
from routstr.flows.deposit import Intent, check_new, receive
from routstr.flows.exchange import Exchange, OneShot
from routstr.flows.mints import fees_ppk, remembered_mint
from routstr.flows.tokens import read_or_known
from routstr.ledger.accounts import NewKey
from routstr.ledger.book import KeyRef
from routstr.ledger.reads_ecash import KnownDeposit, find_deposit
from routstr.ledger.tables import ONE_SHOT

log = structlog.get_logger()

STOPPING_WAIT_S: Final = 1.0  # for change, once the node has been told to stop


class MinimumBalanceRequired(RoutstrError):
    """The token is worth less than the smallest answer costs."""

    status, type, code = 402, "minimum_balance_required", "minimum_balance_required"


async def check_payment(ctx: Context, text: str, quote: Quote) -> Token:
    """Judge a token brought for one request; asks no mint.

    Raises InvalidToken, TokenZeroValue, UntrustedMint; Pending and TokenAlreadySpent for one that
    was brought before; Paused; MinimumBalanceRequired for one that pays for no answer.
    """
    token, known = await read_or_known(ctx, text, bytes_max=ctx.limits.token_header_bytes_max)
    if known is not None:
        raise await _known_already(ctx, known)
    if ctx.limits.p2pk_lock == "require" and not _is_locked(token):
        raise InvalidToken("This node takes only ecash locked to its key: pay what the 402 asks.")
    await check_new(ctx, token)
    await _check_worth(ctx, token, quote)
    return token


async def take_payment(ctx: Context, exchange: Exchange, token: Token) -> Caller:
    """Credit the token to an account for this request alone, which pays from then on.

    Raises what `receive` raises, and what `check_payment` raises when the same token was faster.
    """
    # As random as a key, under another name: it is shown, so it must not be able to spend.
    secret = f"clm_{ctx.new_api_key().removeprefix('sk-')}"
    key = NewKey(id=ctx.new_id("key"), hash=ctx.wallet.vault.key_hash(secret))
    shot = OneShot(
        account_id=key.id,
        mint_url=token.mint_url,
        unit=token.unit,
        change_url=change_url(key.id),
        claim_secret=secret,
    )
    ctx.one_shots.add(key.id)
    try:
        await receive(ctx, token, Intent(new_key=key, source=ONE_SHOT))
    except BaseException as error:
        ctx.one_shots.discard(key.id)
        if isinstance(error, TokenAlreadySpent):
            await _refuse_known(ctx, token, key.id)
        if isinstance(error, RoutstrError) and "deposit_id" in error.details:
            error.headers["X-Routstr-Change"] = shot.change_url  # the mint may yet say it was taken
        raise
    exchange.one_shot = shot
    ctx.failpoint("oneshot.taken")
    return Caller(ref=KeyRef(id=key.id))


async def give_change(ctx: Context, exchange: Exchange) -> str | None:
    """The token of what is left, if there is any and it can be had soon; else it stays claimable.

    The work goes on in a task of its own, so a mint that is slow costs the client only the wait.
    """
    shot = exchange.one_shot
    if shot is None or exchange.queue.is_abandoned:
        return None
    is_stopping = exchange.stopped is Ending.NODE_STOPPED
    ctx.failpoint("oneshot.before_change")
    try:
        async with asyncio.timeout(STOPPING_WAIT_S if is_stopping else ctx.limits.change_wait_s):
            view = await answer_with_change(ctx, shot.account_id, shot.mint_url, shot.unit)
    except (NoBalance, BalanceTooSmall):
        return None
    except (RoutstrError, TimeoutError) as error:
        reason = type(error).__name__
        log.warning("change_delayed", request_id=exchange.request_id, reason=reason)
        return None
    ctx.failpoint("oneshot.changed")
    return view.token


async def refund(ctx: Context, exchange: Exchange, error: RoutstrError) -> None:
    """Give back all that was credited, and let the error say so: a repeat cannot pay again."""
    shot = exchange.one_shot
    assert shot is not None
    ctx.one_shots.discard(shot.account_id)
    error.refund_token = await give_change(ctx, exchange)
    error.headers |= shot.headers(error.refund_token)
    error.should_retry = False


async def _refuse_known(ctx: Context, token: Token, account_id: str) -> None:
    """Raises what the same token, which was faster, deserves; not for one spent elsewhere."""
    async with ctx.database.reading() as connection:
        known = await find_deposit(connection, token.ys())
    if known is not None and known.one_shot_id != account_id:
        raise await _known_already(ctx, known)


async def _known_already(ctx: Context, known: KnownDeposit) -> RoutstrError:
    """What a token that was brought before is answered with."""
    if not known.covers:
        return TokenAlreadySpent("Some proofs of this token were used before.")
    if known.one_shot_id is None:
        return TokenAlreadySpent()
    if known.state == "pending":
        return await still_pending(ctx, known)
    if await is_running(ctx, known.one_shot_id):
        return Pending(retry_after_s=RUNNING_AGAIN_S)
    return TokenAlreadySpent(
        "This token has paid for a request; what is left of it can be claimed.",
        details={"change_url": change_url(known.one_shot_id)},
    )


async def _check_worth(ctx: Context, token: Token, quote: Quote) -> None:
    """Face value less the mint's fee, as last seen, must pay for the smallest answer."""
    seen = ctx.shelf.find(token.mint_url)
    mint = await remembered_mint(ctx, token.mint_url) if seen is None else seen.mint
    fee_amount = 0
    if mint is not None:
        with suppress(UnknownKeyset):  # the mint may have newer ones; it will be asked
            ids = [proof.keyset_id for proof in resolve_ids(token, mint.keysets).proofs]
            fee_amount = fee(fees_ppk(mint.keysets, ids))
    net_msat = msat_from_unit(token.amount - fee_amount, token.unit)
    if net_msat < quote.minimum_msat:
        raise MinimumBalanceRequired(
            details={
                "reason": "Insufficient balance",
                "amount_required_msat": quote.minimum_msat,
                "model": quote.model_id,
                "type": MinimumBalanceRequired.type,
            }
        )


def _is_locked(token: Token) -> bool:
    """Whether every proof is under a spending condition; whose, the acceptance judges."""
    return all(isinstance(parse_secret(proof.secret), Nut10Secret) for proof in token.proofs)
