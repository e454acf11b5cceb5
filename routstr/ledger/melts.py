"""The commands of a Lightning payment out of a balance: begin, finish, fail. Algorithm C.

Begin debits what the invoice is over and the most that paying it may cost; what of that was not
needed comes back to the key when the payment is made. Inputs are chosen to cover both, and blanks
take back whatever they are worth beyond it (NUT-08).

A payment that was sent and never heard of cannot be called off by waiting. It is poisoned: its
inputs are swapped to ourselves (`poison.py`), after which the melt can never run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from sqlalchemy import select, text, update

from routstr.core.money import msat_from_unit, unit_from_msat
from routstr.ecash.outputs import BLANK, Output, blinded_messages_json
from routstr.ecash.proof import Proof
from routstr.ecash.selection import choose_cover
from routstr.errors import InvalidInvoice, MintShort, RequestsInFlight
from routstr.ledger.allowance import insufficient
from routstr.ledger.book import Account, KeyRef
from routstr.ledger.commands import RowCommand, Transaction
from routstr.ledger.issued import (
    WITHDRAWAL,
    Debit,
    WithdrawalView,
    Withdrawing,
    existing_withdrawal,
    finish_withdrawal,
    lock_hour,
    post_debit,
    view_withdrawal,
)
from routstr.ledger.purse import Drawn, draw, look
from routstr.ledger.sagas import (
    OPERATION,
    OUTPUT,
    PROOF,
    InputsJson,
    Operation,
    OperationState,
    Plan,
    move_operation,
    prepare,
    spend_inputs,
    store_proofs,
)

LOCK: Final = text("SELECT pg_advisory_xact_lock(7235411, hashtext(:name))")
MELT_INPUTS_MAX: Final = 500
"""A stock mint takes 1000 proofs in a request, and tells the states of as many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeltTerms:
    """A melt quote as it was agreed: `amount` and `fee_reserve` in the unit of the mint."""

    quote_id: str = field(repr=False)
    amount: int
    fee_reserve: int
    unit: str
    mint_id: str
    mint_url: str
    keyset_id: str
    recipient: str = field(repr=False)
    payment_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BeginMelt(RowCommand[Withdrawing]):
    """Debit a key for an invoice, its fee reserve and the mint's fee, and prepare the melt.

    Refuses with InvalidApiKey, InsufficientBalance, RequestsInFlight (emptying while holds exist),
    IdempotencyMismatch, MintShort, InvalidInvoice (another key's payment), Paused when the hour
    has no room for it. The same idempotency
    key, or an invoice this key is paying or has paid, yields the withdrawal there is.
    """

    withdrawal_id: str
    caller: KeyRef
    terms: MeltTerms
    empties: bool
    owner: str
    lease_s: float
    idempotency_key: str | None = None
    fingerprint: str | None = None
    hourly_msat_max: int = 0

    @property
    def keys(self) -> Sequence[KeyRef]:
        """The key to debit."""
        return (self.caller,)

    async def run(self, transaction: Transaction) -> Withdrawing:
        """The coins, the debit, the melt."""
        account = transaction.book.account(self.caller)
        existing = await existing_withdrawal(
            transaction,
            account,
            withdrawal_id=self.withdrawal_id,
            idempotency_key=self.idempotency_key,
            fingerprint=self.fingerprint,
            payment_hash=self.terms.payment_hash,
        )
        if existing is not None:
            return existing
        await self._check_unpaid(transaction, account)
        if self.empties and account.reserved_msat:
            raise RequestsInFlight
        await lock_hour(transaction, self.hourly_msat_max)
        drawn = await self._draw(transaction, account)
        account = await self._debit(transaction, account, drawn)
        operation = await self._prepare(transaction, drawn)
        view = await view_withdrawal(transaction, self.withdrawal_id, account)
        return Withdrawing(withdrawal=view, operation=operation)

    async def _check_unpaid(self, transaction: Transaction, account: Account) -> None:
        """Raises InvalidInvoice for an invoice that another key is paying or has paid.

        Its mint would refuse it, but another mint might pay it a second time.
        """
        payment_hash = self.terms.payment_hash
        if transaction.dialect == "postgresql":  # SQLite has one writer
            await transaction.connection.execute(LOCK, {"name": payment_hash})
        paid = select(WITHDRAWAL.c.id).where(
            WITHDRAWAL.c.payment_hash == payment_hash,
            WITHDRAWAL.c.api_key_id != account.id,
            WITHDRAWAL.c.status.in_(("pending", "completed")),
        )
        if await transaction.connection.scalar(paid.limit(1)) is not None:
            raise InvalidInvoice("The invoice is paid, or being paid.", param="invoice")

    async def _draw(self, transaction: Transaction, account: Account) -> Drawn:
        """Coins that cover the invoice, its reserve and their own fee, if the key can pay that."""
        terms = self.terms
        purse, fee_ppk = await look(transaction, terms.mint_id, terms.unit)
        owed = terms.amount + terms.fee_reserve
        cover = choose_cover(purse, owed, fee_ppk=fee_ppk)
        if cover is None or sum(cover.values()) > MELT_INPUTS_MAX:
            raise MintShort
        drawn = await draw(transaction, terms.mint_id, terms.unit, cover)
        wanted_msat = msat_from_unit(owed + drawn.fee_amount, terms.unit)
        if wanted_msat > account.available_msat:
            raise insufficient(account, wanted_msat)
        return drawn

    async def _debit(self, transaction: Transaction, account: Account, drawn: Drawn) -> Account:
        terms = self.terms
        debit = Debit(
            withdrawal_id=self.withdrawal_id,
            way="lightning",
            amount=terms.amount,
            fee_amount=terms.fee_reserve + drawn.fee_amount,
            unit=terms.unit,
            mint_url=terms.mint_url,
            status="pending",
            recipient=terms.recipient,
            payment_hash=terms.payment_hash,
            idempotency_key=self.idempotency_key,
            fingerprint=self.fingerprint,
            hourly_msat_max=self.hourly_msat_max,
        )
        return await post_debit(transaction, account, debit)

    async def _prepare(self, transaction: Transaction, drawn: Drawn) -> Operation:
        """The melt, with blanks for all that its inputs are worth beyond the invoice."""
        terms = self.terms
        over = drawn.amount - terms.amount - drawn.fee_amount
        operation = await prepare(
            transaction,
            Plan(
                kind="melt",
                mint_id=terms.mint_id,
                keyset_id=terms.keyset_id,
                unit=terms.unit,
                inputs=drawn.proofs,
                outputs=[(BLANK, "change")] * over.bit_length(),
                input_amount=drawn.amount,
                fee_amount=terms.fee_reserve + drawn.fee_amount,
                owner=self.owner,
                lease_s=self.lease_s,
                withdrawal_id=self.withdrawal_id,
                quote_id=terms.quote_id,
                compose=self._compose,
            ),
        )
        await transaction.connection.execute(
            update(PROOF).where(PROOF.c.y.in_(drawn.ys)).values(operation_id=operation.id)
        )
        return operation

    def _compose(self, inputs: InputsJson, outputs: Sequence[Output]) -> Mapping[str, object]:
        """The body of a melt (NUT-05, NUT-08); a mint that can answers before it has paid."""
        return {
            "quote": self.terms.quote_id,
            "inputs": inputs,
            "outputs": blinded_messages_json(outputs),
            "prefer_async": True,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishMelt(RowCommand[WithdrawalView]):
    """The mint has paid: spend the inputs, store the change, return what the fee did not need.

    `change` is worth at most what was overpaid; it and `ys` go position by position. A mint that
    keeps more than its reserve is paid by the operator: nobody pays above what was shown. Refuses
    with Pending whoever has lost the lease: the inputs may be in another operation's name by now.
    A repeat changes nothing.
    """

    operation: Operation = field(repr=False)
    api_key_id: str
    change: Sequence[Proof] = field(repr=False)
    ys: Sequence[str] = field(repr=False)
    preimage: str | None = field(repr=False)

    @property
    def keys(self) -> Sequence[KeyRef]:
        """The key that was debited."""
        return (KeyRef(id=self.api_key_id),)

    async def run(self, transaction: Transaction) -> WithdrawalView:
        """sent → done, pending → completed."""
        account = transaction.book.account(KeyRef(id=self.api_key_id))
        withdrawal_id = _withdrawal_of(self.operation)
        view = await view_withdrawal(transaction, withdrawal_id, account)
        if view.status != "pending":
            return view
        operation = self.operation
        await move_operation(
            transaction, operation.id, OperationState.DONE, owner=operation.lease_owner
        )
        await spend_inputs(transaction, operation.id)
        await self._store_change(transaction)
        kept = operation.input_amount - sum(proof.amount for proof in self.change)
        true_fee = kept - unit_from_msat(view.amount_msat, view.unit)
        assert true_fee >= 0, "the change is judged before it gets here"
        await transaction.connection.execute(
            update(OPERATION).where(OPERATION.c.id == operation.id).values(fee_amount=true_fee)
        )
        returned_msat = max(view.fee_msat - msat_from_unit(true_fee, view.unit), 0)
        if returned_msat:
            account = transaction.book.post(
                account,
                returned_msat,
                "refund",
                f"fee-refund:{withdrawal_id}",
                description="Lightning fee not needed",
            )
        sealed = None
        if self.preimage is not None:
            sealed = transaction.wallet.vault.seal(
                self.preimage, table="withdrawal", column="preimage", row_id=withdrawal_id
            )
        await finish_withdrawal(
            transaction,
            withdrawal_id,
            {"status": "completed", "fee_returned": returned_msat, "preimage": sealed},
        )
        return await view_withdrawal(transaction, withdrawal_id, account)

    async def _store_change(self, transaction: Transaction) -> None:
        """Store it as the proofs of the blanks whose secrets it has, and what those came to."""
        if not self.change:
            return
        melt = self.operation
        positions = {output.secret: position for position, output in enumerate(melt.outputs)}
        signed = [positions[proof.secret] for proof in self.change]
        storing = replace(
            melt,
            outputs=tuple(melt.outputs[position] for position in signed),
            purposes=tuple(melt.purposes[position] for position in signed),
        )
        await store_proofs(transaction, storing, self.change, self.ys, withdrawal_id=None)
        for position, proof in zip(signed, self.change, strict=True):
            await transaction.connection.execute(
                update(OUTPUT)
                .where(OUTPUT.c.operation_id == melt.id, OUTPUT.c.position == position)
                .values(amount=proof.amount)
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class FailMelt(RowCommand[WithdrawalView]):
    """A definite no of the mint: the coins go back to the purse, all of the money to the key.

    But for coins that were spent all the same: they are `lost`, and the loss is the operator's.
    """

    operation: Operation = field(repr=False)
    api_key_id: str
    code: str
    lost: Sequence[str] = field(default=(), repr=False)

    @property
    def keys(self) -> Sequence[KeyRef]:
        """The key to refund."""
        return (KeyRef(id=self.api_key_id),)

    async def run(self, transaction: Transaction) -> WithdrawalView:
        """sent → failed, pending → failed, one refund row."""
        failing = self.operation
        if self.lost:
            await transaction.connection.execute(
                update(PROOF)
                .where(
                    PROOF.c.operation_id == failing.id,
                    PROOF.c.state == "reserved",
                    PROOF.c.y.in_(list(self.lost)),
                )
                .values(state="lost")
            )
        return await fail_melt(
            transaction,
            failing,
            api_key_id=self.api_key_id,
            code=self.code,
            coins_are="unspent",
            kept_msat=0,
        )


async def fail_melt(
    transaction: Transaction,
    melt: Operation,
    *,
    api_key_id: str,
    code: str,
    coins_are: str,
    kept_msat: int,
) -> WithdrawalView:
    """sent → failed, pending → failed, one refund row: the debit less what is kept of its fee."""
    account = transaction.book.account(KeyRef(id=api_key_id))
    withdrawal_id = _withdrawal_of(melt)
    view = await view_withdrawal(transaction, withdrawal_id, account)
    if view.status != "pending":
        return view
    await move_operation(
        transaction, melt.id, OperationState.FAILED, code=code, owner=melt.lease_owner
    )
    await transaction.connection.execute(
        update(PROOF)
        .where(PROOF.c.operation_id == melt.id, PROOF.c.state == "reserved")
        .values(state=coins_are, operation_id=None if coins_are == "unspent" else melt.id)
    )
    returned_msat = max(view.fee_msat - kept_msat, 0)
    account = transaction.book.post(
        account,
        view.amount_msat + returned_msat,
        "refund",
        f"refund:{withdrawal_id}",
        description="Lightning payment failed",
    )
    await finish_withdrawal(
        transaction,
        withdrawal_id,
        {
            "status": "failed",
            "fee_returned": returned_msat,
            "error_message": f"not paid, code {code}",
            "idempotency_key": None,
        },
    )
    return await view_withdrawal(transaction, withdrawal_id, account)


def _withdrawal_of(operation: Operation) -> str:
    assert operation.withdrawal_id is not None, "a melt pays out a withdrawal"
    return operation.withdrawal_id
