"""Child keys: made by a parent for others to spend its money with, counted anew, revoked.

Laws
- A child has no balance and no chain: its parent pays. It belongs to that parent for ever, has no
  children of its own, and its caps are kept where its holds are made (`allowance.py`).
- What a parent pays for a child, if the operator asks for anything, is one `fee` row each.
- No msat is locked in: a key with money on it, or on its way to it, cannot revoke itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from sqlalchemy import func, insert, or_, select

from routstr.errors import (
    AnswerGone,
    ChildKey,
    IdempotencyMismatch,
    InvalidParameter,
    KeyExpired,
    KeyNotEmpty,
    KeyRevoked,
    NotFound,
)
from routstr.ledger.accounts import APIKEY, OWNER_KEY_ID
from routstr.ledger.allowance import insufficient
from routstr.ledger.book import Account, Book, Bounds, KeyRef
from routstr.ledger.commands import Command, RowCommand, Transaction
from routstr.ledger.tables import Deposit, Withdrawal, table_of
from routstr.ledger.tables_house import LightningInvoice

CHILDREN_MAX: Final = 5000
GONE: Final = "These child keys were used or erased before; a key is not shown again."

DEPOSIT = table_of(Deposit)
WITHDRAWAL = table_of(Withdrawal)
INVOICE = table_of(LightningInvoice)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildTerms:
    """What children are bound to; amounts in msat. None: no bound of their own."""

    expires_at: datetime | None = None
    balance_limit_msat: int | None = None
    limit_reset: str | None = None
    allowed_models: tuple[str, ...] | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_max: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewChild:
    """A child key about to exist, without its text."""

    id: str
    hash: str
    preview: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeChildren:
    """Children that are durable: what they cost in all, and the parent's money right after."""

    cost_msat: int
    available_msat: int
    is_first: bool = field(compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeChildren(RowCommand[MadeChildren]):
    """Open child keys of `parent` on the same terms, for `cost_msat` each.

    Refuses with InvalidApiKey, KeyRevoked, KeyExpired, ChildKey, InsufficientBalance, and
    InvalidParameter for more than `CHILDREN_MAX`. A repeat with the same ids makes none and charges
    nothing; if it asks for something else (`fingerprint`), IdempotencyMismatch, and AnswerGone once
    one of them was used or erased.
    """

    parent: KeyRef
    children: Sequence[NewChild]
    terms: ChildTerms
    fingerprint: str
    cost_msat: int

    @property
    def keys(self) -> Sequence[KeyRef]:
        """The parent, and the children in case they are there already."""
        return (self.parent, *(KeyRef(id=child.id) for child in self.children))

    async def run(self, transaction: Transaction) -> MadeChildren:
        """Insert them once, and post what they cost."""
        book = transaction.book
        parent = book.account(self.parent)
        first = await self._first(transaction)
        if first is not None:
            if first.get("fingerprint") != self.fingerprint:
                raise IdempotencyMismatch
            self._check_unused(book)
            cost_msat = int(str(first["cost_msat"]))
            return MadeChildren(
                cost_msat=cost_msat, available_msat=parent.available_msat, is_first=False
            )
        await self._check(transaction, parent)
        cost_msat = self.cost_msat * len(self.children)
        if cost_msat and parent.available_msat < cost_msat:
            raise insufficient(parent, cost_msat)
        said = {"fingerprint": self.fingerprint, "cost_msat": cost_msat}
        rows = [self._row(child, parent, book.now, said) for child in self.children]
        await transaction.connection.execute(insert(APIKEY), rows)
        for child in self.children:
            if self.cost_msat:
                parent = book.post(
                    parent,
                    -self.cost_msat,
                    "fee",
                    f"child-key:{child.id}",
                    description="Child key",
                )
            book.add_account(self._account(child, parent))
        return MadeChildren(
            cost_msat=cost_msat, available_msat=parent.available_msat, is_first=True
        )

    async def _first(self, transaction: Transaction) -> Mapping[str, object] | None:
        """What the first child's row says, if they are there already.

        Raises AnswerGone once that one was erased: a tombstone says nothing.
        """
        ids = [child.id for child in self.children]
        rows = await transaction.connection.execute(
            select(APIKEY.c.id, APIKEY.c.metadata.label("said")).where(APIKEY.c.id.in_(ids))
        )
        there = {row.id: row.said for row in rows}
        if not there:
            return None
        first: Mapping[str, object] | None = there.get(ids[0])
        if first is None:
            raise AnswerGone(GONE)
        return first

    def _check_unused(self, book: Book) -> None:
        """A key's text is shown until it is first used, and never again; nor an erased one's."""
        for child in self.children:
            account = book.find(KeyRef(id=child.id))
            if (
                account is None
                or account.key_hash != child.hash
                or account.first_used_at is not None
            ):
                raise AnswerGone(GONE)

    async def _check(self, transaction: Transaction, parent: Account) -> None:
        if parent.parent_id is not None:
            raise ChildKey("Cannot create a child key for another child key.")
        if parent.revoked_at is not None:
            raise KeyRevoked
        if parent.expires_at is not None and parent.expires_at <= transaction.book.now:
            raise KeyExpired
        there = await transaction.connection.scalar(
            select(func.count()).select_from(APIKEY).where(APIKEY.c.parent_id == parent.id)
        )
        if int(there or 0) + len(self.children) > CHILDREN_MAX:
            raise InvalidParameter(
                f"A key may have {CHILDREN_MAX} child keys in all.", param="count"
            )

    def _row(
        self, child: NewChild, parent: Account, now: datetime, said: Mapping[str, object]
    ) -> dict[str, object]:
        return {
            "id": child.id,
            "key_hash": child.hash,
            "balance": 0,
            "reserved": 0,
            "total_deposited": 0,
            "total_spent": 0,
            "total_requests": 0,
            "version": 0,
            "created_at": now,
            "preview": child.preview,
            "parent_id": parent.id,
            "opening_fee": self.cost_msat,
            "metadata": said,
            "expires_at": self.terms.expires_at,
            "balance_limit": self.terms.balance_limit_msat,
            "limit_reset": self.terms.limit_reset,
            "allowed_models": _listed(self.terms.allowed_models),
            "requests_per_minute": self.terms.requests_per_minute,
            "tokens_per_minute": self.terms.tokens_per_minute,
            "concurrent_max": self.terms.concurrent_max,
        }

    def _account(self, child: NewChild, parent: Account) -> Account:
        terms = self.terms
        return Account(
            id=child.id,
            key_hash=child.hash,
            bounds=Bounds(
                parent_id=parent.id,
                expires_at=terms.expires_at,
                balance_limit_msat=terms.balance_limit_msat,
                limit_reset=terms.limit_reset,
                allowed_models=terms.allowed_models,
                requests_per_minute=terms.requests_per_minute,
                tokens_per_minute=terms.tokens_per_minute,
                concurrent_max=terms.concurrent_max,
            ),
        )


def _listed(models: tuple[str, ...] | None) -> list[str] | None:
    return None if models is None else list(models)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResetChild(Command[None]):
    """Count a child's spending from 0 again; what it holds now still counts.

    Refuses with InvalidApiKey for the parent, KeyRevoked, and NotFound for a key that is no child
    of it, whether it exists or not.
    """

    parent: KeyRef
    child: KeyRef

    @property
    def keys(self) -> Sequence[KeyRef]:
        """Both."""
        return (self.parent, self.child)

    def apply(self, book: Book) -> None:
        """Move the base."""
        _, child = _family(book, self.parent, self.child)
        if child.limit_base_msat != child.total_spent_msat:
            book.put_account(child._replace(limit_base_msat=child.total_spent_msat))


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokeChild(Command[None]):
    """End a child at once: from now it holds nothing more; what it holds ends by itself.

    Refuses as `ResetChild` does. A repeat changes nothing.
    """

    parent: KeyRef
    child: KeyRef

    @property
    def keys(self) -> Sequence[KeyRef]:
        """Both."""
        return (self.parent, self.child)

    def apply(self, book: Book) -> None:
        """Say when, once."""
        _, child = _family(book, self.parent, self.child)
        if child.revoked_at is None:
            book.put_account(child._replace(revoked_at=book.now))


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokeSelf(RowCommand[None]):
    """End a key by itself, and its children with it, once nothing is left on it or due to it.

    Refuses with InvalidApiKey, and KeyNotEmpty while it has money, holds, a token out that nobody
    has claimed, or a deposit, an invoice or a withdrawal under way. A repeat changes nothing.
    """

    key: KeyRef

    @property
    def keys(self) -> Sequence[KeyRef]:
        """The key."""
        return (self.key,)

    async def run(self, transaction: Transaction) -> None:
        """Look at all that could still bring money back, then say when."""
        book = transaction.book
        account = book.account(self.key)
        if account.id == OWNER_KEY_ID:
            raise NotFound
        if account.revoked_at is not None:
            return
        if account.balance_msat or account.reserved_msat:
            raise KeyNotEmpty
        if await self._is_owed(transaction, account.id):
            raise KeyNotEmpty("Money may still come to the key: a token nobody claimed, or a way.")
        book.put_account(account._replace(revoked_at=book.now))

    async def _is_owed(self, transaction: Transaction, key_id: str) -> bool:
        out = or_(
            WITHDRAWAL.c.status == "pending",
            (WITHDRAWAL.c.status == "completed") & (WITHDRAWAL.c.way == "token"),
        )
        asked = (
            select(WITHDRAWAL.c.id).where(WITHDRAWAL.c.api_key_id == key_id, out),
            select(DEPOSIT.c.id).where(
                DEPOSIT.c.api_key_id == key_id, DEPOSIT.c.state == "pending"
            ),
            select(INVOICE.c.id).where(
                INVOICE.c.api_key_id == key_id,
                INVOICE.c.status.not_in(("paid", "cancelled", "expired")),
            ),
        )
        for query in asked:
            if await transaction.connection.scalar(query.limit(1)) is not None:
                return True
        return False


def _family(book: Book, parent: KeyRef, child: KeyRef) -> tuple[Account, Account]:
    above = book.account(parent)
    if above.revoked_at is not None:
        raise KeyRevoked
    found = book.find(child)
    if found is None or found.parent_id != above.id:
        raise NotFound("This key has no such child key.")
    return above, found
