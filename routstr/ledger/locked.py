"""Ecash locked to the node, credited before its mint has heard of it (ecash.md, section 5).

Deposit, Ys, proofs and credit are one commit. What waits to be redeemed at a mint is bounded: it is
what that mint could cost the operator. The key is the node's and its Ys are in this database, so
nobody else can spend it and nobody is credited twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import bindparam, func, insert, select, update

from routstr.core.money import msat_from_unit
from routstr.ledger.allowance import check_creditable
from routstr.ledger.book import KeyRef
from routstr.ledger.commands import RowCommand, Transaction
from routstr.ledger.credits import Credited, credit, first_credit
from routstr.ledger.deposits import BeginDeposit, DepositView
from routstr.ledger.sagas import KEYSET, MINT, PROOF

WAITING: Final = ("locked", "reserved")
# Made once: making a statement costs more than running it.
NEW_PROOF: Final = insert(PROOF)
WAITING_AT: Final = (
    select(KEYSET.c.unit, func.count().label("n"), func.sum(PROOF.c.amount).label("amount"))
    .join(PROOF, PROOF.c.keyset_id == KEYSET.c.id)
    .where(
        KEYSET.c.mint_id == bindparam("mint_id"),
        PROOF.c.lock_key.is_not(None),
        PROOF.c.state.in_(WAITING),
    )
    .group_by(KEYSET.c.unit)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """Locked ecash of a mint that is not redeemed yet."""

    proofs: int
    amount_msat: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """What became of locked ecash: credited, or a deposit of these Ys was there first.

    Both are None when the mint's cap is reached: then the mint must be asked.
    """

    credited: Credited | None = None
    existing: DepositView | None = None
    waiting: Waiting | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptLocked(RowCommand[Accepted]):
    """Credit a deposit whose proofs only this node can spend; refuses what `BeginDeposit` refuses.

    `deposit` says what is brought, by whom and what it is worth; its outputs are not used.
    `locktimes` go position by position with its proofs: when others may spend them, or None.
    """

    deposit: BeginDeposit
    lock_key: str
    locktimes: Sequence[int | None]
    waiting_msat_max: int

    @property
    def keys(self) -> Sequence[KeyRef]:
        """The account to top up, if it exists already."""
        return self.deposit.keys

    async def run(self, transaction: Transaction) -> Accepted:
        """Attach, refuse, or credit and keep the proofs."""
        deposit = self.deposit
        account = None if deposit.target is None else transaction.book.account(deposit.target)
        if account is not None:
            check_creditable(account)
        account_id = None if account is None else account.id
        existing = await deposit.existing(transaction, account_id)
        if existing is not None and existing.id == deposit.deposit_id:
            return Accepted(credited=await first_credit(transaction, existing.id))
        if existing is not None:
            return Accepted(existing=existing)
        waiting = await locked_at(transaction, deposit.mint_id)
        after = Waiting(
            proofs=waiting.proofs + len(deposit.proofs),
            amount_msat=waiting.amount_msat + msat_from_unit(deposit.face_amount, deposit.unit),
        )
        if after.amount_msat > self.waiting_msat_max:
            return Accepted()
        due = await deposit.write(transaction, account_id, is_locked=True)
        await self._store(transaction)
        return Accepted(credited=await credit(transaction, due), waiting=after)

    async def _store(self, transaction: Transaction) -> None:
        seal = transaction.wallet.vault.seal
        brought = zip(self.deposit.ys, self.deposit.proofs, self.locktimes, strict=True)
        rows = [
            {
                "y": y,
                "keyset_id": proof.keyset_id,
                "counter": None,
                "amount": proof.amount,
                "secret": seal(proof.secret, table="proof", column="secret", row_id=y),
                "c": proof.c,
                "e": None,
                "s": None,
                "lock_key": self.lock_key,
                "locktime": locktime,
                "state": "locked",
            }
            for y, proof, locktime in brought
        ]
        await transaction.connection.execute(NEW_PROOF, rows)


async def locked_at(transaction: Transaction, mint_id: str) -> Waiting:
    """What waits at a mint; both units count as msat.

    Its row is locked where more than one process writes, so that all keep within one cap.
    """
    if transaction.dialect == "postgresql":
        await transaction.connection.execute(
            select(MINT.c.id).where(MINT.c.id == mint_id).with_for_update(key_share=True)
        )
    rows = await transaction.connection.execute(WAITING_AT, {"mint_id": mint_id})
    found = [(int(row.n), msat_from_unit(int(row.amount), row.unit)) for row in rows]
    return Waiting(proofs=sum(n for n, _ in found), amount_msat=sum(msat for _, msat in found))


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteOff(RowCommand[int]):
    """Locked ecash that its mint will not redeem is lost, in the books too; how many proofs were.

    The credit stands: when the truth cannot be known, the operator bears the loss.
    """

    ys: Sequence[str] = field(repr=False)

    async def run(self, transaction: Transaction) -> int:
        """locked → lost; what is not locked any more stays what it is."""
        lost = await transaction.connection.execute(
            update(PROOF)
            .where(PROOF.c.y.in_(list(self.ys)), PROOF.c.state == "locked")
            .values(state="lost")
        )
        return int(lost.rowcount)
