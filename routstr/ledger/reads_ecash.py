"""Reading ecash: deposits by their Ys, mints and keysets as last seen, operations that are due."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal

from sqlalchemy import ColumnElement, and_, bindparam, func, or_, select

from routstr.ecash.proof import Keyset
from routstr.ledger.connection import LedgerConnection
from routstr.ledger.engine import ReadConnection
from routstr.ledger.sagas import (
    IS_OPEN,
    KEYSET,
    MINT,
    OPEN_STATES,
    OPERATION,
    PROOF,
    OperationState,
)
from routstr.ledger.tables import ONE_SHOT, ApiKey, Deposit, DepositInput, Withdrawal, table_of

KEY = table_of(ApiKey)
DEPOSIT = table_of(Deposit)
INPUT = table_of(DepositInput)
WITHDRAWAL = table_of(Withdrawal)

YS_MAX: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownDeposit:
    """The deposit a token's Ys belong to. `covers` tells whether it is exactly that set of Ys.

    `opens_key` tells whether it made its key, so that the token stands for it, or topped one up.
    `one_shot_id` is the account of a payment for one request, open already or not.
    """

    id: str
    state: Literal["pending", "credited", "failed"]
    api_key_id: str | None
    covers: bool
    opens_key: bool
    one_shot_id: str | None
    sealed_key: str | None = field(repr=False)
    credited_at: datetime | None
    first_used_at: datetime | None
    idempotency_key: str | None
    fingerprint: str | None


# Made once: making it costs more than running it.
OF_YS: Final = (
    select(DEPOSIT, KEY.c.first_used_at)
    .outerjoin(KEY, KEY.c.id == DEPOSIT.c.api_key_id)
    .where(
        DEPOSIT.c.id.in_(
            select(INPUT.c.deposit_id).where(INPUT.c.y.in_(bindparam("ys", expanding=True)))
        )
    )
    .limit(2)
)


async def find_deposit(connection: LedgerConnection, ys: Sequence[str]) -> KnownDeposit | None:
    """The deposit that used any of those Ys, if one did."""
    rows = (await connection.execute(OF_YS, {"ys": ys})).all()
    if not rows:
        return None
    row = rows[0]
    inputs = await connection.execute(select(INPUT.c.y).where(INPUT.c.deposit_id == row.id))
    used = set(inputs.scalars())
    return KnownDeposit(
        id=row.id,
        state=row.state,
        api_key_id=row.api_key_id,
        covers=len(rows) == 1 and used == set(ys),
        opens_key=row.new_key is not None and row.source != ONE_SHOT,
        one_shot_id=str(row.new_key["id"]) if row.source == ONE_SHOT else None,
        sealed_key=row.sealed_key,
        credited_at=row.credited_at,
        first_used_at=row.first_used_at,
        idempotency_key=row.idempotency_key,
        fingerprint=row.fingerprint,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DepositProgress:
    """How far a deposit has come. `is_driven`: somebody holds its operation's lease.

    `last_code` is why its operation is open; while `is_in_doubt` the mint's word is being watched.
    """

    state: Literal["pending", "credited", "failed"]
    api_key_id: str | None
    credit_msat: int
    available_msat: int
    error_code: str | None
    is_driven: bool
    is_in_doubt: bool
    last_code: str | None


async def deposit_progress(
    connection: ReadConnection, deposit_id: str, now: datetime
) -> DepositProgress:
    """The deposit, its key's money and its newest operation, as of now."""
    row = (
        await connection.execute(
            select(
                DEPOSIT,
                KEY.c.balance,
                KEY.c.reserved,
                OPERATION.c.state.label("operation_state"),
                OPERATION.c.lease_until,
                OPERATION.c.last_code,
            )
            .outerjoin(KEY, KEY.c.id == DEPOSIT.c.api_key_id)
            .outerjoin(OPERATION, OPERATION.c.deposit_id == DEPOSIT.c.id)
            .where(DEPOSIT.c.id == deposit_id)
            .order_by(OPERATION.c.created_at.desc())
            .limit(1)
        )
    ).one()
    return DepositProgress(
        state=row.state,
        api_key_id=row.api_key_id,
        credit_msat=row.credit_msat,
        available_msat=0 if row.balance is None else row.balance - row.reserved,
        error_code=row.error_code,
        is_driven=row.lease_until is not None and row.lease_until > now,
        is_in_doubt=row.operation_state == OperationState.WATCH,
        last_code=row.last_code,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class MintRow:
    """A mint and its keysets as last seen, and when and what NUTs it announced then."""

    id: str
    url: str
    keysets: tuple[Keyset, ...]
    nuts: frozenset[int] = frozenset()
    answered_at: datetime | None = None


async def find_mint(connection: ReadConnection, url: str) -> MintRow | None:
    """The mint of that canonical URL, if it was ever reached."""
    rows = (
        await connection.execute(
            select(KEYSET, MINT.c.url, MINT.c.nuts, MINT.c.answered_at)
            .join(MINT, MINT.c.id == KEYSET.c.mint_id)
            .where(MINT.c.url == url)
        )
    ).all()
    if not rows:
        return None
    keysets = tuple(
        Keyset(
            id=row.id,
            unit=row.unit,
            active=row.active,
            input_fee_ppk=row.input_fee_ppk,
            final_expiry=row.final_expiry,
            keys={int(amount): key for amount, key in row.keys.items()},
        )
        for row in rows
    )
    return MintRow(
        id=rows[0].mint_id,
        url=url,
        keysets=keysets,
        nuts=frozenset(rows[0].nuts or ()),
        answered_at=rows[0].answered_at,
    )


async def mints_with_due_operations(connection: ReadConnection, now: datetime) -> list[str]:
    """The ids of the mints where operations wait to be driven; a look before taking leases."""
    due = (
        select(OPERATION.c.mint_id)
        .where(IS_OPEN, OPERATION.c.next_attempt_at <= now, _free(now))
        .distinct()
    )
    return list(await connection.scalars(due.order_by(OPERATION.c.mint_id)))


async def is_free(connection: ReadConnection, operation_id: str | None, now: datetime) -> bool:
    """Whether an operation is open and nobody holds its lease."""
    free = select(OPERATION.c.id).where(
        OPERATION.c.id == operation_id, OPERATION.c.state.in_(OPEN_STATES), _free(now)
    )
    return (await connection.scalar(free)) is not None


def _free(now: datetime) -> ColumnElement[bool]:
    return or_(OPERATION.c.lease_until.is_(None), OPERATION.c.lease_until < now)


async def proof_ys(
    connection: ReadConnection, *, withdrawal_id: str, limit: int = YS_MAX
) -> list[str]:
    """The Ys of the proofs a withdrawal gave out."""
    rows = await connection.scalars(
        select(PROOF.c.y).where(PROOF.c.withdrawal_id == withdrawal_id).limit(limit)
    )
    return list(rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedProof:
    """Locked ecash that waits to be redeemed; amount in the unit of its keyset."""

    y: str
    deposit_id: str
    keyset_id: str
    unit: str
    amount: int
    locktime: int | None


async def locked_proofs(
    connection: ReadConnection, mint_url: str, *, limit: int
) -> list[LockedProof]:
    """What is locked at a mint and in no operation, deposit by deposit.

    The deposit with the earliest locktime comes first; the last one may be cut by the limit.
    """
    earliest = func.min(PROOF.c.locktime).over(partition_by=INPUT.c.deposit_id)
    rows = await connection.execute(
        select(
            PROOF.c.y,
            INPUT.c.deposit_id,
            PROOF.c.keyset_id,
            KEYSET.c.unit,
            PROOF.c.amount,
            PROOF.c.locktime,
        )
        .join(KEYSET, KEYSET.c.id == PROOF.c.keyset_id)
        .join(MINT, MINT.c.id == KEYSET.c.mint_id)
        .join(INPUT, INPUT.c.y == PROOF.c.y)
        .where(MINT.c.url == mint_url, PROOF.c.lock_key.is_not(None), PROOF.c.state == "locked")
        .order_by(earliest.is_(None), earliest, INPUT.c.deposit_id, PROOF.c.y)
        .limit(limit)
    )
    return [
        LockedProof(
            y=row.y,
            deposit_id=row.deposit_id,
            keyset_id=row.keyset_id,
            unit=row.unit,
            amount=row.amount,
            locktime=row.locktime,
        )
        for row in rows
    ]


async def deposit_owner(connection: ReadConnection, deposit_id: str) -> str | None:
    """The key a deposit is for; None while the key is yet to be opened."""
    owner = await connection.scalar(select(DEPOSIT.c.api_key_id).where(DEPOSIT.c.id == deposit_id))
    return None if owner is None else str(owner)


async def withdrawal_owner(connection: ReadConnection, withdrawal_id: str) -> str:
    """The key a withdrawal was debited from."""
    owner = await connection.scalar(
        select(WITHDRAWAL.c.api_key_id).where(WITHDRAWAL.c.id == withdrawal_id)
    )
    assert owner is not None
    return str(owner)


async def find_successor(connection: ReadConnection, operation_id: str) -> str | None:
    """The open operation that follows that one, if there is one."""
    found = await connection.scalar(
        select(OPERATION.c.id).where(
            OPERATION.c.predecessor_id == operation_id, OPERATION.c.state.in_(OPEN_STATES)
        )
    )
    return None if found is None else str(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownPayment:
    """A withdrawal that was begun before; `fingerprint` is that of its request."""

    id: str
    is_same_key: bool
    fingerprint: str | None


async def find_payment(
    connection: ReadConnection,
    key_id: str,
    *,
    idempotency_key: str | None,
    payment_hash: str | None,
) -> KnownPayment | None:
    """What this key began with that Idempotency-Key, else its payment of that invoice, if any."""
    is_paid = WITHDRAWAL.c.status.in_(("pending", "completed"))
    rows = await connection.execute(
        select(WITHDRAWAL.c.id, WITHDRAWAL.c.idempotency_key, WITHDRAWAL.c.fingerprint)
        .where(WITHDRAWAL.c.api_key_id == key_id)
        .where(
            or_(
                WITHDRAWAL.c.idempotency_key == (idempotency_key or ""),
                and_(WITHDRAWAL.c.payment_hash == (payment_hash or ""), is_paid),
            )
        )
        .limit(2)
    )
    found = [
        KnownPayment(
            id=row.id,
            is_same_key=idempotency_key is not None and row.idempotency_key == idempotency_key,
            fingerprint=row.fingerprint,
        )
        for row in rows
    ]
    return max(found, key=lambda each: each.is_same_key, default=None)
