"""The commands of a deposit: begin (intent), credit, fail, replace. Algorithm A of the design.

A proof's Y is in `deposit_input` from the intent on: two requests, two processes or two nodes with
the same token meet there, and one of them wins. Proofs stored and key credited are one commit.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from sqlalchemy import bindparam, delete, func, insert, select, update

from routstr.ecash.amounts import FloatGoal
from routstr.ecash.proof import Proof
from routstr.errors import IdempotencyMismatch, TokenAlreadySpent, TokenRedemptionFailed
from routstr.ledger.accounts import NewKey
from routstr.ledger.allowance import check_creditable
from routstr.ledger.book import KeyRef
from routstr.ledger.commands import LostRace, RowCommand, Transaction
from routstr.ledger.credits import DEPOSIT, Credited, Due, credit, first_credit
from routstr.ledger.invites import give_back_use, held_until, hold_use
from routstr.ledger.purse import split_for
from routstr.ledger.sagas import (
    Operation,
    OperationState,
    Plan,
    load_operation,
    move_operation,
    prepare,
    store_proofs,
)
from routstr.ledger.tables import ONE_SHOT, DepositInput, MintOperation, table_of

INPUT = table_of(DepositInput)
OPERATION = table_of(MintOperation)
# Made once: making a statement costs more than running it.
TAKEN: Final = select(INPUT.c.deposit_id).where(INPUT.c.y.in_(bindparam("ys", expanding=True)))
NEW_DEPOSIT: Final = insert(DEPOSIT)
NEW_INPUT: Final = insert(INPUT)

INVITE_HELD_S: Final = 3600.0  # by a deposit whose mint is silent; one that fails gives it back
DepositState = Literal["pending", "credited", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DepositView:
    """A deposit as it stands. `operation_id` is its newest operation; amounts in msat."""

    id: str
    state: DepositState
    api_key_id: str | None
    opens_key: bool
    credit_msat: int
    unit: str
    mint_url: str
    error_code: str | None
    operation_id: str | None
    operation_state: OperationState | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """What became of an intent: a new operation to drive, or the deposit that was there first."""

    deposit: DepositView
    operation: Operation | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BeginDeposit(RowCommand[Begun]):
    """Commit the intent to swap a token for a key, new (`new_key`) or existing (`target`).

    Amounts are in the mint's unit but for `credit_msat`; with a `goal` the outputs are of what the
    float lacks, of the same worth. The same token for the same account
    attaches to the deposit there is; refuses with TokenAlreadySpent for any other use of a known
    Y, InvalidApiKey, KeyRevoked, ChildKey, IdempotencyMismatch, InviteRequired, and with
    TokenRedemptionFailed where it `only_joins` and there is none any more.
    """

    deposit_id: str
    target: KeyRef | None
    new_key: NewKey | None = field(repr=False)
    mint_id: str
    mint_url: str
    unit: str
    keyset_id: str
    proofs: Sequence[Proof] = field(repr=False)
    ys: Sequence[str] = field(repr=False)
    output_amounts: Sequence[int]
    face_amount: int
    fee_amount: int
    credit_msat: int
    source: str
    owner: str
    lease_s: float
    idempotency_key: str | None = None
    fingerprint: str | None = None
    only_joins: bool = False
    goal: FloatGoal | None = None

    @property
    def keys(self) -> Sequence[KeyRef]:
        """The account to top up, if it exists already."""
        return () if self.target is None else (self.target,)

    async def run(self, transaction: Transaction) -> Begun:
        """Attach, refuse, or write deposit, Ys and the prepared operation."""
        account = None if self.target is None else transaction.book.account(self.target)
        if account is not None:
            check_creditable(account)
        account_id = None if account is None else account.id
        existing = await self.existing(transaction, account_id)
        if existing is not None:
            return Begun(deposit=existing, operation=await self._own(transaction, existing))
        await self.write(transaction, account_id)
        amounts = self.output_amounts
        if self.goal is not None:
            amounts = await split_for(transaction, self.goal, self.mint_id, self.unit, amounts)
        operation = await prepare(
            transaction,
            Plan(
                kind="receive",
                mint_id=self.mint_id,
                keyset_id=self.keyset_id,
                unit=self.unit,
                inputs=self.proofs,
                outputs=[(amount, "keep") for amount in amounts],
                input_amount=self.face_amount,
                fee_amount=self.fee_amount,
                owner=self.owner,
                lease_s=self.lease_s,
                deposit_id=self.deposit_id,
            ),
        )
        deposit = await view_deposit(transaction, self.deposit_id)
        assert deposit is not None
        return Begun(deposit=deposit, operation=operation)

    async def existing(
        self, transaction: Transaction, account_id: str | None
    ) -> DepositView | None:
        """The deposit of these Ys. Raises what keeps this one from being it."""
        connection = transaction.connection
        if self.idempotency_key is not None and account_id is not None:
            row = (
                await connection.execute(
                    select(DEPOSIT.c.id, DEPOSIT.c.fingerprint).where(
                        DEPOSIT.c.api_key_id == account_id,
                        DEPOSIT.c.idempotency_key == self.idempotency_key,
                    )
                )
            ).one_or_none()
            if row is not None and row.fingerprint != self.fingerprint:
                raise IdempotencyMismatch
        taken = await connection.execute(TAKEN, {"ys": self.ys})
        ids = list(taken.scalars())
        if not ids and self.only_joins:
            raise TokenRedemptionFailed("It failed meanwhile; bring it again.")
        if not ids:
            return None
        inputs = await connection.scalar(
            select(func.count()).select_from(INPUT).where(INPUT.c.deposit_id == ids[0])
        )
        if len(set(ids)) != 1 or len(ids) != len(self.ys) or inputs != len(self.ys):
            raise TokenAlreadySpent("Some proofs of this token were used before.")
        deposit = await view_deposit(transaction, ids[0])
        assert deposit is not None
        if account_id is not None and deposit.api_key_id != account_id:
            raise TokenAlreadySpent
        attaches = deposit.opens_key and self.source != ONE_SHOT
        if account_id is None and not attaches and deposit.id != self.deposit_id:
            raise TokenAlreadySpent  # whoever made the token would get the key it topped up
        return deposit

    async def _own(self, transaction: Transaction, existing: DepositView) -> Operation | None:
        """The operation to drive when this very command was committed before, its answer lost."""
        is_own = existing.id == self.deposit_id
        if not is_own or existing.operation_state is not OperationState.PREPARED:
            return None
        assert existing.operation_id is not None
        return await load_operation(
            transaction.connection, transaction.wallet, existing.operation_id
        )

    async def write(
        self, transaction: Transaction, account_id: str | None, *, is_locked: bool = False
    ) -> Due:
        """The deposit's row and its Ys, pending; what is due to be credited."""
        new_key = self.new_key if account_id is None else None
        if new_key is not None and new_key.invite is not None:
            until = held_until(transaction.book.now, INVITE_HELD_S)
            await hold_use(transaction, new_key.invite, new_key.id, until=until)
        sealed = None
        if new_key is not None and new_key.text:
            sealed = transaction.wallet.vault.seal(
                new_key.text, table="deposit", column="sealed_key", row_id=self.deposit_id
            )
        due = Due(
            id=self.deposit_id,
            api_key_id=account_id,
            credit_msat=self.credit_msat,
            new_key=None if new_key is None else new_key.terms(),
        )
        await transaction.connection.execute(
            NEW_DEPOSIT,
            {
                "id": due.id,
                "api_key_id": due.api_key_id,
                "state": "pending",
                "source": self.source,
                "mint_url": self.mint_url,
                "unit": self.unit,
                "face_amount": self.face_amount,
                "credit_msat": due.credit_msat,
                "sealed_key": sealed,
                "new_key": due.new_key,
                "idempotency_key": self.idempotency_key,
                "fingerprint": self.fingerprint,
                "created_at": transaction.book.now,
                "is_locked": is_locked,
            },
        )
        await transaction.connection.execute(
            NEW_INPUT, [{"y": y, "deposit_id": self.deposit_id} for y in self.ys]
        )
        return due


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditDeposit(RowCommand[Credited]):
    """The mint signed: store the proofs, credit the key, end the operation, in one commit.

    `proofs` and `ys` go position by position with the operation's outputs. A repeat yields the
    first result.
    """

    operation: Operation = field(repr=False)
    proofs: Sequence[Proof] = field(repr=False)
    ys: Sequence[str] = field(repr=False)
    api_key_id: str | None

    @property
    def keys(self) -> Sequence[KeyRef]:
        """The account to credit, if it exists already."""
        return () if self.api_key_id is None else (KeyRef(id=self.api_key_id),)

    async def run(self, transaction: Transaction) -> Credited:
        """sent → done, pending → credited, and the money."""
        connection = transaction.connection
        row = (
            await connection.execute(
                select(DEPOSIT).where(DEPOSIT.c.id == self.operation.deposit_id)
            )
        ).one()
        if row.state == "credited":
            return await first_credit(transaction, row.id)
        await move_operation(transaction, self.operation.id, OperationState.DONE)
        await store_proofs(transaction, self.operation, self.proofs, self.ys, withdrawal_id=None)
        return await credit(transaction, row)


@dataclass(frozen=True, slots=True, kw_only=True)
class FailDeposit(RowCommand[None]):
    """A definite no of the mint: end the operation, free the Ys, tell why.

    Its idempotency key is free again: nothing was credited, so a repeat may run anew.
    """

    operation: Operation = field(repr=False)
    code: str
    error_code: str

    async def run(self, transaction: Transaction) -> None:
        """→ failed; the token is the user's again."""
        failing = self.operation
        await move_operation(
            transaction,
            failing.id,
            OperationState.FAILED,
            code=self.code,
            owner=failing.lease_owner,
        )
        failed = await transaction.connection.execute(
            update(DEPOSIT)
            .where(DEPOSIT.c.id == self.operation.deposit_id, DEPOSIT.c.state == "pending")
            .values(state="failed", error_code=self.error_code, idempotency_key=None)
        )
        if failed.rowcount:
            new_key = await transaction.connection.scalar(
                select(DEPOSIT.c.new_key).where(DEPOSIT.c.id == self.operation.deposit_id)
            )
            await give_back_use(transaction, new_key)
            await transaction.connection.execute(
                delete(INPUT).where(INPUT.c.deposit_id == self.operation.deposit_id)
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaceDepositOperation(RowCommand[Operation]):
    """After a safe refusal for stale keysets: fail the old body, prepare one successor."""

    operation: Operation = field(repr=False)
    code: str
    keyset_id: str
    output_amounts: Sequence[int]
    face_amount: int
    fee_amount: int
    credit_msat: int
    owner: str
    lease_s: float

    async def run(self, transaction: Transaction) -> Operation:
        """The same inputs, new outputs; the deposit's credit follows the new fee."""
        successor_id = await transaction.connection.scalar(
            select(OPERATION.c.id).where(OPERATION.c.predecessor_id == self.operation.id)
        )
        if successor_id is not None:
            return await load_operation(transaction.connection, transaction.wallet, successor_id)
        failing = self.operation
        await move_operation(
            transaction,
            failing.id,
            OperationState.FAILED,
            code=self.code,
            owner=failing.lease_owner,
        )
        changed = await transaction.connection.execute(
            update(DEPOSIT)
            .where(DEPOSIT.c.id == self.operation.deposit_id, DEPOSIT.c.state == "pending")
            .values(credit_msat=self.credit_msat)
        )
        if changed.rowcount != 1:
            raise LostRace
        return await prepare(
            transaction,
            Plan(
                kind="receive",
                mint_id=self.operation.mint_id,
                keyset_id=self.keyset_id,
                unit=self.operation.unit,
                inputs=self.operation.inputs,
                outputs=[(amount, "keep") for amount in self.output_amounts],
                input_amount=self.face_amount,
                fee_amount=self.fee_amount,
                owner=self.owner,
                lease_s=self.lease_s,
                deposit_id=self.operation.deposit_id,
                predecessor_id=self.operation.id,
            ),
        )


async def view_deposit(transaction: Transaction, deposit_id: str) -> DepositView | None:
    """The deposit with its newest operation."""
    row = (
        await transaction.connection.execute(
            select(DEPOSIT, OPERATION.c.id.label("operation_id"), OPERATION.c.state.label("moved"))
            .outerjoin(OPERATION, OPERATION.c.deposit_id == DEPOSIT.c.id)
            .where(DEPOSIT.c.id == deposit_id)
            .order_by(OPERATION.c.created_at.desc())
            .limit(1)
        )
    ).one_or_none()
    if row is None:
        return None
    return DepositView(
        id=row.id,
        state=row.state,
        api_key_id=row.api_key_id,
        opens_key=row.new_key is not None and row.source != ONE_SHOT,
        credit_msat=row.credit_msat,
        unit=row.unit,
        mint_url=row.mint_url,
        error_code=row.error_code,
        operation_id=row.operation_id,
        operation_state=None if row.moved is None else OperationState(row.moved),
    )
