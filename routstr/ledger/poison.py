"""Poisoning a melt that was sent and never heard of: its inputs are swapped to the node itself.

Once that swap is done the melt can never run, so its money can go back to the key. While it is
open the inputs are in its name; if the mint will not swap them they are the melt's again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from sqlalchemy import select, update

from routstr.core.money import msat_from_unit
from routstr.ecash.proof import Proof
from routstr.errors import Pending
from routstr.ledger.book import KeyRef
from routstr.ledger.commands import RowCommand, Transaction
from routstr.ledger.issued import WithdrawalView
from routstr.ledger.melts import fail_melt
from routstr.ledger.sagas import (
    OPERATION,
    PROOF,
    Operation,
    OperationState,
    Plan,
    load_operation,
    move_operation,
    prepare,
    store_proofs,
)

POISONED: Final = "poisoned"
DOUBTFUL_STATES: Final = (OperationState.SENT, OperationState.WAITING, OperationState.WATCH)


@dataclass(frozen=True, slots=True, kw_only=True)
class BeginPoison(RowCommand[Operation]):
    """Prepare the swap that makes a lost melt impossible: the same inputs, to ourselves.

    Refuses with Pending whoever has not the melt's lease any more. `owner` is the lease of the
    swap; one that another process began comes back with that one's.
    """

    melt: Operation = field(repr=False)
    keyset_id: str
    output_amounts: Sequence[int]
    owner: str
    lease_s: float

    async def run(self, transaction: Transaction) -> Operation:
        """The successor, with the inputs in its name; a repeat finds the one there is."""
        open_one = await transaction.connection.scalar(
            select(OPERATION.c.id).where(
                OPERATION.c.predecessor_id == self.melt.id,
                OPERATION.c.state != OperationState.FAILED,
            )
        )
        if open_one is not None:
            return await load_operation(transaction.connection, transaction.wallet, open_one)
        held = await transaction.connection.execute(
            update(OPERATION)
            .where(
                OPERATION.c.id == self.melt.id,
                OPERATION.c.lease_owner == self.melt.lease_owner,
                OPERATION.c.state.in_(DOUBTFUL_STATES),
            )
            .values(last_code=POISONED)
        )
        if held.rowcount != 1:
            raise Pending("Another node has taken this operation over.")
        output_amount = sum(self.output_amounts)
        operation = await prepare(
            transaction,
            Plan(
                kind="swap",
                mint_id=self.melt.mint_id,
                keyset_id=self.keyset_id,
                unit=self.melt.unit,
                inputs=self.melt.inputs,
                outputs=[(amount, "keep") for amount in self.output_amounts],
                input_amount=self.melt.input_amount,
                fee_amount=self.melt.input_amount - output_amount,
                owner=self.owner,
                lease_s=self.lease_s,
                predecessor_id=self.melt.id,
            ),
        )
        await _rename_inputs(transaction, self.melt.id, operation.id)
        return operation


@dataclass(frozen=True, slots=True, kw_only=True)
class EndPoison(RowCommand[WithdrawalView]):
    """The inputs are ours anew: the payment never happened, its money goes back to the key.

    What the swap cost is the payer's, as with every swap for a withdrawal.
    """

    poison: Operation = field(repr=False)
    melt: Operation = field(repr=False)
    api_key_id: str
    proofs: Sequence[Proof] = field(repr=False)
    ys: Sequence[str] = field(repr=False)

    @property
    def keys(self) -> Sequence[KeyRef]:
        """The key to refund."""
        return (KeyRef(id=self.api_key_id),)

    async def run(self, transaction: Transaction) -> WithdrawalView:
        """Poison → done, melt → failed, withdrawal → failed, one refund row."""
        if await move_operation(transaction, self.poison.id, OperationState.DONE):
            await store_proofs(transaction, self.poison, self.proofs, self.ys, withdrawal_id=None)
            await _rename_inputs(transaction, self.poison.id, self.melt.id)
        return await fail_melt(
            transaction,
            replace(self.melt, lease_owner=None),
            api_key_id=self.api_key_id,
            code=POISONED,
            coins_are="spent",
            kept_msat=msat_from_unit(self.poison.fee_amount, self.poison.unit),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FailPoison(RowCommand[None]):
    """The mint would not swap the inputs: they are the melt's again, and its end is open."""

    poison: Operation = field(repr=False)
    code: str

    async def run(self, transaction: Transaction) -> None:
        """Poison → failed; the melt is due at once."""
        failing = self.poison
        moved = await move_operation(
            transaction,
            failing.id,
            OperationState.FAILED,
            code=self.code,
            owner=failing.lease_owner,
        )
        if moved:
            assert failing.predecessor_id is not None
            await _rename_inputs(transaction, failing.id, failing.predecessor_id)
            await transaction.connection.execute(
                update(OPERATION)
                .where(OPERATION.c.id == failing.predecessor_id)
                .values(next_attempt_at=transaction.book.now)
            )


async def _rename_inputs(transaction: Transaction, before_id: str, after_id: str) -> None:
    await transaction.connection.execute(
        update(PROOF)
        .where(PROOF.c.operation_id == before_id, PROOF.c.state == "reserved")
        .values(operation_id=after_id)
    )
