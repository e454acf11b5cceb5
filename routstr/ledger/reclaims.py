"""The commands about tokens that were given out: claimed by somebody, or taken back unclaimed.

A token is the user's from the commit that stored it. When the mint calls all of it spent it is
`claimed`, and its text is erased. What nobody claimed in time is swapped back for the node, and
the key it was debited from gets what that brought: proofs stored and key credited are one commit.
While that swap is open the token stays `completed` and readable: the mint decides who was first.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import select, update

from routstr.core.money import msat_from_unit
from routstr.ecash.amounts import FloatGoal
from routstr.ecash.errors import InvalidAmount
from routstr.ecash.proof import Proof
from routstr.errors import MintShort
from routstr.ledger.book import KeyRef
from routstr.ledger.commands import LostRace, RowCommand, Transaction
from routstr.ledger.issued import WITHDRAWAL
from routstr.ledger.purse import look, open_issued
from routstr.ledger.sagas import (
    OPEN_STATES,
    OPERATION,
    PROOF,
    Operation,
    OperationState,
    Plan,
    move_operation,
    prepare,
    prepared_by,
    store_proofs,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimWithdrawal(RowCommand[bool]):
    """Every proof of the token is spent at its mint: nothing of it is left to read or take back.

    False if it is not `completed` (any more), if not all its proofs are among `ys`, or if a reclaim
    of it is open: then they may be spent by us.
    """

    withdrawal_id: str
    ys: Sequence[str] = field(repr=False)

    async def run(self, transaction: Transaction) -> bool:
        """issued → spent, completed → claimed, and the token erased."""
        connection = transaction.connection
        status = await connection.scalar(
            select(WITHDRAWAL.c.status).where(WITHDRAWAL.c.id == self.withdrawal_id)
        )
        if status == "claimed":
            return True
        if await _open_reclaim(transaction, self.withdrawal_id) is not None:
            return False
        issued = await connection.execute(
            select(PROOF.c.y).where(
                PROOF.c.withdrawal_id == self.withdrawal_id, PROOF.c.state == "issued"
            )
        )
        if not set(issued.scalars()) <= set(self.ys):
            return False
        claimed = await connection.execute(
            update(WITHDRAWAL)
            .where(
                WITHDRAWAL.c.id == self.withdrawal_id,
                WITHDRAWAL.c.status == "completed",
                WITHDRAWAL.c.way == "token",
            )
            .values(status="claimed", token=None)
        )
        if claimed.rowcount != 1:
            return False
        await _spend(transaction, self.withdrawal_id)
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class BeginReclaim(RowCommand[Operation]):
    """Prepare the swap of those proofs of a token that nobody claimed, for its key's benefit.

    The mint must have called all the token's other proofs spent. A repeat finds the operation by
    its lease. Refuses with MintShort when there is nothing to take back, or when that would cost
    more than it brings; changes nothing but for the operation.
    """

    withdrawal_id: str
    keyset_id: str
    ys: Sequence[str] = field(repr=False)
    goal: FloatGoal
    owner: str
    lease_s: float

    async def run(self, transaction: Transaction) -> Operation:
        """The operation; the token is its holder's until the mint has signed."""
        made = await prepared_by(transaction, self.owner)
        if made is not None:
            return made
        if await _open_reclaim(transaction, self.withdrawal_id) is not None:
            raise MintShort("This token is being taken back already.")
        issued = await open_issued(transaction, self.withdrawal_id, self.ys)
        net_amount = issued.amount - issued.fee_amount
        if net_amount < 1:
            raise MintShort("Taking this token back costs more than it brings.")
        counts, _ = await look(transaction, issued.mint_id, issued.unit)
        try:
            amounts = self.goal.split(net_amount, counts)
        except InvalidAmount as error:
            raise MintShort("The mint's denominations do not fit this amount.") from error
        return await prepare(
            transaction,
            Plan(
                kind="receive",
                mint_id=issued.mint_id,
                keyset_id=self.keyset_id,
                unit=issued.unit,
                inputs=issued.proofs,
                outputs=[(amount, "keep") for amount in amounts],
                input_amount=issued.amount,
                fee_amount=issued.fee_amount,
                owner=self.owner,
                lease_s=self.lease_s,
                withdrawal_id=self.withdrawal_id,
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EndReclaim(RowCommand[bool]):
    """The mint signed: store the proofs, credit the key, erase the token, in one commit.

    The key gets what the swap brought: the face value of what was left, less the mint's fee. The
    idempotency key is free again: the token it stood for is no more. False for a repeat.
    """

    operation: Operation = field(repr=False)
    api_key_id: str
    proofs: Sequence[Proof] = field(repr=False)
    ys: Sequence[str] = field(repr=False)

    @property
    def keys(self) -> Sequence[KeyRef]:
        """The key that was debited once, and gets it back."""
        return (KeyRef(id=self.api_key_id),)

    async def run(self, transaction: Transaction) -> bool:
        """sent → done, issued → spent, completed → reclaimed, and the money."""
        operation, book = self.operation, transaction.book
        assert operation.withdrawal_id is not None
        if not await move_operation(transaction, operation.id, OperationState.DONE):
            return False
        await _spend(transaction, operation.withdrawal_id)
        await store_proofs(transaction, operation, self.proofs, self.ys, withdrawal_id=None)
        book.post(
            book.account(KeyRef(id=self.api_key_id)),
            msat_from_unit(operation.input_amount - operation.fee_amount, operation.unit),
            "refund",
            f"refund:{operation.withdrawal_id}",
            description="Unclaimed token",
        )
        ended = await transaction.connection.execute(
            update(WITHDRAWAL)
            .where(WITHDRAWAL.c.id == operation.withdrawal_id, WITHDRAWAL.c.status == "completed")
            .values(status="reclaimed", token=None, idempotency_key=None)
        )
        if ended.rowcount != 1:
            raise LostRace
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class FailReclaim(RowCommand[bool]):
    """It was not taken back, definitely: the token is what it was before; False for a repeat."""

    operation: Operation = field(repr=False)
    code: str

    async def run(self, transaction: Transaction) -> bool:
        """sent → failed."""
        return await move_operation(
            transaction,
            self.operation.id,
            OperationState.FAILED,
            code=self.code,
            owner=self.operation.lease_owner,
        )


async def _open_reclaim(transaction: Transaction, withdrawal_id: str) -> str | None:
    found: str | None = await transaction.connection.scalar(
        select(OPERATION.c.id).where(
            OPERATION.c.withdrawal_id == withdrawal_id,
            OPERATION.c.kind == "receive",
            OPERATION.c.state.in_(OPEN_STATES),
        )
    )
    return found


async def _spend(transaction: Transaction, withdrawal_id: str) -> None:
    await transaction.connection.execute(
        update(PROOF)
        .where(PROOF.c.withdrawal_id == withdrawal_id, PROOF.c.state == "issued")
        .values(state="spent")
    )
