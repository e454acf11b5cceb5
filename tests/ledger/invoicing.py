"""An invoice at the ledger alone: saved, looked at, begun, credited."""

from datetime import timedelta

from routstr.ledger.accounts import NewKey
from routstr.ledger.invoices import Look, SaveInvoice
from routstr.ledger.minting import BeginMint, CreditInvoice
from routstr.ledger.sagas import MarkSent, Operation
from tests.ledger.node import MINT_URL, Node, ys_of

AMOUNT = 8


def save(
    node: Node, name: str, *, api_key_id: str | None = None, new_key: NewKey | None = None
) -> SaveInvoice:
    """For a key that exists, or for a new one."""
    return SaveInvoice(
        invoice_id=f"inv_{name}",
        api_key_id=api_key_id,
        shown_key=None,
        new_key=new_key,
        mint_url=MINT_URL,
        unit="sat",
        amount=AMOUNT,
        credit_msat=AMOUNT * 1000,
        bolt11=f"lnbc{name}",
        payment_hash="",
        quote_id=f"quote-{name}",
        expires_at=node.clock.now() + timedelta(hours=1),
    )


def seen(name: str) -> Look:
    """A look at a saved invoice, which the mint called paid."""
    return Look(
        invoice_id=f"inv_{name}",
        api_key_id=None,
        mint_url=MINT_URL,
        unit="sat",
        amount=AMOUNT,
        quote_id=f"quote-{name}",
        is_last=False,
    )


def begin(node: Node, name: str, *, owner: str = "lease") -> BeginMint:
    return BeginMint(
        look=seen(name),
        mint_id=node.mint_id,
        keyset_id=node.signer.keyset.id,
        output_amounts=[1, 1, 2, 4],
        owner=owner,
        lease_s=3600,
    )


async def sent(node: Node, name: str) -> Operation:
    """The operation of a saved invoice, on its way to the mint."""
    operation = await node.ledger.submit(begin(node, name))
    assert operation is not None
    await node.ledger.submit(MarkSent(operation_id=operation.id))
    return operation


def credit(node: Node, operation: Operation, api_key_id: str | None) -> CreditInvoice:
    proofs = node.signer.sign(operation)
    return CreditInvoice(
        operation=operation, proofs=proofs, ys=ys_of(proofs), api_key_id=api_key_id
    )
