"""A node that has lived: rows of every kind and state that the commands can make."""

from routstr.ledger.accounts import Transfer
from routstr.ledger.book import KeyRef
from routstr.ledger.deposits import FailDeposit
from routstr.ledger.holds import Expire
from routstr.ledger.locked import AcceptLocked
from routstr.ledger.sagas import MarkSent, Operation
from routstr.ledger.withdrawals import FailWithdrawal
from tests.ledger import melting
from tests.ledger.invoicing import credit, save, sent
from tests.ledger.lock_rules import CAP_MSAT, LOCK_KEY
from tests.ledger.node import (
    Node,
    Signer,
    issue_command,
    make_children,
    new_key,
    reserve,
    settle,
)


async def live(node: Node) -> KeyRef:
    """Fill the tables; yields the key that has most of it."""
    await node.save_mint(Signer(fee_ppk=100, salt=5))
    rich, other = await node.open_key("rich"), await node.open_key("other")
    await node.fund(rich, [64, 32, 16], salt="a")
    await node.fund(other, [8], salt="b")
    await _deposits(node)
    await _requests(node, rich)
    await node.ledger.submit(Transfer(transfer_id="t", payer=rich, payee=other, amount_msat=2500))
    await _withdrawals(node, rich)
    return rich


async def live_on(node: Node, key: KeyRef) -> None:
    """What came later, in columns that older schemas have not: invoices, locks, payments."""
    for status in ("pending", "settlement_pending", "paid"):
        await _invoice(node, key, status)
    await _locked(node, KeyRef(id="key_other"))
    await _melts(node, key)
    await _children(node, key)


async def _children(node: Node, key: KeyRef) -> None:
    child = KeyRef(id="key_child")
    await node.ledger.submit(make_children(key, "child", cost_msat=50, balance_limit_msat=2000))
    for hold_id, cost_msat in (("by_child", 300), ("of_child", None)):
        await node.ledger.submit(reserve(hold_id, child, 400))
        if cost_msat is not None:
            await node.ledger.submit(settle(hold_id, key, cost_msat, spender_id=child.id))


async def _locked(node: Node, key: KeyRef) -> None:
    proofs = node.signer.proofs([8, 2], salt="locked")
    locked = AcceptLocked(
        deposit=node.begin("dep_locked", proofs, target=key),
        lock_key=LOCK_KEY,
        locktimes=[None] * len(proofs),
        waiting_msat_max=CAP_MSAT,
    )
    assert (await node.ledger.submit(locked)).credited is not None


async def _melts(node: Node, key: KeyRef) -> None:
    paid = await melting.sent(node, "paid", key)
    change = melting.change_of(node, paid, 2)
    assert change
    await node.ledger.submit(melting.finish(paid, key, change))
    poisoned = await melting.sent(node, "poisoned", key)
    swap = await melting.poisoning(node, poisoned)
    await node.ledger.submit(melting.end_poison(node, swap, poisoned, key))


async def _deposits(node: Node) -> None:
    for name, fails in (("pending", False), ("failed", True)):
        proofs = node.signer.proofs([8], salt=name)
        begun = await node.ledger.submit(node.begin(f"dep_{name}", proofs, new=new_key(name)))
        assert begun.operation is not None
        await node.ledger.submit(MarkSent(operation_id=begun.operation.id))
        if fails:
            await node.ledger.submit(
                FailDeposit(operation=begun.operation, code="10001", error_code="refused")
            )


async def _invoice(node: Node, key: KeyRef, status: str) -> None:
    await node.ledger.submit(save(node, status, api_key_id=key.id))
    if status != "pending":
        operation = await sent(node, status)
        if status == "paid":
            await node.ledger.submit(credit(node, operation, key.id))


async def _requests(node: Node, key: KeyRef) -> None:
    for hold_id, cost_msat in (("settled", 700), ("over", 3000), ("released", 0)):
        await node.ledger.submit(reserve(hold_id, key, 1000, quote_msat=2000))
        await node.ledger.submit(settle(hold_id, key, cost_msat))
    await node.ledger.submit(reserve("expired", key, 1000, lease_s=-1))
    await node.ledger.submit(Expire(hold_id="expired", api_key_id="key_rich"))
    await node.ledger.submit(reserve("held", key, 1000))


async def _withdrawals(node: Node, key: KeyRef) -> None:
    exact = await node.ledger.submit(node.withdraw("exact", key, 15))
    assert exact.operation is None
    swapped = await _swap(node, key, "swapped", 8)
    await node.ledger.submit(issue_command(node.signer, swapped, key))
    failed = await _swap(node, key, "failed", 15)
    await node.ledger.submit(
        FailWithdrawal(operation=failed, api_key_id="key_rich", code="11005", message="no")
    )
    await _swap(node, key, "pending", 15)


async def _swap(node: Node, key: KeyRef, withdrawal_id: str, amount: int) -> Operation:
    begun = await node.ledger.submit(node.withdraw(withdrawal_id, key, amount))
    assert begun.operation is not None, "the purse has exact coins; choose another amount"
    await node.ledger.submit(MarkSent(operation_id=begun.operation.id))
    return begun.operation
