"""The rows of a batch: a statement for each table and batch, on both engines.

What is loaded is locked; what is written repeats what was loaded as its guard.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime
from typing import Final

import orjson

from routstr.core.hold import HoldState
from routstr.ledger.book import UNBOUND, Account, Book, Bounds, HoldRow, KeyRef, Posting
from routstr.ledger.changes import Change, Columns, insertion, updating
from routstr.ledger.columns import as_json, as_time, time_text
from routstr.ledger.drivers import Driver, Row
from routstr.ledger.engine import Dialect

PARENTS_MAX: Final = 200_000

# In the order of `Account`: numbers first, then times, then what makes its bounds.
ACCOUNT: Final = (
    "id, key_hash, balance, reserved, version, total_deposited, total_spent, total_requests,"
    " limit_base, limit_held, running, rate_minute, rate_requests, rate_tokens,"
    " first_used_at, last_used_at, revoked_at, limit_since,"
    " parent_id, expires_at, allowed_models, balance_limit, limit_reset,"
    " requests_per_minute, tokens_per_minute, concurrent_max"
)
HELD: Final = (
    "reservation.id, api_key_id, amount, quote_amount, state, owner, deadline, settled_amount,"
    " ended_at, spender_id"
)
POSTGRES_CLOCK: Final = (
    "clock_timestamp()",
    "(VALUES (1)) AS always (n) LEFT JOIN reservation",
    "ON",
)
TIMES_AT: Final = 14
BOUNDS_AT: Final = 18
UNBOUND_ROW: Final = (None,) * 8
OLD: Final = frozenset({"old_version", "old_balance", "old_reserved", "old_amount"})
Time = Callable[[datetime | None], object]
STATES: Final = {state.value: state for state in HoldState}
ACCOUNT_CHANGE: Final[Columns] = {
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
HOLD_CHANGE: Final[Columns] = {
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


class BulkStatements:
    """The executor's statements for one engine, composed once."""

    def __init__(self, dialect: Dialect) -> None:
        """Compose for `dialect`; every name in them is a constant of this module."""
        lite = dialect == "sqlite"
        ids = "IN (SELECT value FROM json_each(?1))" if lite else "= ANY($1::text[])"
        hashes = "IN (SELECT value FROM json_each(?2))" if lite else "= ANY($2::text[])"
        # In id order, so that two writers never deadlock; SQLite has one.
        lock = "" if lite else " ORDER BY id FOR UPDATE"
        self.dialect: Final = dialect
        self.held = "SELECT coalesce(sum(amount), 0) FROM reservation WHERE state = 'held'"
        self.load_accounts = (
            f"SELECT {ACCOUNT} FROM apikey WHERE id {ids} OR key_hash {hashes}{lock}"
        )
        # PostgreSQL tells its time in the same trip, whether there is a hold or not.
        clock, source, where = ("NULL", "reservation", "WHERE") if lite else POSTGRES_CLOCK
        self.load_holds = f"SELECT {clock}, {HELD} FROM {source} {where} reservation.id {ids}"
        guards = {"id": "id", "version": "old_version", "balance": "old_balance"}
        self.change_accounts = updating(
            dialect,
            "apikey",
            ACCOUNT_CHANGE,
            sets={name: name for name in ACCOUNT_CHANGE if name not in {"id", *OLD}},
            where={**guards, "reserved": "old_reserved"},
        )
        self.change_holds = updating(
            dialect,
            "reservation",
            HOLD_CHANGE,
            sets={name: name for name in HOLD_CHANGE if name not in {"id", *OLD}},
            where={"id": "id", "amount": "old_amount"},
            only="reservation.state = 'held'",
        )
        self.insert_holds = insertion(dialect, "reservation", HOLD)
        self.insert_postings = insertion(dialect, '"transaction"', POSTING)

    def list_of(self, values: Sequence[str]) -> object:
        """A list parameter as this engine takes it."""
        return orjson.dumps(values).decode() if self.dialect == "sqlite" else values

    def time(self, value: datetime | None) -> object:
        """A time as this engine takes it."""
        return time_text(value) if value is not None and self.dialect == "sqlite" else value


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
    driver: Driver, statements: BulkStatements, parents: Parents, refs: Collection[KeyRef]
) -> list[Account]:
    """Load and lock the accounts meant, and the parents of those that are children."""
    accounts = await _load_accounts(driver, statements, refs, parents.of(refs))
    children = [account for account in accounts if account.bounds.parent_id is not None]
    if not children:
        return accounts
    for child in children:
        parents.note(child)
    missing = {child.parent_id for child in children} - {account.id for account in accounts}
    unknown = [KeyRef(id=parent_id) for parent_id in missing]
    return accounts + (await _load_accounts(driver, statements, unknown) if unknown else [])


async def _load_accounts(
    driver: Driver,
    statements: BulkStatements,
    refs: Collection[KeyRef],
    more: Collection[KeyRef] = (),
) -> list[Account]:
    if not refs:
        return []
    ids = [ref.id for each in (refs, more) for ref in each if ref.id is not None]
    hashes = [ref.hash for ref in refs if ref.hash is not None]
    rows = await driver.fetch(
        statements.load_accounts, statements.list_of(ids), statements.list_of(hashes)
    )
    return [_account(row) for row in rows]


def _account(row: Row) -> Account:
    times = [None if at is None else as_time(at) for at in row[TIMES_AT:BOUNDS_AT]]
    bounds = row[BOUNDS_AT:]
    return Account._make(
        (*row[:TIMES_AT], *times, UNBOUND if bounds == UNBOUND_ROW else _bounds(*bounds))
    )


def _bounds(
    parent_id: str | None,
    expires_at: object,
    allowed_models: object,
    balance_limit: int | None,
    limit_reset: str | None,
    requests_per_minute: int | None,
    tokens_per_minute: int | None,
    concurrent_max: int | None,
) -> Bounds:
    models = as_json(allowed_models)
    return Bounds(
        parent_id=parent_id,
        expires_at=None if expires_at is None else as_time(expires_at),
        allowed_models=None if models is None else tuple(models),
        balance_limit_msat=balance_limit,
        limit_reset=limit_reset,
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        concurrent_max=concurrent_max,
    )


async def load_holds(
    driver: Driver, statements: BulkStatements, ids: Collection[str], now: datetime
) -> tuple[datetime, list[HoldRow]]:
    """The time by the database's clock, else `now`, and the holds of those ids.

    Their keys' locks protect them: whatever those waited for is over, and lies before that time.
    """
    is_clock = statements.dialect == "postgresql"
    if not ids and not is_clock:
        return now, []
    rows = await driver.fetch(statements.load_holds, statements.list_of([*ids]))
    return as_time(rows[0][0]) if is_clock else now, [_held(row) for row in rows if row[1]]


def _held(row: Row) -> HoldRow:
    (
        _,
        id_,
        api_key_id,
        amount,
        quote_amount,
        state,
        owner,
        deadline,
        settled_amount,
        ended_at,
        spender_id,
    ) = row
    return HoldRow(
        id=id_,
        api_key_id=api_key_id,
        amount_msat=amount,
        quote_msat=quote_amount,
        state=STATES[state],
        owner=owner,
        deadline=as_time(deadline),
        settled_msat=settled_amount,
        ended_at=None if ended_at is None else as_time(ended_at),
        spender_id=spender_id,
    )


def book_changes(statements: BulkStatements, book: Book) -> list[tuple[Change, Sequence[Row]]]:
    """All that changed, each guarded by what was loaded."""
    time = statements.time
    now = time(book.now)
    accounts = [_account_change(loaded, to, time) for loaded, to in book.changed_accounts()]
    return [
        (statements.change_accounts, accounts),
        (statements.insert_holds, [_hold(hold, now, time) for hold in book.new_holds()]),
        (
            statements.change_holds,
            [_hold_change(loaded, to, time) for loaded, to in book.changed_holds()],
        ),
        (statements.insert_postings, [_posting(posting, now) for posting in book.postings]),
    ]


def _account_change(loaded: Account, now: Account, time: Time) -> Row:
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
        time(now.first_used_at),
        time(now.last_used_at),
        time(now.revoked_at),
        now.limit_base_msat,
        time(now.limit_since),
        now.limit_held_msat,
        now.running,
        now.rate_minute,
        now.rate_requests,
        now.rate_tokens,
    )


def _hold(hold: HoldRow, now: object, time: Time) -> Row:
    return (
        hold.id,
        hold.api_key_id,
        hold.amount_msat,
        hold.quote_msat,
        hold.settled_msat,
        hold.state.value,
        orjson.dumps(hold.price_snapshot).decode(),
        hold.owner,
        time(hold.deadline),
        now,
        time(hold.ended_at),
        hold.spender_id,
    )


def _hold_change(loaded: HoldRow, now: HoldRow, time: Time) -> Row:
    return (
        now.id,
        loaded.amount_msat,
        now.amount_msat,
        now.settled_msat,
        now.state.value,
        time(now.deadline),
        time(now.ended_at),
    )


def _posting(posting: Posting, now: object) -> Row:
    data = posting.request_data
    return (
        posting.api_key_id,
        posting.sequence,
        posting.amount_msat,
        posting.balance_after_msat,
        posting.type,
        posting.description,
        now,
        None if data is None else orjson.dumps(data).decode(),
        posting.operation_id,
    )
