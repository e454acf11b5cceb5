"""The commands that turn a paid invoice into money on a key. Algorithm B of the design, step 3.

From PAID on there is at most one open mint operation, and proofs stored and key credited are one
commit. The quote is bound to a key that follows from the seed and the invoice's id (NUT-20), so
nobody but this wallet can take its ecash.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import select, update

from routstr.ecash.node_keys import quote_key
from routstr.ecash.outputs import Output, blinded_messages_json
from routstr.ecash.p2pk import sign_quote
from routstr.ecash.proof import Proof
from routstr.ledger.accounts import NewKey, open_account
from routstr.ledger.book import KeyRef
from routstr.ledger.commands import LostRace, RowCommand, Transaction
from routstr.ledger.invoices import INVOICE, Look, move_invoice
from routstr.ledger.sagas import (
    OPERATION,
    Compose,
    InputsJson,
    Operation,
    OperationState,
    Plan,
    load_operation,
    move_operation,
    prepare,
    store_proofs,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BeginMint(RowCommand[Operation | None]):
    """The mint says PAID: prepare the one operation that takes the ecash, with its signed body.

    None when somebody has begun it already. `owner`, a lease id of this command alone, lets a
    repeat find the operation that it made.
    """

    look: Look = field(repr=False)
    mint_id: str
    keyset_id: str
    output_amounts: Sequence[int]
    owner: str
    lease_s: float

    async def run(self, transaction: Transaction) -> Operation | None:
        """pending → settlement_pending, and the operation."""
        look = self.look
        if not await move_invoice(transaction, look.invoice_id, "pending", "settlement_pending"):
            made = await transaction.connection.scalar(
                select(OPERATION.c.id).where(
                    OPERATION.c.lightning_invoice_id == look.invoice_id,
                    OPERATION.c.lease_owner == self.owner,
                    OPERATION.c.state == OperationState.PREPARED,
                )
            )
            if made is None:
                return None
            return await load_operation(transaction.connection, transaction.wallet, made)
        return await prepare(
            transaction,
            Plan(
                kind="mint",
                mint_id=self.mint_id,
                keyset_id=self.keyset_id,
                unit=look.unit,
                inputs=(),
                outputs=[(amount, "keep") for amount in self.output_amounts],
                input_amount=look.amount,
                fee_amount=0,
                owner=self.owner,
                lease_s=self.lease_s,
                lightning_invoice_id=look.invoice_id,
                quote_id=look.quote_id,
                compose=_compose(transaction, look.invoice_id, look.quote_id),
            ),
        )


def _compose(transaction: Transaction, invoice_id: str, quote_id: str) -> Compose:
    """How the body of a mint is made (NUT-04), signed with the invoice's own key (NUT-20)."""
    private_key = quote_key(transaction.wallet.seed, invoice_id)

    def compose(_: InputsJson, outputs: Sequence[Output]) -> Mapping[str, object]:
        messages = [output.message() for output in outputs]
        return {
            "quote": quote_id,
            "outputs": blinded_messages_json(outputs),
            "signature": sign_quote(quote_id, messages, private_key),
        }

    return compose


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaceMint(RowCommand[Operation]):
    """After a safe refusal for stale keysets: fail the old body, prepare one successor."""

    operation: Operation = field(repr=False)
    code: str
    keyset_id: str
    output_amounts: Sequence[int]
    owner: str
    lease_s: float

    async def run(self, transaction: Transaction) -> Operation:
        """The same quote, other outputs."""
        failing = self.operation
        successor_id = await transaction.connection.scalar(
            select(OPERATION.c.id).where(OPERATION.c.predecessor_id == failing.id)
        )
        if successor_id is not None:
            return await load_operation(transaction.connection, transaction.wallet, successor_id)
        await move_operation(
            transaction,
            failing.id,
            OperationState.FAILED,
            code=self.code,
            owner=failing.lease_owner,
        )
        assert failing.lightning_invoice_id is not None
        assert failing.quote_id is not None
        return await prepare(
            transaction,
            Plan(
                kind="mint",
                mint_id=failing.mint_id,
                keyset_id=self.keyset_id,
                unit=failing.unit,
                inputs=(),
                outputs=[(amount, "keep") for amount in self.output_amounts],
                input_amount=failing.input_amount,
                fee_amount=0,
                owner=self.owner,
                lease_s=self.lease_s,
                predecessor_id=failing.id,
                lightning_invoice_id=failing.lightning_invoice_id,
                quote_id=failing.quote_id,
                compose=_compose(transaction, failing.lightning_invoice_id, failing.quote_id),
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditInvoice(RowCommand[None]):
    """The mint signed: store the proofs, credit the key, end the operation, in one commit.

    `proofs` and `ys` go position by position with the operation's outputs.
    """

    operation: Operation = field(repr=False)
    proofs: Sequence[Proof] = field(repr=False)
    ys: Sequence[str] = field(repr=False)
    api_key_id: str | None

    @property
    def keys(self) -> Sequence[KeyRef]:
        """The account to credit, if it exists already."""
        return () if self.api_key_id is None else (KeyRef(id=self.api_key_id),)

    async def run(self, transaction: Transaction) -> None:
        """sent → done, settlement_pending → paid, and the money."""
        connection, book = transaction.connection, transaction.book
        row = (
            await connection.execute(
                select(INVOICE).where(INVOICE.c.id == self.operation.lightning_invoice_id)
            )
        ).one()
        if row.status == "paid":
            return
        await move_operation(transaction, self.operation.id, OperationState.DONE)
        await store_proofs(transaction, self.operation, self.proofs, self.ys, withdrawal_id=None)
        if row.api_key_id is None:
            account = await open_account(transaction, NewKey.from_terms(row.new_key))
        else:
            account = book.account(KeyRef(id=row.api_key_id))
        account = account._replace(
            total_deposited_msat=account.total_deposited_msat + row.credit_msat
        )
        book.post(account, row.credit_msat, "deposit", f"invoice:{row.id}", description="Lightning")
        paid = await connection.execute(
            update(INVOICE)
            .where(INVOICE.c.id == row.id, INVOICE.c.status == "settlement_pending")
            .values(status="paid", api_key_id=account.id, paid_at=book.now)
        )
        if paid.rowcount != 1:
            raise LostRace


@dataclass(frozen=True, slots=True, kw_only=True)
class FailMint(RowCommand[None]):
    """The mint took the payment and has denied the ecash for the whole watch; a human's affair."""

    operation: Operation = field(repr=False)
    code: str

    async def run(self, transaction: Transaction) -> None:
        """watch → failed, settlement_pending → reconciliation_required."""
        failing = self.operation
        assert failing.lightning_invoice_id is not None
        if await move_operation(
            transaction,
            failing.id,
            OperationState.FAILED,
            code=self.code,
            owner=failing.lease_owner,
        ):
            await move_invoice(
                transaction,
                failing.lightning_invoice_id,
                "settlement_pending",
                "reconciliation_required",
            )
