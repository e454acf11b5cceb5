"""One Lightning payment at a mint, from the committed intent to a definite end. Algorithm C.

Laws: a melt is posted once, never again, whatever happens: a second try would really run. What is
true if the process dies: before `sent` is committed nothing was posted; after it the mint may be
paying, so money comes back only on a definite no, or after the inputs were swapped to ourselves
(`poison.py`). What the mint calls pending is waited for without end.

A no is definite if it answers our only POST, or if the mint had accepted that POST and now says the
payment failed: in both cases no copy of it can be on its way. That fact is kept as `last_code`.
"""

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Final

import structlog

from routstr.core.money import unit_from_msat
from routstr.ecash.bdhke import y_of
from routstr.ecash.errors import BadSignature
from routstr.ecash.outputs import Output, unblind_change
from routstr.ecash.proof import BlindSignature, Proof
from routstr.errors import RefundPending, UntrustedMint
from routstr.flows.context import Context
from routstr.flows.mints import shown_keyset
from routstr.flows.poison import begin_poison, drive_successor
from routstr.flows.refunds import read_payment
from routstr.flows.swap import backoff_s
from routstr.gateways.mint_failure import MintFailure, MintRefused, MintUnknown, Refusal
from routstr.gateways.mint_limits import Priority
from routstr.gateways.mint_quotes import MeltQuote, QuoteState
from routstr.gateways.mint_wire import ProofState
from routstr.ledger.issued import WithdrawalView
from routstr.ledger.leases import Postpone, SendOnce
from routstr.ledger.melts import FailMelt, FinishMelt
from routstr.ledger.sagas import Operation, OperationState

log = structlog.get_logger()

ACCEPTED: Final = "accepted"
REFUSED: Final = "refused"
UNSENT: Final = "unsent"
SPENT: Final = "spent"
CHANGE: Final = "change"
NO_CHANGE: Final = "no_change"
NO_CHANGE_S: Final = 15.0  # so long change may be missing before the mint is taken to keep it
SETTLED: Final = frozenset({ACCEPTED, REFUSED})

Answer = MeltQuote | MintFailure | UntrustedMint


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What the mint says: the quote, None if it knows none, and the states of the inputs.

    `spent` names those that are.
    """

    quote: MeltQuote | None
    states: Set[ProofState]
    spent: tuple[str, ...] = ()

    @property
    def is_under_way(self) -> bool:
        """PENDING anywhere, or a preimage: the payment runs, or ran."""
        if ProofState.PENDING in self.states:
            return True
        quote = self.quote
        return quote is not None and (
            quote.state is QuoteState.PENDING or quote.preimage is not None
        )


async def drive_melt(ctx: Context, operation: Operation, api_key_id: str) -> WithdrawalView:
    """Take a payment as far as the mint's answers allow; the caller holds its lease.

    A view that is pending means that the mint has the payment under way. Raises RefundPending
    while the outcome is unknown, and Pending when another process took the operation over.
    """
    assert operation.withdrawal_id is not None, "a melt pays out a withdrawal"
    view = await read_payment(ctx, api_key_id, operation.withdrawal_id)
    if view.status != "pending":  # its poison ended it since it was claimed
        return view
    after = await drive_successor(ctx, operation, api_key_id)
    if after is not None:
        return await _handed_over(ctx, operation, after)
    if operation.state is not OperationState.PREPARED:
        return await _examine(ctx, operation, api_key_id, operation.last_code)
    answer = await _post_once(ctx, operation)
    if isinstance(answer, MeltQuote):
        if answer.state is QuoteState.PENDING:
            return await _wait(ctx, operation, api_key_id, ACCEPTED)
        if answer.state is QuoteState.PAID:
            return await _finish(ctx, operation, api_key_id, answer)
        return await _examine(ctx, operation, api_key_id, None)
    if isinstance(answer, UntrustedMint) or (
        isinstance(answer, MintUnknown) and not answer.was_sent
    ):  # not a byte of it left, so nothing can have happened
        return await _fail(ctx, operation, api_key_id, UNSENT)
    is_no = isinstance(answer, MintRefused) and _is_definite(answer.refusal)
    return await _examine(ctx, operation, api_key_id, REFUSED if is_no else None, answer)


def _is_definite(refusal: Refusal) -> bool:
    """Does this answer to the only POST say that the payment will not run?

    QUOTE_PAID is, where the quote turns out not to be paid; one that is ends as a payment.
    """
    return refusal.is_safe or refusal in {Refusal.PAYMENT_FAILED, Refusal.QUOTE_PAID}


async def _post_once(ctx: Context, operation: Operation) -> Answer:
    """The only POST. Its lease outlasts every wait on the way."""
    ctx.failpoint("melt.prepared")
    await ctx.ledger.submit(
        SendOnce(
            operation_id=operation.id,
            owner=operation.lease_owner or ctx.owner,
            lease_s=2 * ctx.limits.mint_lease_s + ctx.limits.melt_timeout_s,
        )
    )
    ctx.failpoint("melt.sent")
    answer: Answer
    try:
        answer = await ctx.mints.melt(
            operation.mint_url, operation.body, total_s=ctx.limits.melt_timeout_s
        )
    except (MintFailure, UntrustedMint) as error:
        answer = error
    ctx.failpoint("melt.answered")
    return answer


async def _examine(
    ctx: Context,
    operation: Operation,
    api_key_id: str,
    known: str | None,
    cause: Answer | None = None,
) -> WithdrawalView:
    """Ask for the quote and the inputs, and conclude; `known` is what settles that no POST flies.

    `cause` is the answer to the POST, if it was not a quote.
    """
    settled = known if known in SETTLED else None
    try:
        standing = await _ask(ctx, operation)
    except (MintFailure, UntrustedMint) as error:
        return await _unknown(ctx, operation, api_key_id, settled or type(cause or error).__name__)
    quote = standing.quote
    if quote is not None and quote.state is QuoteState.PAID:
        return await _finish(ctx, operation, api_key_id, quote)
    if standing.is_under_way:
        is_pending = quote is not None and quote.state is QuoteState.PENDING
        return await _wait(ctx, operation, api_key_id, ACCEPTED if is_pending else settled)
    if standing.spent and operation.is_from_copy and quote is not None:
        # It was refused in the life after the copy, and its inputs went elsewhere.
        return await _fail(ctx, operation, api_key_id, SPENT, lost=standing.spent)
    if standing.states != {ProofState.UNSPENT}:
        log.error("melt_in_doubt", operation_id=operation.id, reason="spent, and not paid for it")
        return await _watch(ctx, operation, SPENT)
    if settled == REFUSED or (settled == ACCEPTED and quote is not None):
        return await _fail(ctx, operation, api_key_id, _code_of(cause) or settled)
    return await _poison(ctx, operation, api_key_id)


async def _ask(ctx: Context, operation: Operation) -> Standing:
    """The quote first: inputs that are unspent after it was unpaid were not taken in between."""
    url, quote_id = operation.mint_url, operation.quote_id
    assert quote_id is not None, "a melt has a quote"
    quote: MeltQuote | None = None
    try:
        quote = await ctx.mints.melt_quote(url, quote_id, priority=_priority(operation))
    except MintRefused:
        log.info("melt_quote_unknown", operation_id=operation.id)
    ys = [y_of(str(proof["secret"])) for proof in operation.inputs]
    states = await ctx.mints.check_state(url, ys, priority=_priority(operation))
    spent = tuple(y for y in ys if states[y] is ProofState.SPENT)
    return Standing(quote=quote, states=frozenset(states.values()), spent=spent)


def _priority(operation: Operation) -> Priority:
    is_watched = operation.state is OperationState.WATCH
    return Priority.FLOAT if is_watched else Priority.RECOVERY


def _code_of(cause: Answer | None) -> str | None:
    return str(cause.code) if isinstance(cause, MintRefused) else None


# ── the ends ──────────────────────────────────────────────────────────────────────────────────


async def _finish(
    ctx: Context, operation: Operation, api_key_id: str, quote: MeltQuote
) -> WithdrawalView:
    """Paid: take the change and book it. Change that does not verify is watched for a day."""
    assert operation.withdrawal_id is not None, "a melt pays out a withdrawal"
    view = await read_payment(ctx, api_key_id, operation.withdrawal_id)
    if view.status != "pending":
        return view
    amount = unit_from_msat(view.amount_msat, operation.unit)
    overpaid = operation.input_amount - amount
    try:
        change = await _change(ctx, operation, quote, change_max=overpaid)
    except (MintFailure, UntrustedMint) as error:
        return await _unknown(ctx, operation, api_key_id, type(error).__name__)
    except BadSignature as error:
        log.error("mint_signed_wrongly", operation_id=operation.id, reason=str(error))
        if operation.watch_until is None or ctx.clock.now() < operation.watch_until:
            return await _watch(ctx, operation, CHANGE)
        log.error("melt_change_lost", operation_id=operation.id)  # the operator bears it
        change = ()
    kept = overpaid - sum(proof.amount for proof in change)
    is_short = not change or kept > operation.fee_amount
    if operation.outputs and is_short and _may_come(ctx, operation):
        await _postpone(ctx, operation, OperationState.SENT, NO_CHANGE)
        raise _pending(operation)
    ctx.failpoint("melt.paid")
    view = await ctx.ledger.submit(
        FinishMelt(
            operation=operation,
            api_key_id=api_key_id,
            change=change,
            ys=tuple(y_of(proof.secret) for proof in change),
            preimage=quote.preimage,
        )
    )
    ctx.failpoint("melt.finished")
    return view


def _may_come(ctx: Context, operation: Operation) -> bool:
    """Whether what is missing of the change may yet come.

    A mint can call a melt paid before it has signed the change, and after `_finish` nobody asks
    for that any more.
    """
    if operation.state is OperationState.WATCH:
        return False
    if operation.last_code != NO_CHANGE or operation.watch_until is None:
        return True
    return ctx.clock.now() < operation.watch_until


async def _change(
    ctx: Context, operation: Operation, quote: MeltQuote, *, change_max: int
) -> tuple[Proof, ...]:
    """What was overpaid: as the quote brings it, else as the mint remembers it (NUT-08, NUT-09).

    Raises BadSignature when neither verifies, and what asking the mint raises.
    """
    blanks = operation.outputs
    if not blanks:
        return ()
    if quote.change:
        try:
            return await _unblind(ctx, operation, blanks, quote.change, change_max)
        except BadSignature as error:
            log.warning("melt_change_odd", operation_id=operation.id, reason=str(error))
    messages = [blank.message() for blank in blanks]
    found = await ctx.mints.restore(operation.mint_url, messages, priority=_priority(operation))
    signed = [blank for blank in blanks if blank.b_ in found]
    if quote.change and not signed:
        raise BadSignature("the mint's change does not verify")
    return await _unblind(ctx, operation, signed, [found[each.b_] for each in signed], change_max)


async def _unblind(
    ctx: Context,
    operation: Operation,
    blanks: Sequence[Output],
    signatures: Sequence[BlindSignature],
    change_max: int,
) -> tuple[Proof, ...]:
    keyset = await shown_keyset(ctx, operation.mint_url, operation.outputs[0].keyset_id)
    change = unblind_change(blanks, signatures, keyset, require_dleq=True)
    if sum(proof.amount for proof in change) > change_max:
        raise BadSignature("the mint gives back more than was overpaid")
    return change


async def _fail(
    ctx: Context, operation: Operation, api_key_id: str, code: str, *, lost: Sequence[str] = ()
) -> WithdrawalView:
    """A definite no: everything is as if never begun, but for coins that were spent elsewhere."""
    ctx.failpoint("melt.refused")
    view = await ctx.ledger.submit(
        FailMelt(operation=operation, api_key_id=api_key_id, code=code, lost=lost)
    )
    ctx.failpoint("melt.failed")
    return view


async def _poison(ctx: Context, operation: Operation, api_key_id: str) -> WithdrawalView:
    """Nobody can tell whether our POST still comes: make it impossible, then give back."""
    view = await begin_poison(ctx, operation, api_key_id)
    if view is None:
        return await _unknown(ctx, operation, api_key_id, "unpoisoned")
    return await _handed_over(ctx, operation, view)


# ── not the end yet ───────────────────────────────────────────────────────────────────────────


async def _handed_over(ctx: Context, operation: Operation, view: WithdrawalView) -> WithdrawalView:
    """What the poison came to; while that is open, so is the melt. Raises RefundPending."""
    if view.status != "pending":
        return view
    await _postpone(ctx, operation, OperationState.WAITING, "poison")
    raise _pending(operation)


async def _wait(
    ctx: Context, operation: Operation, api_key_id: str, code: str | None
) -> WithdrawalView:
    """The mint has it under way: wait, without end."""
    await _postpone(ctx, operation, OperationState.WAITING, code or "pending")
    ctx.failpoint("melt.waiting")
    assert operation.withdrawal_id is not None
    return await read_payment(ctx, api_key_id, operation.withdrawal_id)


async def _unknown(
    ctx: Context, operation: Operation, api_key_id: str, code: str
) -> WithdrawalView:
    """No usable answer: what was known stays known. Raises RefundPending unless it was waiting."""
    if operation.state is not OperationState.WAITING:
        await _postpone(ctx, operation, OperationState.SENT, code)
        raise _pending(operation)
    await _postpone(ctx, operation, OperationState.WAITING, operation.last_code or code)
    assert operation.withdrawal_id is not None
    return await read_payment(ctx, api_key_id, operation.withdrawal_id)


async def _watch(ctx: Context, operation: Operation, code: str) -> WithdrawalView:
    """The mint contradicts itself: look again for a day. Raises RefundPending."""
    await _postpone(ctx, operation, OperationState.WATCH, code)
    raise _pending(operation)


def _pending(operation: Operation) -> RefundPending:
    return RefundPending(details={"refund_id": operation.withdrawal_id}, retry_after_s=5)


async def _postpone(ctx: Context, operation: Operation, state: OperationState, code: str) -> None:
    """Give it back, to be looked at again; what is watched stays so."""
    is_watched = operation.state is OperationState.WATCH
    watch_s = None
    if code == NO_CHANGE and operation.last_code != NO_CHANGE:
        watch_s = NO_CHANGE_S
    elif state is OperationState.WATCH and not is_watched:
        watch_s = ctx.limits.mint_watch_s
    await ctx.ledger.submit(
        Postpone(
            operation_id=operation.id,
            owner=operation.lease_owner or ctx.owner,
            state=OperationState.WATCH if is_watched else state,
            wait_s=backoff_s(operation, state),
            code=code,
            watch_s=watch_s,
        )
    )
