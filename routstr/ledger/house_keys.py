"""What the operator does to a key: end it, let it live again, bind it to other terms.

Laws
- No msat moves. What is on a key that ended stays on it and stays owed; alive again, it is there.
- Terms count from the next request on: what runs ends as it was begun.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import update

from routstr.errors import NotFound
from routstr.ledger.accounts import APIKEY, OWNER_KEY_ID
from routstr.ledger.book import Account, Book, Bounds, KeyRef
from routstr.ledger.commands import Command, RowCommand, Transaction

TERMS: Final = (
    *("expires_at", "balance_limit_msat", "limit_reset", "allowed_models"),
    *("requests_per_minute", "tokens_per_minute", "concurrent_max"),
)
COLUMNS: Final = {"balance_limit_msat": "balance_limit"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SetRevoked(Command[None]):
    """End a key, and with it its children, or take that back. NotFound if there is none.

    A repeat changes nothing.
    """

    key_id: str
    is_revoked: bool

    @property
    def keys(self) -> Sequence[KeyRef]:
        """That key."""
        return (KeyRef(id=self.key_id),)

    def apply(self, book: Book) -> None:
        """Say when, or forget it."""
        account = _account(book, self.key_id)
        if (account.revoked_at is not None) != self.is_revoked:
            revoked_at = book.now if self.is_revoked else None
            book.put_account(account._replace(revoked_at=revoked_at))


@dataclass(frozen=True, slots=True, kw_only=True)
class SetTerms(RowCommand[None]):
    """Bind a key to these terms; those that `changes` does not name stay. NotFound.

    `changes` holds fields of `Bounds` but the parent: None takes a bound away.
    """

    key_id: str
    changes: Mapping[str, Any] = field(repr=False)

    @property
    def keys(self) -> Sequence[KeyRef]:
        """That key."""
        return (KeyRef(id=self.key_id),)

    async def run(self, transaction: Transaction) -> None:
        """Write them, and let whoever comes after it in this batch see them."""
        assert self.changes.keys() <= set(TERMS)
        book = transaction.book
        account = _account(book, self.key_id)
        bounds = replace(account.bounds, **self.changes)
        await transaction.connection.execute(
            update(APIKEY)
            .where(APIKEY.c.id == self.key_id)
            .values({COLUMNS.get(name, name): _value(bounds, name) for name in self.changes})
        )
        book.put_account(account._replace(bounds=bounds))


def _value(bounds: Bounds, name: str) -> object:
    value: datetime | tuple[str, ...] | int | str | None = getattr(bounds, name)
    return list(value) if isinstance(value, tuple) else value


def _account(book: Book, key_id: str) -> Account:
    account = book.find(KeyRef(id=key_id))
    if account is None or account.id == OWNER_KEY_ID:
        raise NotFound("There is no such key.")
    return account
