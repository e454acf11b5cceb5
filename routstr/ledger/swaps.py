"""The commands of a swap of the node's own: coins for other coins, nobody's balance concerned.

The change float, keysets that retire, and locked ecash being redeemed all go this way, and ecash
that the operator brings. What a swap costs is the operator's, so whoever begins one looks at the
surplus first (I-3).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from sqlalchemy import update

from routstr.core.money import msat_from_unit
from routstr.ecash.proof import Proof
from routstr.errors import MintShort
from routstr.ledger.commands import RowCommand, Transaction
from routstr.ledger.profit import surplus_msat
from routstr.ledger.purse import draw_these, give_back
from routstr.ledger.sagas import (
    PROOF,
    Operation,
    OperationState,
    Plan,
    move_operation,
    prepare,
    prepared_by,
    spend_inputs,
    store_proofs,
)

OwnKind = Literal["swap", "redeem"]
FROM_STATE: Final[Mapping[str, str]] = {"swap": "unspent", "redeem": "locked"}

Unlock = Callable[[Proof], Proof]
"""From a locked proof to the same with its witness (NUT-11)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BeginSwap(RowCommand[Operation]):
    """Reserve coins of the node's own and prepare their swap; `redeem` is one of locked coins.

    `output_amounts`, in the unit, must be what the inputs make less their fee. Refuses with
    MintShort when coins or fee are not as the caller saw them, and when the surplus does not pay
    the fee of a `swap`, unless it `must` be. `owner`, a lease id of this command
    alone, lets a repeat find the operation that it made.
    """

    kind: OwnKind
    mint_id: str
    unit: str
    keyset_id: str
    ys: Sequence[str]
    output_amounts: Sequence[int]
    owner: str
    lease_s: float
    predecessor_id: str | None = None
    unlock: Unlock | None = field(default=None, repr=False)
    must: bool = True

    async def run(self, transaction: Transaction) -> Operation:
        """unspent or locked → reserved, and the operation."""
        made = await prepared_by(transaction, self.owner)
        if made is not None:
            return made
        spare_msat = None if self.must else await surplus_msat(transaction, for_fee=True)
        drawn = await draw_these(transaction, self.ys, state=FROM_STATE[self.kind])
        if sum(self.output_amounts) != drawn.amount - drawn.fee_amount:
            raise MintShort("The fee of these coins has changed meanwhile.")
        if spare_msat is not None and msat_from_unit(drawn.fee_amount, self.unit) > spare_msat:
            raise MintShort("The fee of these coins is above the surplus.")
        operation = await prepare(
            transaction,
            Plan(
                kind=self.kind,
                mint_id=self.mint_id,
                keyset_id=self.keyset_id,
                unit=self.unit,
                inputs=_unlocked(drawn.proofs, self.unlock),
                outputs=[(amount, "keep") for amount in self.output_amounts],
                input_amount=drawn.amount,
                fee_amount=drawn.fee_amount,
                owner=self.owner,
                lease_s=self.lease_s,
                predecessor_id=self.predecessor_id,
            ),
        )
        await transaction.connection.execute(
            update(PROOF).where(PROOF.c.y.in_(drawn.ys)).values(operation_id=operation.id)
        )
        return operation


def _unlocked(proofs: Sequence[Proof], unlock: Unlock | None) -> Sequence[Proof]:
    return proofs if unlock is None else [unlock(proof) for proof in proofs]


@dataclass(frozen=True, slots=True, kw_only=True)
class BeginReceive(RowCommand[Operation]):
    """Prepare the swap of ecash that comes to the node itself: nobody's balance grows.

    Amounts are in the unit. A repeat finds the operation by its lease, as that of `BeginSwap`.
    """

    mint_id: str
    unit: str
    keyset_id: str
    proofs: Sequence[Proof] = field(repr=False)
    output_amounts: Sequence[int]
    fee_amount: int
    owner: str
    lease_s: float

    async def run(self, transaction: Transaction) -> Operation:
        """The operation; its inputs are not ours yet."""
        made = await prepared_by(transaction, self.owner)
        if made is not None:
            return made
        return await prepare(
            transaction,
            Plan(
                kind="receive",
                mint_id=self.mint_id,
                keyset_id=self.keyset_id,
                unit=self.unit,
                inputs=self.proofs,
                outputs=[(amount, "keep") for amount in self.output_amounts],
                input_amount=sum(proof.amount for proof in self.proofs),
                fee_amount=self.fee_amount,
                owner=self.owner,
                lease_s=self.lease_s,
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EndSwap(RowCommand[bool]):
    """The mint signed: the inputs are spent, the outputs are the node's; False for a repeat."""

    operation: Operation = field(repr=False)
    proofs: Sequence[Proof] = field(repr=False)
    ys: Sequence[str] = field(repr=False)

    async def run(self, transaction: Transaction) -> bool:
        """sent → done."""
        if not await move_operation(transaction, self.operation.id, OperationState.DONE):
            return False
        await spend_inputs(transaction, self.operation.id)
        await store_proofs(transaction, self.operation, self.proofs, self.ys, withdrawal_id=None)
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class FailSwap(RowCommand[bool]):
    """A definite no of the mint: the coins are what they were before; False for a repeat.

    But for those that the mint went back on: they are `lost`.
    """

    operation: Operation = field(repr=False)
    code: str
    lost: Sequence[str] = field(default=(), repr=False)

    async def run(self, transaction: Transaction) -> bool:
        """sent → failed, reserved → unspent or locked."""
        failing = self.operation
        if not await move_operation(
            transaction,
            failing.id,
            OperationState.FAILED,
            code=self.code,
            owner=failing.lease_owner,
        ):
            return False
        await give_back(
            transaction, failing.id, to=FROM_STATE.get(failing.kind, "unspent"), lost=self.lost
        )
        return True
