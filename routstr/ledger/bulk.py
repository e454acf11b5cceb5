"""Many rows in one statement, on both engines: the rows travel as one JSON parameter.

One statement per table and batch keeps the round trips few and the statement text constant, so
that drivers reuse what they prepared. Column order in the JSON arrays is the order given here.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final, Literal

import orjson
from sqlalchemy import Executable, text

from routstr.core.hold import HoldState
from routstr.ledger.book import Account, Book, Bounds, HoldRow, KeyRef
from routstr.ledger.columns import as_json, as_time, time_text
from routstr.ledger.commands import LostRace
from routstr.ledger.connection import LedgerConnection
from routstr.ledger.engine import Dialect

Kind = Literal["text", "bigint", "timestamptz", "jsonb"]
Columns = Mapping[str, Kind]

PARENTS_MAX: Final = 200_000

ACCOUNT_UPDATE: Final[Columns] = {
    "id": "text",
    "old_version": "bigint",
    "old_balance": "bigint",
    "old_reserved": "bigint",
    "balance": "bigint",
    "reserved": "bigint",
    "version": "bigint",
    "total_deposited": "bigint",
    "total_spent": "bigint",
    "total_requests": "bigint",
    "first_used_at": "timestamptz",
    "last_used_at": "timestamptz",
    "revoked_at": "timestamptz",
    "limit_base": "bigint",
    "limit_since": "timestamptz",
    "limit_held": "bigint",
    "running": "bigint",
    "rate_minute": "bigint",
    "rate_requests": "bigint",
    "rate_tokens": "bigint",
}
HOLD: Final[Columns] = {
    "id": "text",
    "api_key_id": "text",
    "amount": "bigint",
    "quote_amount": "bigint",
    "settled_amount": "bigint",
    "state": "text",
    "price_snapshot": "jsonb",
    "owner": "text",
    "deadline": "timestamptz",
    "created_at": "timestamptz",
    "ended_at": "timestamptz",
    "spender_id": "text",
}
HOLD_UPDATE: Final[Columns] = {
    "id": "text",
    "old_amount": "bigint",
    "amount": "bigint",
    "settled_amount": "bigint",
    "state": "text",
    "deadline": "timestamptz",
    "ended_at": "timestamptz",
}
POSTING: Final[Columns] = {
    "api_key_id": "text",
    "sequence": "bigint",
    "amount": "bigint",
    "balance_after": "bigint",
    "type": "text",
    "description": "text",
    "timestamp": "timestamptz",
    "request_data": "jsonb",
    "operation_id": "text",
}


def rows_as_table(dialect: Dialect, columns: Columns) -> str:
    """A FROM item named `v` with those columns, made from the JSON parameter `:rows`."""
    if dialect == "sqlite":
        picks = ", ".join(f"json_extract(value, '$[{n}]') AS {c}" for n, c in enumerate(columns))
        return f"(SELECT {picks} FROM json_each(:rows)) AS v"
    picks = ", ".join(
        f"CAST(value ->> {n} AS {kind}) AS {c}" for n, (c, kind) in enumerate(columns.items())
    )
    return f"(SELECT {picks} FROM json_array_elements(CAST(:rows AS json))) AS v"


class BulkStatements:
    """The executor's statements for one engine, composed once."""

    def __init__(self, dialect: Dialect) -> None:
        """Compose for `dialect`; every name in them is a constant of this module."""
        lite = dialect == "sqlite"
        wanted = "(SELECT value FROM json_each(:{}))" if lite else "ANY(CAST(:{} AS text[]))"
        is_in = "IN" if lite else "="
        lock = "" if lite else " FOR UPDATE"
        self._dialect = dialect
        self.clock = text("SELECT clock_timestamp()")
        self.held = text("SELECT coalesce(sum(amount), 0) FROM reservation WHERE state = 'held'")
        self.load_accounts = text(
            "SELECT id, key_hash, balance, reserved, version, total_deposited, total_spent,"
            " total_requests, first_used_at, last_used_at, expires_at, revoked_at, parent_id,"
            " allowed_models, balance_limit, limit_reset, limit_base, limit_since, limit_held,"
            " requests_per_minute, tokens_per_minute, concurrent_max, running, rate_minute,"
            f" rate_requests, rate_tokens FROM apikey WHERE id {is_in} {wanted.format('ids')}"
            f" OR key_hash {is_in} {wanted.format('hashes')} ORDER BY id{lock}"
        )
        self.load_holds = text(
            "SELECT id, api_key_id, amount, quote_amount, state, owner, deadline, price_snapshot,"
            " settled_amount, ended_at, spender_id FROM reservation"
            f" WHERE id {is_in} {wanted.format('ids')}"
        )
        changed = ", ".join(
            f"{name} = v.{name}"
            for name in ACCOUNT_UPDATE
            if name != "id" and not name.startswith("old_")
        )
        self.update_accounts = text(
            f"UPDATE apikey SET {changed} FROM {rows_as_table(dialect, ACCOUNT_UPDATE)}"
            " WHERE apikey.id = v.id AND apikey.version = v.old_version"
            " AND apikey.balance = v.old_balance AND apikey.reserved = v.old_reserved"
        )
        self.update_holds = text(
            "UPDATE reservation SET amount = v.amount, settled_amount = v.settled_amount,"
            " state = v.state, deadline = v.deadline, ended_at = v.ended_at"
            f" FROM {rows_as_table(dialect, HOLD_UPDATE)}"
            " WHERE reservation.id = v.id AND reservation.state = 'held'"
            " AND reservation.amount = v.old_amount"
        )
        self.insert_holds = text(_insert("reservation", HOLD, dialect))
        self.insert_postings = text(_insert('"transaction"', POSTING, dialect))

    def list_of(self, values: Sequence[str]) -> object:
        """A list parameter as this engine takes it."""
        return orjson.dumps(values).decode() if self._dialect == "sqlite" else list(values)


def _insert(table: str, columns: Columns, dialect: Dialect) -> str:
    names = ", ".join(columns)
    picks = ", ".join(f"v.{name}" for name in columns)
    rows = rows_as_table(dialect, columns)
    return f"INSERT INTO {table} ({names}) SELECT {picks} FROM {rows}"


class Parents:
    """Which keys are children of which, as far as this process has seen: that never changes.

    A parent that is known is locked in one statement with all else, in id order; one that is not
    costs a statement of its own, once.
    """

    def __init__(self) -> None:
        """None seen yet."""
        self._ids: dict[str, str] = {}

    def of(self, refs: Iterable[KeyRef]) -> set[KeyRef]:
        """The known parents of those keys."""
        if not self._ids:
            return set()
        found = {self._ids.get(ref.id or ref.hash or "") for ref in refs}
        return {KeyRef(id=parent_id) for parent_id in found if parent_id is not None}

    def note(self, account: Account) -> None:
        """Remember a child."""
        assert account.parent_id is not None
        if len(self._ids) > PARENTS_MAX:
            self._ids.clear()
        self._ids[account.id] = self._ids[account.key_hash] = account.parent_id


async def load_families(
    connection: LedgerConnection,
    statements: BulkStatements,
    parents: Parents,
    refs: Collection[KeyRef],
) -> list[Account]:
    """Load and lock the accounts meant, and the parents of those that are children."""
    accounts = await load_accounts(connection, statements, [*refs, *parents.of(refs)])
    children = [account for account in accounts if account.parent_id is not None]
    if not children:
        return accounts
    for child in children:
        parents.note(child)
    missing = {child.parent_id for child in children} - {account.id for account in accounts}
    unknown = [KeyRef(id=parent_id) for parent_id in missing]
    return accounts + (await load_accounts(connection, statements, unknown) if unknown else [])


async def load_accounts(
    connection: LedgerConnection, statements: BulkStatements, refs: Sequence[KeyRef]
) -> list[Account]:
    """Load and lock the accounts meant, in id order so that two writers never deadlock."""
    parameters = {
        "ids": statements.list_of([ref.id for ref in refs if ref.id is not None]),
        "hashes": statements.list_of([ref.hash for ref in refs if ref.hash is not None]),
    }
    rows = await connection.execute(statements.load_accounts, parameters)
    return [
        Account(
            id=row.id,
            key_hash=row.key_hash,
            balance_msat=row.balance,
            reserved_msat=row.reserved,
            version=row.version,
            total_deposited_msat=row.total_deposited,
            total_spent_msat=row.total_spent,
            total_requests=row.total_requests,
            first_used_at=_time(row.first_used_at),
            last_used_at=_time(row.last_used_at),
            revoked_at=_time(row.revoked_at),
            bounds=Bounds(
                parent_id=row.parent_id,
                expires_at=_time(row.expires_at),
                allowed_models=_models(row.allowed_models),
                balance_limit_msat=row.balance_limit,
                limit_reset=row.limit_reset,
                requests_per_minute=row.requests_per_minute,
                tokens_per_minute=row.tokens_per_minute,
                concurrent_max=row.concurrent_max,
            ),
            limit_base_msat=row.limit_base,
            limit_since=_time(row.limit_since),
            limit_held_msat=row.limit_held,
            running=row.running,
            rate_minute=row.rate_minute,
            rate_requests=row.rate_requests,
            rate_tokens=row.rate_tokens,
        )
        for row in rows
    ]


async def load_holds(
    connection: LedgerConnection, statements: BulkStatements, ids: Sequence[str]
) -> list[HoldRow]:
    """Load the holds of those ids; their keys' locks protect them."""
    if not ids:
        return []
    rows = await connection.execute(statements.load_holds, {"ids": statements.list_of(ids)})
    return [
        HoldRow(
            id=row.id,
            api_key_id=row.api_key_id,
            amount_msat=row.amount,
            quote_msat=row.quote_amount,
            state=HoldState(row.state),
            owner=row.owner,
            deadline=as_time(row.deadline),
            price_snapshot=as_json(row.price_snapshot),
            settled_msat=row.settled_amount,
            ended_at=_time(row.ended_at),
            spender_id=row.spender_id,
        )
        for row in rows
    ]


async def write_book(connection: LedgerConnection, statements: BulkStatements, book: Book) -> None:
    """Write all that changed. Raises LostRace when a guard finds another state than was loaded."""
    accounts = [_account_values(loaded, now) for loaded, now in book.changed_accounts()]
    await _guarded(connection, statements.update_accounts, accounts)
    await _guarded(
        connection,
        statements.insert_holds,
        [_hold_values(hold, book.now) for hold in book.new_holds()],
    )
    holds = [_hold_change(loaded, now) for loaded, now in book.changed_holds()]
    await _guarded(connection, statements.update_holds, holds)
    now_text = time_text(book.now)
    postings = [
        (
            p.api_key_id,
            p.sequence,
            p.amount_msat,
            p.balance_after_msat,
            p.type,
            p.description,
            now_text,
            p.request_data,
            p.operation_id,
        )
        for p in book.postings
    ]
    await _guarded(connection, statements.insert_postings, postings)


async def _guarded(
    connection: LedgerConnection, statement: Executable, rows: Sequence[tuple[object, ...]]
) -> None:
    if not rows:
        return
    result = await connection.execute(statement, {"rows": orjson.dumps(rows).decode()})
    if result.rowcount != len(rows):
        raise LostRace


def _account_values(loaded: Account, now: Account) -> tuple[object, ...]:
    return (
        now.id,
        loaded.version,
        loaded.balance_msat,
        loaded.reserved_msat,
        now.balance_msat,
        now.reserved_msat,
        now.version,
        now.total_deposited_msat,
        now.total_spent_msat,
        now.total_requests,
        _text(now.first_used_at),
        _text(now.last_used_at),
        _text(now.revoked_at),
        now.limit_base_msat,
        _text(now.limit_since),
        now.limit_held_msat,
        now.running,
        now.rate_minute,
        now.rate_requests,
        now.rate_tokens,
    )


def _hold_values(hold: HoldRow, now: datetime) -> tuple[object, ...]:
    return (
        hold.id,
        hold.api_key_id,
        hold.amount_msat,
        hold.quote_msat,
        hold.settled_msat,
        hold.state,
        hold.price_snapshot,
        hold.owner,
        time_text(hold.deadline),
        time_text(now),
        _text(hold.ended_at),
        hold.spender_id,
    )


def _hold_change(loaded: HoldRow, now: HoldRow) -> tuple[object, ...]:
    return (
        now.id,
        loaded.amount_msat,
        now.amount_msat,
        now.settled_msat,
        now.state,
        time_text(now.deadline),
        _text(now.ended_at),
    )


def _time(value: object) -> datetime | None:
    return None if value is None else as_time(value)


def _text(value: datetime | None) -> str | None:
    return None if value is None else time_text(value)


def _models(value: object) -> tuple[str, ...] | None:
    models = as_json(value)
    return None if models is None else tuple(models)
