"""What nobody claimed from an expired key becomes the operator's: one row, and no coin moves.

Laws
- The money is the key's until its `expiry` row; after it, it is in the surplus, like any profit.
- A sweep takes all there is and names the row it appends, so it happens once whatever is repeated.
- Nothing is swept that is held, or while a withdrawal has no end: what that gives back comes first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from sqlalchemy import select

from routstr.ledger.accounts import OWNER_KEY_ID
from routstr.ledger.book import Account, KeyRef
from routstr.ledger.commands import TRANSACTION, RowCommand, Transaction
from routstr.ledger.issued import WITHDRAWAL

EXPIRED: Final = "expired-key"
"""The fingerprint of a withdrawal that the node began itself, for a key that had expired."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepExpired(RowCommand[int]):
    """Take the balance that the key had at `version`; yields how much that was, in msat.

    0, and nothing is changed, if the key has moved on, has not been expired for `claimable_s`,
    holds something, has a withdrawal under way, or is no user's; nor if it is not revoked any more,
    or is by now, which decides whether it had to be offered. A repeat yields the first result.
    """

    api_key_id: str
    version: int
    claimable_s: float
    is_revoked: bool = False

    @property
    def keys(self) -> Sequence[KeyRef]:
        """The key."""
        return (KeyRef(id=self.api_key_id),)

    async def run(self, transaction: Transaction) -> int:
        """One row, after which nothing is left."""
        book = transaction.book
        account = book.find(KeyRef(id=self.api_key_id))
        if account is None:
            return 0
        if account.version != self.version:
            return await self._swept_before(transaction)
        if not await self._may_be_swept(transaction, account):
            return 0
        amount_msat = account.balance_msat
        book.post(account, -amount_msat, "expiry", self._operation_id, description="Unclaimed")
        return amount_msat

    async def _may_be_swept(self, transaction: Transaction, account: Account) -> bool:
        is_users = account.parent_id is None and account.id != OWNER_KEY_ID
        if not is_users or account.reserved_msat or not account.balance_msat:
            return False
        if (account.revoked_at is not None) != self.is_revoked:
            return False
        claimable = timedelta(seconds=self.claimable_s)
        if account.expires_at is None or account.expires_at + claimable > transaction.book.now:
            return False
        pending = await transaction.connection.scalar(
            select(WITHDRAWAL.c.id)
            .where(WITHDRAWAL.c.api_key_id == account.id, WITHDRAWAL.c.status == "pending")
            .limit(1)
        )
        return pending is None

    async def _swept_before(self, transaction: Transaction) -> int:
        for posting in transaction.book.postings:
            if posting.operation_id == self._operation_id:
                return -posting.amount_msat
        found = await transaction.connection.scalar(
            select(TRANSACTION.c.amount).where(TRANSACTION.c.operation_id == self._operation_id)
        )
        return -int(found or 0)

    @property
    def _operation_id(self) -> str:
        """Of the row after `version`: there can be only one."""
        return f"expiry:{self.api_key_id}:{self.version + 1}"
