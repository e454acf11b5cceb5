"""What the executor accepts: commands, each the whole of one money effect.

A `Command` is pure: the executor loads and locks the rows it names, `apply` decides on the book,
and the executor writes. A `RowCommand` also needs rows of its own (proofs, deposits, operations);
it runs in a savepoint of the same transaction. Both are deterministic and idempotent: when a
COMMIT's answer is lost the batch runs again, and a repeat returns the first result.

A refusal is an exception raised before anything in the book changed; it never sinks the batch.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from sqlalchemy import select

from routstr.ledger.book import Book, KeyRef
from routstr.ledger.claims import Place
from routstr.ledger.connection import LedgerConnection
from routstr.ledger.engine import Dialect
from routstr.ledger.tables import Transaction as TransactionRow
from routstr.ledger.tables import table_of
from routstr.ledger.vault import Vault

TRANSACTION = table_of(TransactionRow)

ResultT_co = TypeVar("ResultT_co", covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wallet:
    """What makes ecash of this node: the NUT-13 seed, the vault, and fresh ids."""

    seed: bytes = field(repr=False)
    vault: Vault = field(repr=False)
    new_id: Callable[[str], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """What a row command works with, inside the executor's one open transaction."""

    connection: LedgerConnection
    dialect: Dialect
    book: Book
    wallet: Wallet

    async def was_posted(self, operation_id: str) -> bool:
        """Whether a row of that operation id exists, in the database or in this batch."""
        if any(posting.operation_id == operation_id for posting in self.book.postings):
            return True
        found = await self.connection.scalar(
            select(TRANSACTION.c.id).where(TRANSACTION.c.operation_id == operation_id)
        )
        return found is not None


class Lockable:
    """The rows a command wants loaded and locked before it runs; by default none."""

    __slots__ = ()

    @property
    def keys(self) -> Sequence[KeyRef]:
        """The accounts it may touch."""
        return ()

    @property
    def hold_ids(self) -> Sequence[str]:
        """The holds it may touch, its own new one included."""
        return ()

    def places(self, book: Book) -> Sequence[Place]:
        """The Idempotency-Keys it may claim; `book` has its accounts already."""
        return ()

    @property
    def may_be_shed(self) -> bool:
        """Whether a full queue refuses it; what ends or credits something never is."""
        return False


class Command(Lockable, ABC, Generic[ResultT_co]):
    """A pure command."""

    __slots__ = ()

    @abstractmethod
    def apply(self, book: Book) -> ResultT_co:
        """Decide and change the book, or raise a RoutstrError with the book untouched."""


class RowCommand(Lockable, ABC, Generic[ResultT_co]):
    """A command with rows of its own."""

    __slots__ = ()

    @abstractmethod
    async def run(self, transaction: Transaction) -> ResultT_co:
        """Do it all, or raise: then its savepoint and the book go back to where they were."""


class LostRace(Exception):
    """A guarded write found another state: somebody else was first, so the batch runs again."""
