"""Keys: opening one, noting its first use, and moving money between two."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import ColumnElement, and_, insert, or_, select, update

from routstr.errors import (
    ChildKey,
    IdempotencyMismatch,
    InvalidApiKey,
    InvalidParameter,
    KeyExpired,
    KeyRevoked,
)
from routstr.ledger.allowance import insufficient
from routstr.ledger.book import Account, Book, Bounds, KeyRef
from routstr.ledger.columns import time_text
from routstr.ledger.commands import TRANSACTION, Command, RowCommand, Transaction
from routstr.ledger.invites import take_use
from routstr.ledger.tables import ApiKey, Deposit, table_of

OWNER_KEY_ID: Final = "key_" + "0" * 32
"""The operator's own account: profit taken out of the surplus is on it until it is paid out."""

APIKEY = table_of(ApiKey)
NEW_ACCOUNT: Final = insert(APIKEY)
DEPOSIT = table_of(Deposit)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """A key about to exist: its text (only here, never stored in clear), hash and terms.

    `preview` is what of the text its owner knows it by; `invite` the hash of the code it takes a
    use of.
    """

    id: str
    hash: str
    text: str = field(default="", repr=False)
    expires_at: datetime | None = None
    balance_limit_msat: int | None = None
    limit_reset: str | None = None
    preview: str | None = None
    invite: str | None = field(default=None, repr=False)

    def terms(self) -> dict[str, object]:
        """All but the text, as JSON."""
        return {
            "id": self.id,
            "hash": self.hash,
            "expires_at": None if self.expires_at is None else time_text(self.expires_at),
            "balance_limit_msat": self.balance_limit_msat,
            "limit_reset": self.limit_reset,
            "preview": self.preview,
            "invite": self.invite,
        }

    @classmethod
    def from_terms(cls, terms: Mapping[str, object]) -> "NewKey":
        """Back from JSON, without the text."""
        expires_at, limit, reset, preview, invite = (
            terms["expires_at"],
            terms["balance_limit_msat"],
            terms["limit_reset"],
            terms.get("preview"),
            terms.get("invite"),
        )
        return cls(
            id=str(terms["id"]),
            hash=str(terms["hash"]),
            expires_at=datetime.fromisoformat(expires_at) if isinstance(expires_at, str) else None,
            balance_limit_msat=limit if isinstance(limit, int) else None,
            limit_reset=reset if isinstance(reset, str) else None,
            preview=preview if isinstance(preview, str) else None,
            invite=invite if isinstance(invite, str) else None,
        )


async def open_account(transaction: Transaction, key: NewKey) -> Account:
    """Write the row of a new key, empty, and let the book know it."""
    await transaction.connection.execute(
        NEW_ACCOUNT,
        {
            "id": key.id,
            "key_hash": key.hash,
            "balance": 0,
            "reserved": 0,
            "total_deposited": 0,
            "total_spent": 0,
            "total_requests": 0,
            "version": 0,
            "created_at": transaction.book.now,
            "expires_at": key.expires_at,
            "balance_limit": key.balance_limit_msat,
            "limit_reset": key.limit_reset,
            "preview": key.preview,
        },
    )
    if key.invite is not None:
        await take_use(transaction, key.id)
    account = Account(
        id=key.id,
        key_hash=key.hash,
        bounds=Bounds(
            expires_at=key.expires_at,
            balance_limit_msat=key.balance_limit_msat,
            limit_reset=key.limit_reset,
        ),
    )
    transaction.book.add_account(account)
    return account


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenKey(RowCommand[str]):
    """Open an empty key; yields its id. A repeat with the same id changes nothing."""

    key: NewKey = field(repr=False)

    @property
    def keys(self) -> Sequence[KeyRef]:
        """The key itself, in case it is there already."""
        return (KeyRef(id=self.key.id),)

    async def run(self, transaction: Transaction) -> str:
        """Insert it once."""
        if not transaction.book.has(self.key.id):
            await open_account(transaction, self.key)
        return self.key.id


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteUse(Command[None]):
    """The key's own text was shown outside the paid road: from now its token's validity ends."""

    caller: KeyRef

    @property
    def keys(self) -> Sequence[KeyRef]:
        """That key."""
        return (self.caller,)

    def apply(self, book: Book) -> None:
        """Set `first_used_at` once."""
        account = book.account(self.caller)
        if account.first_used_at is None:
            book.put_account(account._replace(first_used_at=book.now, last_used_at=book.now))


@dataclass(frozen=True, slots=True, kw_only=True)
class Transferred:
    """A transfer that is durable; the payer's money right after."""

    transfer_id: str
    amount_msat: int
    available_msat: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer(RowCommand[Transferred]):
    """Move `amount_msat` from one key to another: two rows that sum to 0 (I-1).

    Refuses with InvalidApiKey, KeyRevoked, KeyExpired (of the payee), ChildKey (neither end may be
    one), InvalidParameter (same key, amount below 1) or InsufficientBalance; the
    operator's account is no key, so InvalidApiKey for it too. A repeat with the same id yields the
    same result, and IdempotencyMismatch for another payee or amount.
    """

    transfer_id: str
    payer: KeyRef
    payee: KeyRef
    amount_msat: int

    @property
    def keys(self) -> Sequence[KeyRef]:
        """Both ends."""
        return (self.payer, self.payee)

    async def run(self, transaction: Transaction) -> Transferred:
        """Check both ends, post both rows."""
        book = transaction.book
        payer, payee = book.account(self.payer), book.account(self.payee)
        if OWNER_KEY_ID in {payer.id, payee.id}:
            raise InvalidApiKey
        first = await self._first(transaction)
        if first is not None:
            if (first["payee"], first["amount_msat"]) != (payee.id, self.amount_msat):
                raise IdempotencyMismatch
            return self._transferred(int(str(first["available_msat"])))
        self._check(payer, payee, book)
        after_msat = payer.available_msat - self.amount_msat
        said = {"payee": payee.id, "amount_msat": self.amount_msat, "available_msat": after_msat}
        id_ = f"transfer:{self.transfer_id}"
        book.post(payer, -self.amount_msat, "transfer_out", f"{id_}:out", request_data=said)
        book.post(payee, self.amount_msat, "transfer_in", f"{id_}:in")
        return self._transferred(after_msat)

    def _check(self, payer: Account, payee: Account, book: Book) -> None:
        if payer.parent_id is not None or payee.parent_id is not None:
            raise ChildKey("A child key has no money of its own: transfer between parent keys.")
        if payer.revoked_at is not None or payee.revoked_at is not None:
            raise KeyRevoked
        if payee.expires_at is not None and payee.expires_at <= book.now:
            raise KeyExpired("The key to receive it has expired.")
        if payer.id == payee.id or self.amount_msat < 1:
            raise InvalidParameter("A transfer goes to another key.", param="to")
        if payer.available_msat < self.amount_msat:
            raise insufficient(payer, self.amount_msat)

    async def _first(self, transaction: Transaction) -> Mapping[str, object] | None:
        """What the row of this very transfer says, if there is one."""
        operation_id = f"transfer:{self.transfer_id}:out"
        for posting in transaction.book.postings:
            if posting.operation_id == operation_id:
                return posting.request_data
        found: Mapping[str, object] | None = await transaction.connection.scalar(
            select(TRANSACTION.c.request_data).where(TRANSACTION.c.operation_id == operation_id)
        )
        return found

    def _transferred(self, available_msat: int) -> Transferred:
        return Transferred(
            transfer_id=self.transfer_id,
            amount_msat=self.amount_msat,
            available_msat=available_msat,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneSealedKeys(RowCommand[int]):
    """Erase sealed key texts of keys that were used, or credited more than `ttl_s` ago."""

    ttl_s: float

    async def run(self, transaction: Transaction) -> int:
        """How many were erased."""
        oldest = transaction.book.now - timedelta(seconds=self.ttl_s)
        erased = await transaction.connection.execute(
            update(DEPOSIT).where(is_fetched_or_late(oldest)).values(sealed_key=None)
        )
        return int(erased.rowcount)


def is_fetched_or_late(oldest: datetime) -> ColumnElement[bool]:
    """The condition on a deposit whose sealed key is shown no more."""
    used = select(APIKEY.c.id).where(APIKEY.c.first_used_at.is_not(None))
    return and_(
        DEPOSIT.c.sealed_key.is_not(None),
        DEPOSIT.c.state == "credited",
        or_(DEPOSIT.c.credited_at < oldest, DEPOSIT.c.api_key_id.in_(used)),
    )
