"""The commands of melts, locks, invoices, reclaims and own swaps, run twice: done once (I-15)."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from routstr.ecash.amounts import FloatGoal, split
from routstr.ecash.keyset import fee
from routstr.errors import InvalidInvoice
from routstr.ledger.accounts import NewKey
from routstr.ledger.book import KeyRef
from routstr.ledger.commands import RowCommand
from routstr.ledger.invoices import CloseInvoice
from routstr.ledger.locked import AcceptLocked, WriteOff
from routstr.ledger.minting import ReplaceMint
from routstr.ledger.profit import TakeProfit
from routstr.ledger.reclaims import BeginReclaim, ClaimWithdrawal, EndReclaim, FailReclaim
from routstr.ledger.sagas import MarkSent, Operation
from routstr.ledger.swaps import BeginReceive, BeginSwap, EndSwap, FailSwap
from tests.ledger import invoicing, melting
from tests.ledger.lock_rules import CAP_MSAT, LOCK_KEY
from tests.ledger.node import Node, new_key, ys_of

Scene = Callable[[Node], Awaitable[RowCommand[Any]]]


async def funded(node: Node) -> KeyRef:
    key = await node.open_key("k")
    await node.fund(key, [64, 32], salt="k")
    return key


# ── melts ─────────────────────────────────────────────────────────────────────────────────────


async def beginning_melt(node: Node) -> RowCommand[Any]:
    return melting.begin(node, "m", await funded(node))


async def finishing_melt(node: Node) -> RowCommand[Any]:
    key = await funded(node)
    melt = await melting.sent(node, "m", key)
    return melting.finish(melt, key, melting.change_of(node, melt, 1))


async def failing_melt(node: Node) -> RowCommand[Any]:
    key = await funded(node)
    return melting.fail(await melting.sent(node, "m", key), key)


async def beginning_poison(node: Node) -> RowCommand[Any]:
    return melting.poison(node, await melting.sent(node, "m", await funded(node)))


async def ending_poison(node: Node) -> RowCommand[Any]:
    key = await funded(node)
    melt = await melting.sent(node, "m", key)
    return melting.end_poison(node, await melting.poisoning(node, melt), melt, key)


async def failing_poison(node: Node) -> RowCommand[Any]:
    melt = await melting.sent(node, "m", await funded(node))
    return melting.fail_poison(await melting.poisoning(node, melt))


# ── locked ecash ──────────────────────────────────────────────────────────────────────────────


async def accepting(node: Node) -> AcceptLocked:
    proofs = node.signer.proofs([8, 2], salt="l")
    return AcceptLocked(
        deposit=node.begin("dep_l", proofs, new=new_key("l")),
        lock_key=LOCK_KEY,
        locktimes=[None, None],
        waiting_msat_max=CAP_MSAT,
    )


async def redeeming(node: Node) -> BeginSwap:
    accept = await accepting(node)
    await node.ledger.submit(accept)
    keyset = node.signer.keyset
    return BeginSwap(
        kind="redeem",
        mint_id=node.mint_id,
        unit="sat",
        keyset_id=keyset.id,
        ys=accept.deposit.ys,
        output_amounts=split(10 - fee([keyset.input_fee_ppk] * 2)),
        owner="lease-redeem",
        lease_s=30,
    )


async def redeemed(node: Node) -> RowCommand[Any]:
    operation = await _sent(node, await redeeming(node))
    proofs = node.signer.sign(operation)
    return EndSwap(operation=operation, proofs=proofs, ys=ys_of(proofs))


async def not_redeemed(node: Node) -> RowCommand[Any]:
    return FailSwap(operation=await _sent(node, await redeeming(node)), code="11000")


# ── the operator's ────────────────────────────────────────────────────────────────────────────


async def bringing(node: Node) -> BeginReceive:
    keyset = node.signer.keyset
    return BeginReceive(
        mint_id=node.mint_id,
        unit="sat",
        keyset_id=keyset.id,
        proofs=node.signer.proofs([16], salt="brought"),
        output_amounts=split(16 - fee([keyset.input_fee_ppk])),
        fee_amount=fee([keyset.input_fee_ppk]),
        owner="lease-bring",
        lease_s=30,
    )


async def taking_profit(node: Node) -> RowCommand[Any]:
    await node.ledger.submit(await bringing(node))
    await _end(node, "SELECT id FROM mint_operation")
    return TakeProfit(payout_id="p", amount_msat=5000, keep_msat=0, key_hash="0" * 64)


# ── tokens given out ──────────────────────────────────────────────────────────────────────────


async def given_out(node: Node) -> list[str]:
    exact = await node.ledger.submit(node.withdraw("w", await funded(node), 15))
    assert exact.operation is None
    async with node.database.reading() as connection:
        rows = await connection.exec_driver_sql("SELECT y FROM proof WHERE withdrawal_id = 'w'")
        return sorted(rows.scalars())


async def claiming(node: Node) -> RowCommand[Any]:
    return ClaimWithdrawal(withdrawal_id="w", ys=await given_out(node))


async def reclaiming(node: Node) -> BeginReclaim:
    keyset = node.signer.keyset
    return BeginReclaim(
        withdrawal_id="w",
        keyset_id=keyset.id,
        ys=await given_out(node),
        goal=FloatGoal(denominations=tuple(keyset.keys), coins=32, coin_max=1024),
        owner="lease-reclaim",
        lease_s=30,
    )


async def reclaimed(node: Node) -> RowCommand[Any]:
    operation = await _sent(node, await reclaiming(node))
    proofs = node.signer.sign(operation)
    return EndReclaim(operation=operation, api_key_id="key_k", proofs=proofs, ys=ys_of(proofs))


async def not_reclaimed(node: Node) -> RowCommand[Any]:
    return FailReclaim(operation=await _sent(node, await reclaiming(node)), code="spent")


# ── invoices ──────────────────────────────────────────────────────────────────────────────────


async def saving(node: Node) -> RowCommand[Any]:
    key = NewKey(id="key_i", hash="1" * 64, text="sk-i")
    return invoicing.save(node, "i", new_key=key)


async def closing(node: Node) -> RowCommand[Any]:
    await node.ledger.submit(await saving(node))
    return CloseInvoice(invoice_id="inv_i", status="expired")


async def minting(node: Node) -> RowCommand[Any]:
    await node.ledger.submit(await saving(node))
    return invoicing.begin(node, "i")


async def crediting(node: Node) -> RowCommand[Any]:
    await node.ledger.submit(await saving(node))
    return invoicing.credit(node, await invoicing.sent(node, "i"), None)


async def replacing(node: Node) -> RowCommand[Any]:
    await node.ledger.submit(await saving(node))
    return ReplaceMint(
        operation=await invoicing.sent(node, "i"),
        code="12002",
        keyset_id=node.signer.keyset.id,
        output_amounts=[8],
        owner="one",
        lease_s=30,
    )


async def writing_off(node: Node) -> RowCommand[Any]:
    """With as much of the operator's own beside it."""
    await node.ledger.submit(await bringing(node))
    await _end(node, "SELECT id FROM mint_operation")
    accept = await accepting(node)
    await node.ledger.submit(accept)
    return WriteOff(ys=accept.deposit.ys)


async def _sent(node: Node, command: RowCommand[Operation]) -> Operation:
    operation = await node.ledger.submit(command)
    await node.ledger.submit(MarkSent(operation_id=operation.id))
    return operation


async def _end(node: Node, query: str) -> None:
    """Let the mint sign the node's own operation."""
    operation = await _sent(node, await bringing(node))
    assert operation.id == await node.value(query)
    proofs = node.signer.sign(operation)
    await node.ledger.submit(EndSwap(operation=operation, proofs=proofs, ys=ys_of(proofs)))


SCENES: list[Scene] = [
    beginning_melt,
    finishing_melt,
    failing_melt,
    beginning_poison,
    ending_poison,
    failing_poison,
    accepting,
    redeeming,
    redeemed,
    not_redeemed,
    bringing,
    taking_profit,
    claiming,
    reclaiming,
    reclaimed,
    not_reclaimed,
    saving,
    closing,
    minting,
    crediting,
    replacing,
    writing_off,
]
# These tell a repeat from the first time; nobody acts on what they say.
TOLD_APART: list[Scene] = [
    accepting,
    redeemed,
    not_redeemed,
    reclaimed,
    not_reclaimed,
    writing_off,
]


@pytest.mark.parametrize("scene", SCENES)
async def test_done_once(node: Node, scene: Scene) -> None:
    """Twice in one batch, and once more later."""
    command = await scene(node)
    submit, before = node.ledger.submit, node.ledger.batches
    first, second = await asyncio.gather(submit(command), submit(command))
    assert node.ledger.batches == before + 1
    rows = await node.rows("updated_at")
    third = await submit(command)
    assert await node.rows("updated_at") == rows
    assert first == second == third or scene in TOLD_APART
    await node.assert_sound()


async def test_an_invoice_that_another_key_pays_is_not_paid_again(node: Node) -> None:
    key = await funded(node)
    other = await node.open_key("other")
    await node.fund(other, [64], salt="other")
    melt = await melting.sent(node, "m", key)
    again = replace(melting.begin(node, "m", other), withdrawal_id="n", owner="lease-n")
    with pytest.raises(InvalidInvoice):
        await node.ledger.submit(again)
    await node.ledger.submit(melting.fail(melt, key))
    assert (await node.ledger.submit(again)).operation is not None
    await node.assert_sound()
