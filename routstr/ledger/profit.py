"""The operator's profit: what the node holds beyond all it owes, taken out through the books.

Laws
- The surplus is computed from rows inside the transaction that takes from it: coins at hand, less
  every balance, less what withdrawals under way will cost. What a user owns is never in it.
- Taking profit is a `deposit` row on the operator's own account. From then on it is money like
  anybody's: it leaves by a withdrawal, and comes back there if nobody claims it.
- Doubt counts against the operator: ecash that is locked, and coins whose swap a mint denies, are
  not profit yet.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import select, text

from routstr.errors import InvalidParameter, ProfitTooSmall
from routstr.ledger.accounts import OWNER_KEY_ID, NewKey, open_account
from routstr.ledger.audit_ecash import OPEN, msat
from routstr.ledger.book import KeyRef
from routstr.ledger.commands import TRANSACTION, RowCommand, Transaction

# One statement, so one moment: a deposit or a withdrawal that commits meanwhile moves both sides.
PROFIT: Final = f"""
  (SELECT coalesce(sum({msat("p.amount", "ks.unit")}), 0) FROM proof p
    JOIN keyset ks ON ks.id = p.keyset_id LEFT JOIN mint_operation op ON op.id = p.operation_id
    WHERE p.state = 'unspent'
      OR p.state = 'reserved' AND p.lock_key IS NULL AND op.state <> 'watch')
  - (SELECT coalesce(sum({msat("fee_amount", "unit")}), 0) FROM mint_operation
    WHERE kind = 'swap' AND withdrawal_id IS NULL AND {OPEN} AND state <> 'watch')
  - (SELECT coalesce(sum(balance), 0) FROM apikey)
  - (SELECT coalesce(sum(amount + fee_amount), 0) FROM withdrawal WHERE status = 'pending')
"""
# What is locked to the node, less what redeeming it costs (NUT-02): no profit yet, but it stands
# against the balances that were credited for it, and a fee may count on it.
LOCKED: Final = f"""
  (SELECT coalesce(sum({msat("p.amount", "ks.unit")}
    - CASE ks.unit WHEN 'sat' THEN ks.input_fee_ppk ELSE (ks.input_fee_ppk + 999) / 1000 END), 0)
    FROM proof p JOIN keyset ks ON ks.id = p.keyset_id
    WHERE p.lock_key IS NOT NULL AND p.state IN ('locked', 'reserved'))
"""
SURPLUS: Final = f"SELECT {PROFIT}"
FEE_SURPLUS: Final = f"SELECT {LOCKED} + {PROFIT}"
LOCK: Final = text("SELECT pg_advisory_xact_lock(7235410)")


async def surplus_msat(transaction: Transaction, *, for_fee: bool = False) -> int:
    """What is the operator's at this point of the transaction; may be below 0.

    What mints charge may also be paid on the strength of locked ecash, with `for_fee`.

    Whoever spends from it calls this in the same transaction: on PostgreSQL the processes that do
    so then wait for each other, so that no two of them spend the same surplus.
    """
    if transaction.dialect == "postgresql":
        await transaction.connection.execute(LOCK)
    query = FEE_SURPLUS if for_fee else SURPLUS
    stored = int(await transaction.connection.scalar(text(query)))
    changes = transaction.book.changed_accounts()  # of this batch: not in their rows yet
    return stored - sum(now.balance_msat - loaded.balance_msat for loaded, now in changes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """Profit that is on the operator's account; `available_msat` is all that is there."""

    amount_msat: int
    available_msat: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeProfit(RowCommand[Taken]):
    """Credit the operator's account out of the surplus; `amount_msat` None takes all of it.

    `keep_msat` stays in the surplus, for the fees of mints. `key_hash`, of a text that nobody
    knows, is the account's, should it not exist yet. Refuses with ProfitTooSmall and, for amounts
    below 1, InvalidParameter. A repeat with the same id yields the first result.
    """

    payout_id: str
    amount_msat: int | None
    keep_msat: int
    key_hash: str = field(repr=False)

    @property
    def keys(self) -> Sequence[KeyRef]:
        """The operator's account."""
        return (KeyRef(id=OWNER_KEY_ID),)

    async def run(self, transaction: Transaction) -> Taken:
        """Compute, refuse or credit."""
        book = transaction.book
        taken_msat = await self._taken_before(transaction)
        if taken_msat is None:
            taken_msat = await self._take(transaction)
        account = book.account(KeyRef(id=OWNER_KEY_ID))
        return Taken(amount_msat=taken_msat, available_msat=account.available_msat)

    async def _taken_before(self, transaction: Transaction) -> int | None:
        for posting in transaction.book.postings:
            if posting.operation_id == self._operation_id:
                return posting.amount_msat
        found = await transaction.connection.scalar(
            select(TRANSACTION.c.amount).where(TRANSACTION.c.operation_id == self._operation_id)
        )
        return None if found is None else int(found)

    async def _take(self, transaction: Transaction) -> int:
        book = transaction.book
        spare_msat = max(0, await surplus_msat(transaction) - self.keep_msat)
        amount_msat = spare_msat if self.amount_msat is None else self.amount_msat
        if self.amount_msat is not None and self.amount_msat < 1:
            raise InvalidParameter("A payout is of at least 1.", param="amount")
        if not 0 < amount_msat <= spare_msat:
            raise ProfitTooSmall(details={"profit_msat": spare_msat})
        if book.has(OWNER_KEY_ID):
            account = book.account(KeyRef(id=OWNER_KEY_ID))
        else:
            account = await open_account(transaction, NewKey(id=OWNER_KEY_ID, hash=self.key_hash))
        account = account._replace(total_deposited_msat=account.total_deposited_msat + amount_msat)
        book.post(account, amount_msat, "deposit", self._operation_id, description="Profit")
        return amount_msat

    @property
    def _operation_id(self) -> str:
        return f"profit:{self.payout_id}"
