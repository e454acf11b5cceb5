"""A Lightning payment at the ledger alone: begun, sent, paid, refused, or poisoned."""

from collections.abc import Sequence
from dataclasses import replace

from routstr.ecash.amounts import split
from routstr.ecash.keyset import fee
from routstr.ecash.proof import Proof
from routstr.ledger.book import KeyRef
from routstr.ledger.leases import SendOnce
from routstr.ledger.melts import BeginMelt, FailMelt, FinishMelt, MeltTerms
from routstr.ledger.poison import BeginPoison, EndPoison, FailPoison
from routstr.ledger.sagas import MarkSent, Operation
from tests.ledger.node import MINT_URL, Node, ys_of

AMOUNT = 5
FEE_RESERVE = 2


def begin(node: Node, name: str, key: KeyRef, *, amount: int = AMOUNT) -> BeginMelt:
    terms = MeltTerms(
        quote_id=f"quote-{name}",
        amount=amount,
        fee_reserve=FEE_RESERVE,
        unit="sat",
        mint_id=node.mint_id,
        mint_url=MINT_URL,
        keyset_id=node.signer.keyset.id,
        recipient="alice@pay.example",
        payment_hash=f"hash-{name}",
    )
    return BeginMelt(
        withdrawal_id=name,
        caller=key,
        terms=terms,
        empties=False,
        owner=f"lease-{name}",
        lease_s=3600,
    )


async def sent(node: Node, name: str, key: KeyRef) -> Operation:
    """The melt, on its way to the mint."""
    begun = await node.ledger.submit(begin(node, name, key))
    assert begun.operation is not None
    await node.ledger.submit(send(begun.operation))
    return begun.operation


def send(melt: Operation) -> SendOnce:
    assert melt.lease_owner is not None
    return SendOnce(operation_id=melt.id, owner=melt.lease_owner, lease_s=3600)


def change_of(node: Node, melt: Operation, paid_fee: int, *, amount: int = AMOUNT) -> list[Proof]:
    """What the mint gives back of a payment whose fee, that of the inputs included, was that."""
    parts = split(melt.input_amount - amount - paid_fee)
    outputs = zip(melt.outputs, parts, strict=False)
    named = tuple(replace(output, amount=part) for output, part in outputs)
    return list(node.signer.sign(replace(melt, outputs=named)))


def finish(melt: Operation, key: KeyRef, change: Sequence[Proof]) -> FinishMelt:
    assert key.id is not None
    return FinishMelt(
        operation=melt, api_key_id=key.id, change=change, ys=ys_of(change), preimage="00"
    )


def fail(melt: Operation, key: KeyRef) -> FailMelt:
    assert key.id is not None
    return FailMelt(operation=melt, api_key_id=key.id, code="20004")


def poison(node: Node, melt: Operation, *, owner: str = "lease-poison") -> BeginPoison:
    keyset = node.signer.keyset
    net = melt.input_amount - fee([keyset.input_fee_ppk] * len(melt.inputs))
    return BeginPoison(
        melt=melt, keyset_id=keyset.id, output_amounts=split(net), owner=owner, lease_s=3600
    )


async def poisoning(node: Node, melt: Operation) -> Operation:
    """The swap that makes a melt impossible, on its way to the mint."""
    swap = await node.ledger.submit(poison(node, melt))
    await node.ledger.submit(MarkSent(operation_id=swap.id))
    return swap


def end_poison(node: Node, swap: Operation, melt: Operation, key: KeyRef) -> EndPoison:
    assert key.id is not None
    proofs = node.signer.sign(swap)
    return EndPoison(poison=swap, melt=melt, api_key_id=key.id, proofs=proofs, ys=ys_of(proofs))


def fail_poison(swap: Operation) -> FailPoison:
    return FailPoison(poison=swap, code="12002")
