"""The operator's lists: rows of the chain, withdrawals, invoices, deposits, calls to mints.

Every list is newest first and paged by the row it goes on behind. A total is counted up to a bound
and not beyond: whoever has more than that many rows does not read them one by one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Column, ColumnElement, Select, Table, func, literal, select, tuple_

from routstr.ledger.columns import UtcTime
from routstr.ledger.engine import ReadConnection
from routstr.ledger.reads import (
    DEPOSIT,
    INVOICE,
    TRANSACTION,
    WITHDRAWAL,
    StatementRow,
    statement_row,
)
from routstr.ledger.sagas import IS_OPEN, KEYSET, MINT, OPERATION, PROOF

COUNTED_MAX: Final = 2_000


def is_behind(
    time: Column[Any], id_: Column[Any], after_time: datetime, after_id: str
) -> ColumnElement[bool]:
    """Whether a row comes behind another one, newest first."""
    return tuple_(time, id_) < tuple_(literal(after_time, UtcTime()), literal(after_id))


async def count_up_to(connection: ReadConnection, wanted: Select[Any]) -> int:
    """How many rows there are, `COUNTED_MAX` if there are more."""
    ones = wanted.order_by(None).with_only_columns(literal(1), maintain_column_froms=True)
    some = ones.limit(COUNTED_MAX).subquery()
    return int(await connection.scalar(select(func.count()).select_from(some)) or 0)


# ── the audit chain of all keys ───────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainRow:
    """A row of some key's chain."""

    key_id: str
    row: StatementRow


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainSearch:
    """Which rows are meant: of one key, one type, or one operation; `is_moved` leaves usage out."""

    key_id: str | None = None
    type: str | None = None
    operation_id: str | None = None
    is_moved: bool = False


def chain_query(search: ChainSearch) -> Select[Any]:
    """The rows meant, newest first: of one key by its sequence, else by id."""
    wanted = select(TRANSACTION)
    if search.operation_id is not None:
        wanted = wanted.where(TRANSACTION.c.operation_id == search.operation_id)
    if search.key_id is not None:
        wanted = wanted.where(TRANSACTION.c.api_key_id == search.key_id)
    if search.type is not None:
        wanted = wanted.where(TRANSACTION.c.type == search.type)
    if search.is_moved or search.type not in {None, "usage"}:
        wanted = wanted.where(TRANSACTION.c.type != literal("usage", literal_execute=True))
    order = TRANSACTION.c.id if search.key_id is None else TRANSACTION.c.sequence
    return wanted.order_by(order.desc())


async def chain_rows(
    connection: ReadConnection,
    search: ChainSearch,
    *,
    limit: int,
    offset: int = 0,
    before: int | None = None,
) -> list[ChainRow]:
    """A page of them, from below the id `before` (of one key: its sequence)."""
    wanted = chain_query(search)
    if before is not None:
        order = TRANSACTION.c.id if search.key_id is None else TRANSACTION.c.sequence
        wanted = wanted.where(order < before)
    rows = await connection.execute(wanted.limit(limit).offset(offset))
    return [ChainRow(key_id=row.api_key_id, row=statement_row(row)) for row in rows]


# ── lists by time ─────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class ListSearch:
    """Which rows of a list are meant: one status, one key, one id."""

    status: str | None = None
    key_id: str | None = None
    id: str | None = None


STATUS: Final = {WITHDRAWAL.name: "status", INVOICE.name: "status", DEPOSIT.name: "state"}


def list_query(table: Table, search: ListSearch) -> Select[Any]:
    """The rows meant, newest first."""
    wanted = select(table)
    if search.status is not None:
        wanted = wanted.where(table.c[STATUS[table.name]] == search.status)
    if search.key_id is not None:
        wanted = wanted.where(table.c.api_key_id == search.key_id)
    if search.id is not None:
        wanted = wanted.where(table.c.id == search.id)
    return wanted.order_by(table.c.created_at.desc(), table.c.id.desc())


async def _page(
    connection: ReadConnection,
    table: Table,
    search: ListSearch,
    *,
    limit: int,
    offset: int,
    before: str | None,
) -> Sequence[Any]:
    wanted = list_query(table, search)
    if before is not None:
        at = select(table.c.created_at).where(table.c.id == before)
        moment = await connection.scalar(at)
        if moment is None:
            return []
        wanted = wanted.where(is_behind(table.c.created_at, table.c.id, moment, before))
    found = await connection.execute(wanted.limit(limit).offset(offset))
    return list(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class WithdrawalLine:
    """A withdrawal without its token; amounts in msat, `fee_msat` less what came back of it."""

    id: str
    key_id: str
    way: str
    status: str
    amount_msat: int
    fee_msat: int
    unit: str
    mint_url: str
    created_at: datetime
    completed_at: datetime | None
    error: str | None
    retries: int


async def withdrawal_lines(
    connection: ReadConnection,
    search: ListSearch,
    *,
    limit: int,
    offset: int = 0,
    before: str | None = None,
) -> list[WithdrawalLine]:
    """Withdrawals of all keys, the operator's own account included."""
    rows = await _page(connection, WITHDRAWAL, search, limit=limit, offset=offset, before=before)
    return [
        WithdrawalLine(
            id=row.id,
            key_id=row.api_key_id,
            way=row.way,
            status=row.status,
            amount_msat=row.amount,
            fee_msat=row.fee_amount - row.fee_returned,
            unit=row.unit,
            mint_url=row.mint_url,
            created_at=row.created_at,
            completed_at=row.completed_at,
            error=row.error_message,
            retries=row.retry_count,
        )
        for row in rows
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoiceLine:
    """A Lightning invoice without its text; `amount` in the unit of its mint."""

    id: str
    key_id: str | None
    purpose: str
    status: str
    amount: int
    unit: str
    credit_msat: int
    mint_url: str
    created_at: datetime
    expires_at: datetime
    paid_at: datetime | None


async def invoice_lines(
    connection: ReadConnection,
    search: ListSearch,
    *,
    limit: int,
    offset: int = 0,
    before: str | None = None,
) -> list[InvoiceLine]:
    """Lightning invoices of all keys; `key_id` None until one has opened its key."""
    rows = await _page(connection, INVOICE, search, limit=limit, offset=offset, before=before)
    return [
        InvoiceLine(
            id=row.id,
            key_id=row.api_key_id,
            purpose=row.purpose,
            status=row.status,
            amount=row.amount,
            unit=row.unit,
            credit_msat=row.credit_msat,
            mint_url=row.mint_url,
            created_at=row.created_at,
            expires_at=row.expires_at,
            paid_at=row.paid_at,
        )
        for row in rows
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class DepositLine:
    """A token brought to the node; `face_amount` in its unit, the credit in msat."""

    id: str
    key_id: str | None
    status: str
    source: str
    mint_url: str
    unit: str
    face_amount: int
    credit_msat: int
    is_locked: bool
    error_code: str | None
    created_at: datetime
    credited_at: datetime | None


async def deposit_lines(
    connection: ReadConnection,
    search: ListSearch,
    *,
    limit: int,
    offset: int = 0,
    before: str | None = None,
) -> list[DepositLine]:
    """Deposits of all keys; `key_id` None until one has opened its key."""
    rows = await _page(connection, DEPOSIT, search, limit=limit, offset=offset, before=before)
    return [
        DepositLine(
            id=row.id,
            key_id=row.api_key_id,
            status=row.state,
            source=row.source,
            mint_url=row.mint_url,
            unit=row.unit,
            face_amount=row.face_amount,
            credit_msat=row.credit_msat,
            is_locked=row.is_locked,
            error_code=row.error_code,
            created_at=row.created_at,
            credited_at=row.credited_at,
        )
        for row in rows
    ]


TABLES: Final = {"withdrawals": WITHDRAWAL, "invoices": INVOICE, "deposits": DEPOSIT}


async def count_lines(connection: ReadConnection, name: str, search: ListSearch) -> int:
    """How many rows of that list are meant, up to `COUNTED_MAX`."""
    return await count_up_to(connection, list_query(TABLES[name], search))


# ── calls to mints ────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationLine:
    """A call to a mint that has no end yet; amounts in the unit. `last_code` says why."""

    id: str
    kind: str
    state: str
    mint_url: str
    unit: str | None
    input_amount: int
    fee_amount: int
    deposit_id: str | None
    withdrawal_id: str | None
    invoice_id: str | None
    attempts: int
    last_code: str | None
    next_attempt_at: datetime
    created_at: datetime


async def open_operations(connection: ReadConnection, *, limit: int) -> list[OperationLine]:
    """Those that wait longest first."""
    rows = await connection.execute(
        select(OPERATION, MINT.c.url)
        .join(MINT, MINT.c.id == OPERATION.c.mint_id)
        .where(IS_OPEN)
        .order_by(OPERATION.c.created_at, OPERATION.c.id)
        .limit(limit)
    )
    return [
        OperationLine(
            id=row.id,
            kind=row.kind,
            state=row.state,
            mint_url=row.url,
            unit=row.unit,
            input_amount=row.input_amount,
            fee_amount=row.fee_amount,
            deposit_id=row.deposit_id,
            withdrawal_id=row.withdrawal_id,
            invoice_id=row.lightning_invoice_id,
            attempts=row.attempts,
            last_code=row.last_code,
            next_attempt_at=row.next_attempt_at,
            created_at=row.created_at,
        )
        for row in rows
    ]


# ── coins ─────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class CoinPile:
    """How many coins of one amount and state the node has of a keyset."""

    keyset_id: str
    state: str
    amount: int
    count: int


async def coin_piles(connection: ReadConnection) -> list[CoinPile]:
    """The coins at hand by keyset, state and amount; spent and lost ones are not looked at."""
    rows = await connection.execute(
        select(PROOF.c.keyset_id, PROOF.c.state, PROOF.c.amount, func.count().label("n"))
        .where(
            PROOF.c.keyset_id.in_(select(KEYSET.c.id)),
            PROOF.c.state.in_(("unspent", "reserved", "locked", "issued")),
        )
        .group_by(PROOF.c.keyset_id, PROOF.c.state, PROOF.c.amount)
        .order_by(PROOF.c.keyset_id, PROOF.c.state, PROOF.c.amount)
    )
    return [
        CoinPile(keyset_id=row.keyset_id, state=row.state, amount=row.amount, count=int(row.n))
        for row in rows
    ]
