"""The window everybody may read through: no statement here writes, and every list is limited."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal

from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    Table,
    and_,
    bindparam,
    case,
    exists,
    func,
    literal,
    select,
    union_all,
)

from routstr.core.cap import Cap
from routstr.ledger.book import KeyRef
from routstr.ledger.connection import LedgerConnection
from routstr.ledger.engine import ReadConnection
from routstr.ledger.sagas import KEYSET, MINT, OPERATION
from routstr.ledger.tables import (
    ApiKey,
    Deposit,
    DepositInput,
    Reservation,
    Transaction,
    Withdrawal,
    table_of,
)
from routstr.ledger.tables_admin import JobRun
from routstr.ledger.tables_house import Idempotency, LightningInvoice, Setting

KEY = table_of(ApiKey)
TRANSACTION = table_of(Transaction)
RESERVATION = table_of(Reservation)
DEPOSIT = table_of(Deposit)
INVOICE = table_of(LightningInvoice)
INPUT = table_of(DepositInput)
WITHDRAWAL = table_of(Withdrawal)
JOB = table_of(JobRun)
IDEMPOTENCY = table_of(Idempotency)
SETTING = table_of(Setting)
RATES: Final = ("requests_per_minute", "tokens_per_minute", "concurrent_max")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyView:
    """A key as its owner may see it; amounts in msat. `rates` are limits of its own, by name."""

    id: str
    balance_msat: int
    reserved_msat: int
    total_spent_msat: int
    total_requests: int
    created_at: datetime
    first_used_at: datetime | None
    expires_at: datetime | None
    revoked_at: datetime | None
    parent_id: str | None
    balance_limit_msat: int | None
    limit_reset: str | None
    preview: str | None
    allowed_models: tuple[str, ...] | None
    limit_base_msat: int
    limit_since: datetime | None
    limit_held_msat: int
    rates: Mapping[str, int | None]

    @property
    def available_msat(self) -> int:
        """Balance less holds."""
        return self.balance_msat - self.reserved_msat

    @property
    def held_msat(self) -> int:
        """What its requests hold; a child's hold money of its parent's."""
        return self.reserved_msat if self.parent_id is None else self.limit_held_msat

    @property
    def cap(self) -> Cap | None:
        """How much it may spend, if that is limited."""
        if self.balance_limit_msat is None:
            return None
        return Cap(
            limit_msat=self.balance_limit_msat,
            reset=self.limit_reset,
            spent_msat=self.total_spent_msat,
            held_msat=self.held_msat,
            base_msat=self.limit_base_msat,
            since=self.limit_since,
        )


async def find_key(connection: ReadConnection, ref: KeyRef) -> KeyView | None:
    """The key meant, if there is one."""
    wanted = KEY.c.id == ref.id if ref.id is not None else KEY.c.key_hash == ref.hash
    row = (await connection.execute(select(KEY).where(wanted))).one_or_none()
    return None if row is None else key_view(row)


def key_view(row: Row[Any]) -> KeyView:
    """The view of a row of `apikey`."""
    models = row.allowed_models
    return KeyView(
        id=row.id,
        balance_msat=row.balance,
        reserved_msat=row.reserved,
        total_spent_msat=row.total_spent,
        total_requests=row.total_requests,
        created_at=row.created_at,
        first_used_at=row.first_used_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        parent_id=row.parent_id,
        balance_limit_msat=row.balance_limit,
        limit_reset=row.limit_reset,
        preview=row.preview,
        allowed_models=None if models is None else tuple(models),
        limit_base_msat=row.limit_base,
        limit_since=row.limit_since,
        limit_held_msat=row.limit_held,
        rates={name: getattr(row, name) for name in RATES},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementRow:
    """One row of a key's audit chain; amounts in msat, signed."""

    id: int
    sequence: int
    type: str
    amount_msat: int
    balance_after_msat: int
    description: str | None
    operation_id: str
    created_at: datetime
    request_data: Mapping[str, object] | None


async def statement(
    connection: ReadConnection, key_id: str, *, limit: int, before: int | None
) -> list[StatementRow]:
    """A key's rows, newest first, from below the sequence `before`."""
    wanted = select(TRANSACTION).where(TRANSACTION.c.api_key_id == key_id)
    if before is not None:
        wanted = wanted.where(TRANSACTION.c.sequence < before)
    rows = await connection.execute(wanted.order_by(TRANSACTION.c.sequence.desc()).limit(limit))
    return [statement_row(row) for row in rows]


def statement_row(row: Row[Any]) -> StatementRow:
    """A row of the table as its readers have it."""
    return StatementRow(
        id=row.id,
        sequence=row.sequence,
        type=row.type,
        amount_msat=row.amount,
        balance_after_msat=row.balance_after,
        description=row.description,
        operation_id=row.operation_id,
        created_at=row.timestamp,
        request_data=row.request_data,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryRow:
    """Money in or out of a key; the amount in msat, the unit the mint's."""

    id: str
    type: Literal["in", "out"]
    source: str
    amount_msat: int
    unit: str
    mint_url: str
    created_at: datetime
    status: str


async def history(
    connection: ReadConnection, key_id: str, *, limit: int, offset: int
) -> tuple[list[HistoryRow], int]:
    """Money in, by token or Lightning, and withdrawals, newest first; and how many in all."""
    both = union_all(
        _history_part(DEPOSIT, "in", DEPOSIT.c.source, DEPOSIT.c.credit_msat, DEPOSIT.c.state)
        .where(DEPOSIT.c.api_key_id == key_id)
        .where(DEPOSIT.c.state == "credited"),
        _history_part(
            INVOICE, "in", literal("lightning"), INVOICE.c.credit_msat, literal("credited")
        )
        .where(INVOICE.c.api_key_id == key_id)
        .where(INVOICE.c.status == "paid"),
        _history_part(
            WITHDRAWAL,
            "out",
            case((WITHDRAWAL.c.way == "token", "cashu"), else_="lightning"),
            WITHDRAWAL.c.amount,
            WITHDRAWAL.c.status,
        ).where(WITHDRAWAL.c.api_key_id == key_id),
    ).subquery()
    rows = await connection.execute(
        select(both).order_by(both.c.created_at.desc(), both.c.id).limit(limit).offset(offset)
    )
    total = await connection.scalar(select(func.count()).select_from(both))
    found = [
        HistoryRow(
            id=row.id,
            type=row.type,
            source=row.source,
            amount_msat=row.amount_msat,
            unit=row.unit,
            mint_url=row.mint_url,
            created_at=row.created_at,
            status=row.status,
        )
        for row in rows
    ]
    return found, int(total or 0)


def _history_part(
    table: Table,
    direction: str,
    source: ColumnElement[str],
    amount: ColumnElement[int],
    status: ColumnElement[str],
) -> Select[Any]:
    return select(
        table.c.id,
        literal(direction).label("type"),
        source.label("source"),
        amount.label("amount_msat"),
        table.c.unit,
        table.c.mint_url,
        table.c.created_at,
        status.label("status"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class WithdrawalRow:
    """A withdrawal as stored: its token still sealed, and whether money came in after it.

    `operation_state` is that of its newest operation with the mint.
    """

    id: str
    status: Literal["pending", "completed", "failed", "claimed", "reclaimed"]
    amount_msat: int
    fee_msat: int
    unit: str
    mint_url: str
    sealed_token: str | None = field(repr=False)
    operation_id: str | None
    credited_since: bool
    way: Literal["token", "lightning"]
    sealed_recipient: str | None = field(repr=False)
    operation_state: str | None


async def find_withdrawal(
    connection: ReadConnection, key_id: str, withdrawal_id: str | None = None
) -> WithdrawalRow | None:
    """That withdrawal of the key, or its newest."""
    later = exists().where(
        and_(
            TRANSACTION.c.api_key_id == WITHDRAWAL.c.api_key_id,
            TRANSACTION.c.timestamp > WITHDRAWAL.c.created_at,
            TRANSACTION.c.amount > 0,
        )
    )
    wanted = (
        select(
            WITHDRAWAL,
            OPERATION.c.id.label("operation_id"),
            OPERATION.c.state.label("operation_state"),
            later.label("credited_since"),
        )
        .outerjoin(OPERATION, OPERATION.c.withdrawal_id == WITHDRAWAL.c.id)
        .where(WITHDRAWAL.c.api_key_id == key_id)
    )
    if withdrawal_id is not None:
        wanted = wanted.where(WITHDRAWAL.c.id == withdrawal_id)
    newest = (WITHDRAWAL.c.created_at.desc(), OPERATION.c.created_at.desc())
    row = (await connection.execute(wanted.order_by(*newest).limit(1))).one_or_none()
    if row is None:
        return None
    return WithdrawalRow(
        id=row.id,
        status=row.status,
        amount_msat=row.amount,
        fee_msat=row.fee_amount - row.fee_returned,
        unit=row.unit,
        mint_url=row.mint_url,
        sealed_token=row.token,
        operation_id=row.operation_id,
        credited_since=bool(row.credited_since),
        way=row.way,
        sealed_recipient=row.recipient,
        operation_state=row.operation_state,
    )


async def refund_sources(connection: ReadConnection, key_id: str) -> list[tuple[str, str]]:
    """(mint URL, unit) pairs to pay a key from: those it paid with, newest first, then the rest."""
    paid = await connection.execute(
        select(DEPOSIT.c.mint_url, DEPOSIT.c.unit)
        .where(DEPOSIT.c.api_key_id == key_id, DEPOSIT.c.state == "credited")
        .group_by(DEPOSIT.c.mint_url, DEPOSIT.c.unit)
        .order_by(func.max(DEPOSIT.c.credited_at).desc())
    )
    held = await connection.execute(
        select(MINT.c.url, KEYSET.c.unit)
        .join(KEYSET, KEYSET.c.mint_id == MINT.c.id)
        .group_by(MINT.c.url, KEYSET.c.unit)
        .order_by(MINT.c.url, KEYSET.c.unit.desc())
    )
    return list(dict.fromkeys((str(url), str(unit)) for url, unit in [*paid, *held]))


async def sealed_setting(connection: ReadConnection, name: str) -> tuple[str, int] | None:
    """The sealed value in force of a setting, with its version."""
    row = (
        await connection.execute(
            select(SETTING.c.sealed_value, SETTING.c.version)
            .where(SETTING.c.name == name)
            .order_by(SETTING.c.version.desc())
            .limit(1)
        )
    ).one_or_none()
    return None if row is None else (row.sealed_value, row.version)


async def plain_setting(connection: ReadConnection, name: str) -> Mapping[str, object] | None:
    """The value in force of a setting that is no secret."""
    row = (
        await connection.execute(
            select(SETTING.c.value)
            .where(SETTING.c.name == name)
            .order_by(SETTING.c.version.desc())
            .limit(1)
        )
    ).one_or_none()
    return None if row is None else row.value


async def is_reachable(connection: ReadConnection) -> bool:
    """Whether the database answers."""
    return bool(await connection.scalar(select(literal(1))))


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """The last run of a job; `ok` is None while it never finished."""

    name: str
    ok: bool | None
    started_at: datetime | None
    finished_at: datetime | None
    result: Mapping[str, object] | None


LAST_RUN: Final = select(JOB).where(JOB.c.name == bindparam("job"))


async def last_job(connection: LedgerConnection, name: str) -> JobView | None:
    """That job's last run, if it ever ran."""
    row = (await connection.execute(LAST_RUN, {"job": name})).one_or_none()
    if row is None:
        return None
    return JobView(
        name=row.name,
        ok=row.ok,
        started_at=row.started_at,
        finished_at=row.finished_at,
        result=row.result,
    )
