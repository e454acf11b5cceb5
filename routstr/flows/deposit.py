"""From a Cashu token to money on a key: create, top up, or pay with the token itself.

Algorithm A. The intent is committed before the mint hears of it, the credit together with the new
proofs; only then is anybody told. The work runs in a task of the node's own, so a client that
leaves changes nothing. What was begun is found again by the token's Ys, whoever brings it.
"""

from dataclasses import dataclass, field, replace
from typing import Final

from routstr.core.money import msat_from_unit
from routstr.ecash.keyset import fee
from routstr.ecash.token import Token
from routstr.errors import (
    InvalidApiKey,
    MintUnreachable,
    Pending,
    RoutstrError,
    SwapFeesExceedAmount,
    TokenAlreadySpent,
    TokenRedemptionFailed,
)
from routstr.flows.context import Context
from routstr.flows.instant import check_locked, waiting_msat_max
from routstr.flows.invited import invite_hash
from routstr.flows.mints import (
    active_keyset,
    fees_ppk,
    known_mint,
    shown_keyset,
    split_on,
    unreachable,
)
from routstr.flows.operate import check_deposits
from routstr.flows.redeem import redeem_soon
from routstr.flows.swap import (
    DOUBTFUL,
    SPENT,
    STALE,
    STALE_AGAIN_S,
    WATCHED,
    Doubtful,
    Open,
    Refused,
    Signed,
    SpentElsewhere,
    Stale,
    Unknown,
    Waiting,
    postpone,
    run_swap,
    watched_enough,
)
from routstr.flows.tokens import Checked, check_token, read_or_known
from routstr.gateways.mint_limits import Priority
from routstr.ledger.accounts import NewKey
from routstr.ledger.book import KeyRef
from routstr.ledger.credits import Credited
from routstr.ledger.deposits import (
    BeginDeposit,
    Begun,
    CreditDeposit,
    DepositView,
    FailDeposit,
    ReplaceDepositOperation,
)
from routstr.ledger.leases import Claim
from routstr.ledger.locked import AcceptLocked
from routstr.ledger.reads_ecash import deposit_progress, find_deposit
from routstr.ledger.sagas import Operation, OperationState

POLL_S: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """What a token is brought for: a new key with its terms, or a key that exists.

    With `only_joins` somebody has brought it before: nothing new is begun if that failed meanwhile.
    """

    target: KeyRef | None = None
    new_key: NewKey | None = field(default=None, repr=False)
    source: str = "cashu"
    idempotency_key: str | None = None
    fingerprint: str | None = None
    only_joins: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A deposit that ended well. `is_first` is false for a token that was credited before."""

    deposit_id: str
    api_key_id: str
    credit_msat: int
    available_msat: int
    is_first: bool


async def receive(ctx: Context, token: Token, intent: Intent) -> Received:
    """Swap the token and credit it, or attach to the deposit of the same token.

    Raises what the token, its mint or the key deserve; after MintUnreachable the same token may be
    brought again and nothing is lost.
    """
    return await ctx.tasks.carry_through(_receive(ctx, token, intent), name="deposit")


async def redeem_bearer(
    ctx: Context, text: str, *, opens: bool = True, invite: str | None = None
) -> KeyRef:
    """The account behind a token used as a credential; with `opens`, one never seen opens one.

    A token that topped up a key is no credential for it: whoever made the token knows it too.
    Raises TokenAlreadySpent when the token's use as a credential is over, InvalidApiKey for one
    never seen that may not open an account, InviteRequired for one that needs an invite.
    """
    token, known = await read_or_known(ctx, text, bytes_max=ctx.limits.token_header_bytes_max)
    if known is None and not opens:
        raise InvalidApiKey
    if known is not None and not (known.covers and known.opens_key):
        raise TokenAlreadySpent
    if known is not None and known.state == "credited" and known.api_key_id is not None:
        first_used_at = known.first_used_at
        if first_used_at is not None:
            age_s = (ctx.clock.now() - first_used_at).total_seconds()
            if age_s > ctx.limits.token_credential_ttl_s:
                raise TokenAlreadySpent("This token was exchanged for a key; use the key.")
        return KeyRef(id=known.api_key_id)
    code_hash = None if known is not None else await invite_hash(ctx, invite)
    key = replace(new_key(ctx), invite=code_hash)
    received = await receive(ctx, token, Intent(new_key=key, only_joins=known is not None))
    return KeyRef(id=received.api_key_id)


def new_key(ctx: Context) -> NewKey:
    """A fresh random key (SR-1): 256 bits, its text never stored in clear."""
    text = ctx.new_api_key()
    return NewKey(
        id=ctx.new_id("key"),
        hash=ctx.wallet.vault.key_hash(text),
        text=text,
        preview=preview_of(text),
    )


def preview_of(text: str) -> str:
    """What of a key's text its owner knows it by: 32 of its 256 bits, so the rest stays secret."""
    return f"{text[:7]}...{text[-4:]}"


async def check_new(ctx: Context, token: Token) -> None:
    """Raises Paused for a token never seen, while the operator lets no more money in."""
    if ctx.switches.deposits and not ctx.switches.wallet_sats_max:
        return
    async with ctx.database.reading() as connection:
        known = await find_deposit(connection, token.ys())
    if known is None:
        await check_deposits(ctx, msat_from_unit(token.amount, token.unit))


async def _receive(ctx: Context, token: Token, intent: Intent) -> Received:
    await check_new(ctx, token)
    received = await _accept_locked(ctx, token, intent)
    if received is not None:
        return received
    checked = await check_token(ctx, token)
    ctx.failpoint("deposit.checked")
    begun = await _begin(ctx, checked, intent)
    if begun.operation is not None:
        ctx.failpoint("deposit.begun")
        credited = await drive_deposit(ctx, begun.operation, begun.deposit.api_key_id)
        return _received(credited, is_first=True)
    return await _attach(ctx, begun.deposit)


async def _accept_locked(ctx: Context, token: Token, intent: Intent) -> Received | None:
    """Credit ecash that only this node can spend at once; None if its mint must be asked."""
    checked = await check_locked(ctx, token)
    if checked is None:
        return None
    ctx.failpoint("instant.checked")
    accepted = await ctx.ledger.submit(
        AcceptLocked(
            deposit=_plan(ctx, checked, intent),
            lock_key=ctx.acceptance.current,
            locktimes=checked.locktimes,
            waiting_msat_max=waiting_msat_max(ctx),
        )
    )
    ctx.failpoint("instant.accepted")
    if accepted.existing is not None:
        return await _attach(ctx, accepted.existing)
    if accepted.waiting is not None:
        redeem_soon(ctx, checked.mint.url, accepted.waiting)
    credited = accepted.credited
    return None if credited is None else _received(credited, is_first=True)


async def _begin(ctx: Context, checked: Checked, intent: Intent) -> Begun:
    plan = _plan(ctx, checked, intent)
    proofs = [ctx.acceptance.unlock(proof) for proof in checked.token.proofs]
    return await ctx.ledger.submit(replace(plan, proofs=proofs))


def _plan(ctx: Context, checked: Checked, intent: Intent) -> BeginDeposit:
    token = checked.token
    return BeginDeposit(
        deposit_id=ctx.new_id("dep"),
        target=intent.target,
        new_key=intent.new_key,
        mint_id=checked.mint.id,
        mint_url=checked.mint.url,
        unit=token.unit,
        keyset_id=checked.keyset.id,
        proofs=token.proofs,
        ys=token.ys(),
        output_amounts=split_on(checked.keyset, checked.net_amount),
        face_amount=token.amount,
        fee_amount=checked.fee_amount,
        credit_msat=msat_from_unit(checked.net_amount, token.unit),
        source=intent.source,
        owner=ctx.new_id("lease"),
        lease_s=ctx.limits.mint_lease_s,
        idempotency_key=intent.idempotency_key,
        fingerprint=intent.fingerprint,
        only_joins=intent.only_joins,
        goal=ctx.limits.float_goal(checked.keyset.keys),
    )


async def drive_deposit(
    ctx: Context, operation: Operation, api_key_id: str | None, *, may_replace: bool = True
) -> Credited:
    """Take a deposit's swap to its end. Raises what the depositor should hear.

    The caller holds the operation's lease; however this ends, the lease is given back.
    """
    priority = Priority.RECEIVE if operation.state is OperationState.PREPARED else Priority.RECOVERY
    outcome = await run_swap(ctx, operation, priority)
    match outcome:
        case Signed(proofs=proofs, ys=ys):
            ctx.failpoint("deposit.signed")
            credited = await ctx.ledger.submit(
                CreditDeposit(operation=operation, proofs=proofs, ys=ys, api_key_id=api_key_id)
            )
            ctx.failpoint("deposit.credited")
            return credited
        case Refused(stale_keyset=True) if may_replace and operation.predecessor_id is None:
            ctx.failpoint("deposit.refused")
            successor = await _replace(ctx, operation, outcome)
            ctx.failpoint("deposit.replaced")
            return await drive_deposit(ctx, successor, api_key_id, may_replace=False)
        case Refused(code=code):
            ctx.failpoint("deposit.refused")
            error = TokenRedemptionFailed(details={"mint_code": code})
            await ctx.ledger.submit(
                FailDeposit(operation=operation, code=str(code), error_code=error.code)
            )
            raise error
    if isinstance(outcome, SpentElsewhere | Doubtful) and watched_enough(ctx, operation):
        await ctx.ledger.submit(
            FailDeposit(operation=operation, code=WATCHED, error_code=TokenAlreadySpent.code)
        )
        raise TokenAlreadySpent
    await postpone(ctx, operation, outcome)
    raise _while_open(outcome, operation)


def _while_open(outcome: Open, operation: Operation) -> RoutstrError:
    """What the depositor hears of an operation that has no end yet."""
    match outcome:
        case Unknown(cause=cause):
            return unreachable(cause, deposit_id=operation.deposit_id)
        case Waiting():
            return Pending(retry_after_s=5)
        case SpentElsewhere():
            return in_doubt(operation.deposit_id, SPENT)
        case Stale():
            return in_doubt(operation.deposit_id, STALE)
        case Doubtful():
            return in_doubt(operation.deposit_id, DOUBTFUL)


def in_doubt(deposit_id: str | None, code: str | None) -> RoutstrError:
    """What the depositor hears while the mint's word is being watched."""
    details = {"deposit_id": deposit_id}
    if code == DOUBTFUL:
        return MintUnreachable(
            "The mint contradicts itself about this token; the operator was told.", details=details
        )
    if code == STALE:
        return Pending(
            "The mint changed its keys meanwhile; repeat this in a minute.",
            details=details,
            retry_after_s=int(STALE_AGAIN_S),
        )
    return TokenAlreadySpent()


async def _replace(ctx: Context, operation: Operation, refused: Refused) -> Operation:
    """The same inputs on the mint's keysets of now (NUT-02 rotation, or another fee).

    The refusal stands whatever comes of this: without a successor the token is the user's again.
    """
    code = str(refused.code)
    try:
        successor = await _successor(ctx, operation, code)
    except RoutstrError as error:
        await ctx.ledger.submit(FailDeposit(operation=operation, code=code, error_code=error.code))
        raise
    return await ctx.ledger.submit(successor)


async def _successor(ctx: Context, operation: Operation, code: str) -> ReplaceDepositOperation:
    mint = await known_mint(ctx, operation.mint_url, since_s=ctx.monotonic_s())
    used = await shown_keyset(ctx, operation.mint_url, operation.outputs[0].keyset_id)
    keyset = active_keyset(mint.keysets, used.unit, ctx.clock.now())
    inputs = operation.inputs
    face_amount = sum(int(str(proof["amount"])) for proof in inputs)
    fee_amount = fee(fees_ppk(mint.keysets, [str(proof["id"]) for proof in inputs]))
    net_amount = face_amount - fee_amount
    if net_amount < 1:
        raise SwapFeesExceedAmount
    return ReplaceDepositOperation(
        operation=operation,
        code=code,
        keyset_id=keyset.id,
        output_amounts=split_on(keyset, net_amount),
        face_amount=face_amount,
        fee_amount=fee_amount,
        credit_msat=msat_from_unit(net_amount, keyset.unit),
        owner=ctx.new_id("lease"),
        lease_s=ctx.limits.mint_lease_s,
    )


async def _attach(ctx: Context, deposit: DepositView) -> Received:
    """Join a deposit somebody began with this token: drive it if nobody does, else wait."""
    if deposit.state == "pending" and deposit.operation_state is not OperationState.WATCH:
        claimed = await ctx.ledger.submit(
            Claim(
                owner=ctx.new_id("lease"),
                lease_s=ctx.limits.mint_lease_s,
                operation_id=deposit.operation_id,
            )
        )
        if claimed:
            credited = await drive_deposit(ctx, claimed[0], deposit.api_key_id)
            return _received(credited, is_first=True)
    return await _wait(ctx, deposit.id)


async def _wait(ctx: Context, deposit_id: str) -> Received:
    """Watch somebody else's deposit until it ends, or nobody drives it, or patience is over."""
    deadline_s = ctx.monotonic_s() + ctx.limits.operation_wait_s
    while True:
        async with ctx.database.reading() as connection:
            progress = await deposit_progress(connection, deposit_id, ctx.clock.now())
        if progress.state == "credited" and progress.api_key_id is not None:
            return Received(
                deposit_id=deposit_id,
                api_key_id=progress.api_key_id,
                credit_msat=progress.credit_msat,
                available_msat=progress.available_msat,
                is_first=False,
            )
        if progress.state == "failed":
            raise TokenRedemptionFailed
        if progress.is_in_doubt:
            raise in_doubt(deposit_id, progress.last_code)
        if not progress.is_driven:
            raise MintUnreachable(details={"deposit_id": deposit_id})
        if ctx.monotonic_s() >= deadline_s:
            raise Pending(retry_after_s=5, details={"deposit_id": deposit_id})
        await ctx.clock.sleep(POLL_S)


def _received(credited: Credited, *, is_first: bool) -> Received:
    return Received(
        deposit_id=credited.deposit_id,
        api_key_id=credited.api_key_id,
        credit_msat=credited.credit_msat,
        available_msat=credited.available_msat,
        is_first=is_first,
    )
