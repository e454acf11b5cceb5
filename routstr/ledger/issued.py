"""A withdrawal as it stands: found again, debited, ended; its token sealed and opened."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from typing import Any, Final, Literal

from sqlalchemy import Select, and_, bindparam, func, insert, select, text, update

from routstr.core.money import msat_from_unit
from routstr.ecash.proof import Proof
from routstr.ecash.token import Token, encode_token_v4
from routstr.errors import IdempotencyMismatch, Paused
from routstr.ledger.book import Account
from routstr.ledger.commands import LostRace, Transaction
from routstr.ledger.sagas import OPERATION, Operation, OperationState, load_operation
from routstr.ledger.tables import Withdrawal, table_of

WITHDRAWAL = table_of(Withdrawal)
NEW_WITHDRAWAL: Final = insert(WITHDRAWAL)

HOUR: Final = timedelta(hours=1)
HOUR_AGAIN_S: Final = 300
HOUR_LOCK: Final = text("SELECT pg_advisory_xact_lock(7235413)")
NOT_CHANGE: Final = text("NOT withdrawal.is_change")  # to the letter as the index has it
LEFT: Final = WITHDRAWAL.c.amount + WITHDRAWAL.c.fee_amount - WITHDRAWAL.c.fee_returned

WithdrawalStatus = Literal["pending", "completed", "failed", "claimed", "reclaimed"]
Way = Literal["token", "lightning"]
TOKEN_PLACE: Final[Mapping[str, str]] = {"table": "withdrawal", "column": "token"}
RECIPIENT_PLACE: Final[Mapping[str, str]] = {"table": "withdrawal", "column": "recipient"}


@dataclass(frozen=True, slots=True, kw_only=True)
class WithdrawalView:
    """A withdrawal as it stands.

    `amount_msat` is the token's face value, or what the `recipient` of a payment gets; `fee_msat`
    is what it costs beside that, and once a payment is made what it cost.
    """

    id: str
    api_key_id: str
    status: WithdrawalStatus
    amount_msat: int
    fee_msat: int
    unit: str
    mint_url: str
    token: str | None = field(repr=False)
    error_message: str | None
    available_msat: int
    way: Way = "token"
    recipient: str | None = field(default=None, repr=False)
    is_replay: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawing:
    """What became of an intent: the withdrawal, and the operation to drive if it needs one."""

    withdrawal: WithdrawalView
    operation: Operation | None
    is_replay: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Debit:
    """A withdrawal about to be written; `amount` and `fee_amount` in the unit."""

    withdrawal_id: str
    way: Way
    amount: int
    fee_amount: int
    unit: str
    mint_url: str
    status: WithdrawalStatus
    sealed_token: str | None = field(default=None, repr=False)
    recipient: str | None = field(default=None, repr=False)
    payment_hash: str | None = None
    idempotency_key: str | None = None
    fingerprint: str | None = None
    is_change: bool = False
    hourly_msat_max: int = 0


async def post_debit(transaction: Transaction, account: Account, debit: Debit) -> Account:
    """Write the withdrawal's row, and what it takes from the balance: the amount, and the fee.

    Raises Paused when more would leave within an hour than `hourly_msat_max`, if that is not 0.
    """
    amount_msat = msat_from_unit(debit.amount, debit.unit)
    fee_msat = msat_from_unit(debit.fee_amount, debit.unit)
    if debit.hourly_msat_max and not debit.is_change:
        await _check_hour(transaction, amount_msat + fee_msat, debit.hourly_msat_max)
    now = transaction.book.now
    recipient = None
    if debit.recipient is not None:
        recipient = transaction.wallet.vault.seal(
            debit.recipient, **RECIPIENT_PLACE, row_id=debit.withdrawal_id
        )
    await transaction.connection.execute(
        NEW_WITHDRAWAL,
        {
            "id": debit.withdrawal_id,
            "api_key_id": account.id,
            "way": debit.way,
            "amount": amount_msat,
            "fee_amount": fee_msat,
            "token": debit.sealed_token,
            "recipient": recipient,
            "payment_hash": debit.payment_hash,
            "mint_url": debit.mint_url,
            "unit": debit.unit,
            "status": debit.status,
            "created_at": now,
            "completed_at": now if debit.status == "completed" else None,
            "retry_count": 0,
            "idempotency_key": debit.idempotency_key,
            "fingerprint": debit.fingerprint,
            "is_change": debit.is_change,
        },
    )
    post = transaction.book.post
    account = post(account, -amount_msat, "withdrawal", f"withdrawal:{debit.withdrawal_id}")
    if fee_msat:
        fee = "Mint fee" if debit.way == "token" else "Lightning fee, the most it can be"
        account = post(
            account, -fee_msat, "fee", f"withdrawal-fee:{debit.withdrawal_id}", description=fee
        )
    return account


async def lock_hour(transaction: Transaction, hourly_msat_max: int) -> None:
    """Let no two processes use the same room of an hour; before coins are drawn, as all do.

    SQLite has one writer.
    """
    if hourly_msat_max and transaction.dialect == "postgresql":
        await transaction.connection.execute(HOUR_LOCK)


async def _check_hour(transaction: Transaction, more_msat: int, most_msat: int) -> None:
    """Raises Paused when the hour has no room for that.

    Change of requests does not count, nor what came back.
    """
    since = transaction.book.now - HOUR
    gone_msat = await transaction.connection.scalar(
        select(func.coalesce(func.sum(LEFT), 0)).where(
            NOT_CHANGE,
            WITHDRAWAL.c.created_at > since,
            WITHDRAWAL.c.status.not_in(("failed", "reclaimed")),
        )
    )
    if int(gone_msat or 0) + more_msat > most_msat:
        raise Paused(
            "As much has left this node in the last hour as its operator allows; your balance is"
            " safe. Try again later, or with less.",
            retry_after_s=HOUR_AGAIN_S,
        )


async def existing_withdrawal(
    transaction: Transaction,
    account: Account,
    *,
    withdrawal_id: str,
    idempotency_key: str | None,
    fingerprint: str | None,
    payment_hash: str | None = None,
) -> Withdrawing | None:
    """The withdrawal there is: of the idempotency key, of an invoice that is or was paid, or of
    this very command, its COMMIT's answer lost; then its operation is still to be driven.

    Raises IdempotencyMismatch.
    """
    given = {"account_id": account.id, "withdrawal_id": withdrawal_id}
    names = {"idempotency_key": idempotency_key, "payment_hash": payment_hash}
    given |= {name: value for name, value in names.items() if value is not None}
    finding = _finding(with_key=idempotency_key is not None, with_payment=payment_hash is not None)
    row = (await transaction.connection.execute(finding, given)).first()
    if row is None:
        return None
    is_same_key = idempotency_key is not None and row.idempotency_key == idempotency_key
    if is_same_key and row.fingerprint != fingerprint:
        raise IdempotencyMismatch
    is_replay = row.id != withdrawal_id or row.state not in {None, OperationState.PREPARED}
    operation = None
    if row.driven_id is not None and not is_replay:
        operation = await load_operation(transaction.connection, transaction.wallet, row.driven_id)
    view = await view_withdrawal(transaction, row.id, account)
    return Withdrawing(withdrawal=view, operation=operation, is_replay=is_replay)


@cache
def _finding(*, with_key: bool, with_payment: bool) -> Select[Any]:
    """Made once for each way to ask: making a statement costs more than running it."""
    wanted = WITHDRAWAL.c.id == bindparam("withdrawal_id")
    if with_key:
        wanted |= WITHDRAWAL.c.idempotency_key == bindparam("idempotency_key")
    if with_payment:
        is_paid = WITHDRAWAL.c.status.in_(("pending", "completed"))
        wanted |= and_(WITHDRAWAL.c.payment_hash == bindparam("payment_hash"), is_paid)
    return (
        select(WITHDRAWAL, OPERATION.c.id.label("driven_id"), OPERATION.c.state)
        .outerjoin(
            OPERATION,
            (OPERATION.c.withdrawal_id == WITHDRAWAL.c.id)
            & (OPERATION.c.kind != "receive"),  # one of these takes a token back
        )
        .where(WITHDRAWAL.c.api_key_id == bindparam("account_id"), wanted)
        .order_by(OPERATION.c.created_at)
    )


async def finish_withdrawal(
    transaction: Transaction, withdrawal_id: str, values: Mapping[str, object]
) -> None:
    """End a pending one with those values. Raises LostRace when it is not pending any more."""
    ended = await transaction.connection.execute(
        update(WITHDRAWAL)
        .where(WITHDRAWAL.c.id == withdrawal_id, WITHDRAWAL.c.status == "pending")
        .values(completed_at=transaction.book.now, **values)
    )
    if ended.rowcount != 1:
        raise LostRace


def token_of(mint_url: str, unit: str, proofs: Sequence[Proof]) -> str:
    """The token of those proofs, DLEQs included."""
    ordered = tuple(sorted(proofs, key=lambda proof: proof.amount))
    token = Token(mint_url=mint_url, unit=unit, proofs=ordered, memo=None)
    return encode_token_v4(token, include_dleq=True)


def seal_token(transaction: Transaction, withdrawal_id: str, token: str) -> str:
    """The token sealed for its withdrawal's row."""
    return transaction.wallet.vault.seal(token, **TOKEN_PLACE, row_id=withdrawal_id)


async def view_withdrawal(
    transaction: Transaction, withdrawal_id: str, account: Account
) -> WithdrawalView:
    """The withdrawal with its token opened."""
    row = (
        await transaction.connection.execute(
            select(WITHDRAWAL).where(WITHDRAWAL.c.id == withdrawal_id)
        )
    ).one()
    token = None
    if row.token is not None:
        token = transaction.wallet.vault.open(row.token, **TOKEN_PLACE, row_id=row.id)
    recipient = None
    if row.recipient is not None:
        recipient = transaction.wallet.vault.open(row.recipient, **RECIPIENT_PLACE, row_id=row.id)
    return WithdrawalView(
        id=row.id,
        api_key_id=row.api_key_id,
        status=row.status,
        amount_msat=row.amount,
        fee_msat=row.fee_amount - row.fee_returned,
        unit=row.unit,
        mint_url=row.mint_url,
        token=token,
        error_message=row.error_message,
        available_msat=account.available_msat,
        way=row.way,
        recipient=recipient,
    )
