"""Keys that are dead: nothing on them, nothing owed to them, nobody has used them for long.

Laws
- A key with rows stays as a tombstone: rows are for ever and refer to it. What could tell whose it
  was is gone, and its hash is one that no credential has. A key without any row is deleted.
- A child dies with its parent or after its own revocation: its parent's money is what it lives on.
  A parent dies after its children.
- Whether a key is dead is looked at again under its lock, in the commit that erases it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import (
    FromClause,
    and_,
    case,
    delete,
    exists,
    func,
    literal_column,
    null,
    or_,
    select,
    type_coerce,
    update,
)
from sqlalchemy.sql.elements import ColumnElement

from routstr.ledger.accounts import OWNER_KEY_ID
from routstr.ledger.book import KeyRef
from routstr.ledger.columns import Json
from routstr.ledger.commands import RowCommand, Transaction
from routstr.ledger.tables import (
    ApiKey,
    Deposit,
    Reservation,
    Withdrawal,
    table_of,
)
from routstr.ledger.tables import Transaction as TransactionRow
from routstr.ledger.tables_house import LightningInvoice

TOMBSTONE: Final = "erased:"
"""How the hash of an erased key begins; its id follows. A real one is 64 hex digits."""

KEY = table_of(ApiKey)
TRANSACTION = table_of(TransactionRow)
RESERVATION = table_of(Reservation)
DEPOSIT = table_of(Deposit)
WITHDRAWAL = table_of(Withdrawal)
INVOICE = table_of(LightningInvoice)
PARENT: Final = KEY.alias("parent")
CHILD: Final = KEY.alias("child")


def is_dead(idle_since: datetime) -> ColumnElement[bool]:
    """The condition on a row of `apikey` that is dead, and not erased yet."""
    lives_on_nothing = or_(
        KEY.c.revoked_at.is_not(None),
        exists().where(PARENT.c.id == KEY.c.parent_id, _is_quiet(PARENT, idle_since)),
    )
    has_children = exists().where(CHILD.c.parent_id == KEY.c.id, _has_hash(CHILD))
    return and_(
        _has_hash(KEY),
        _is_quiet(KEY, idle_since),
        or_(
            KEY.c.parent_id.is_(None) & ~has_children,
            KEY.c.parent_id.is_not(None) & lives_on_nothing,
        ),
    )


def _has_hash(keys: FromClause) -> ColumnElement[bool]:
    return keys.c.key_hash.not_like(f"{TOMBSTONE}%")


def _is_quiet(keys: FromClause, idle_since: datetime) -> ColumnElement[bool]:
    """Nothing on it, nothing due to it, and nothing happened to it since then."""
    key_id = keys.c.id
    return and_(
        key_id != OWNER_KEY_ID,
        keys.c.balance == 0,
        keys.c.reserved == 0,
        keys.c.running == 0,
        keys.c.limit_held == 0,
        keys.c.created_at <= idle_since,
        or_(keys.c.last_used_at.is_(None), keys.c.last_used_at <= idle_since),
        ~exists().where(TRANSACTION.c.api_key_id == key_id, TRANSACTION.c.timestamp > idle_since),
        ~exists().where(
            WITHDRAWAL.c.api_key_id == key_id,
            or_(
                WITHDRAWAL.c.status == "pending",
                and_(WITHDRAWAL.c.status == "completed", WITHDRAWAL.c.way == "token"),
            ),
        ),
        ~exists().where(DEPOSIT.c.api_key_id == key_id, DEPOSIT.c.state == "pending"),
        ~exists().where(
            INVOICE.c.api_key_id == key_id,
            INVOICE.c.status.not_in(("paid", "cancelled", "expired")),
        ),
    )


def _is_bare() -> ColumnElement[bool]:
    """No row refers to it."""
    refers = (
        (TRANSACTION, TRANSACTION.c.api_key_id),
        (RESERVATION, RESERVATION.c.api_key_id),
        (RESERVATION, RESERVATION.c.spender_id),
        (DEPOSIT, DEPOSIT.c.api_key_id),
        (WITHDRAWAL, WITHDRAWAL.c.api_key_id),
        (INVOICE, INVOICE.c.api_key_id),
        (CHILD, CHILD.c.parent_id),
    )
    return and_(
        KEY.c.opening_fee == 0,  # else its parent has a row that names it
        *(~exists().where(column == KEY.c.id) for _, column in refers),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased:
    """How many of the keys are tombstones now, and how many are no more."""

    erased: int
    deleted: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EraseKeys(RowCommand[Erased]):
    """Erase those of the keys that are dead: idle for `idle_s`, and all that `is_dead` asks.

    The others are left as they are. A repeat changes nothing and tells the same.
    """

    key_ids: Sequence[str]
    idle_s: float

    @property
    def keys(self) -> Sequence[KeyRef]:
        """Each of them; their parents come along."""
        return tuple(KeyRef(id=key_id) for key_id in self.key_ids)

    async def run(self, transaction: Transaction) -> Erased:
        """Look again, then erase or delete."""
        book, connection = transaction.book, transaction.connection
        idle_since = book.now - timedelta(seconds=self.idle_s)
        rows = await connection.execute(
            select(KEY.c.id, KEY.c.parent_id, _is_bare().label("is_bare")).where(
                KEY.c.id.in_(self.key_ids), is_dead(idle_since)
            )
        )
        # What this very batch has changed is not in its row yet, so it waits for the next time.
        moved = {now.id for _, now in book.changed_accounts()}
        dead = [row for row in rows if row.id not in moved and row.parent_id not in moved]
        bare = [row.id for row in dead if row.is_bare]
        if bare:
            await connection.execute(delete(KEY).where(KEY.c.id.in_(bare)))
        await _bury(transaction, [row.id for row in dead if not row.is_bare])
        return await self._told(transaction)

    async def _told(self, transaction: Transaction) -> Erased:
        rows = await transaction.connection.execute(
            select(KEY.c.id, KEY.c.key_hash).where(KEY.c.id.in_(self.key_ids))
        )
        left = {row.id: row.key_hash for row in rows}
        return Erased(
            erased=sum(key_hash.startswith(TOMBSTONE) for key_hash in left.values()),
            deleted=len(set(self.key_ids) - left.keys()),
        )


async def _bury(transaction: Transaction, key_ids: Sequence[str]) -> None:
    """What tells whose it was goes; ids, amounts and times stay, for the rows that need them."""
    if not key_ids:
        return
    book, connection = transaction.book, transaction.connection
    for key_id in key_ids:
        account = book.account(KeyRef(id=key_id))
        if account.revoked_at is None:
            book.put_account(account._replace(revoked_at=book.now))
    await connection.execute(
        update(KEY)
        .where(KEY.c.id.in_(key_ids))
        .values(key_hash=TOMBSTONE + KEY.c.id, metadata=null(), preview=None, allowed_models=null())
    )
    await connection.execute(
        update(WITHDRAWAL)
        .where(
            WITHDRAWAL.c.api_key_id.in_(key_ids),
            or_(WITHDRAWAL.c.recipient.is_not(None), WITHDRAWAL.c.preimage.is_not(None)),
        )
        .values(recipient=None, preimage=None)
    )
    as_object = {"sqlite": func.json_object, "postgresql": func.jsonb_build_object}
    for table in (DEPOSIT, INVOICE):
        mine, terms = table.c.api_key_id, table.c.new_key
        only_id = type_coerce(as_object[transaction.dialect](literal_column("'id'"), mine), Json)
        await connection.execute(
            update(table)
            .where(mine.in_(key_ids), or_(table.c.sealed_key.is_not(None), terms.is_not(None)))
            .values(sealed_key=None, new_key=case((terms.is_not(None), only_id), else_=null()))
        )
