"""The commands of invoices: run twice or raced, they do their work once."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from routstr.ledger.commands import RowCommand
from routstr.ledger.invoices import ClaimLooks, CloseInvoice
from routstr.ledger.minting import FailMint, ReplaceMint
from tests.ledger.invoicing import AMOUNT, begin, credit, save, sent
from tests.ledger.node import Node, new_key

Scene = Callable[[Node], Awaitable[RowCommand[Any]]]


async def saving(node: Node) -> RowCommand[Any]:
    return save(node, "a", new_key=new_key("a"))


async def closing(node: Node) -> RowCommand[Any]:
    await node.ledger.submit(await saving(node))
    return CloseInvoice(invoice_id="inv_a", status="expired")


async def beginning(node: Node) -> RowCommand[Any]:
    await node.ledger.submit(await saving(node))
    return begin(node, "a")


async def opening(node: Node) -> RowCommand[Any]:
    await node.ledger.submit(await saving(node))
    return credit(node, await sent(node, "a"), None)


async def topping_up(node: Node) -> RowCommand[Any]:
    key = await node.open_key("k")
    await node.ledger.submit(save(node, "a", api_key_id=key.id))
    return credit(node, await sent(node, "a"), key.id)


async def failing(node: Node) -> RowCommand[Any]:
    await node.ledger.submit(await saving(node))
    return FailMint(operation=await sent(node, "a"), code="watched")


async def replacing(node: Node) -> RowCommand[Any]:
    await node.ledger.submit(await saving(node))
    return ReplaceMint(
        operation=await sent(node, "a"),
        code="12002",
        keyset_id=node.signer.keyset.id,
        output_amounts=[8],
        owner="two",
        lease_s=60,
    )


SCENES: list[Scene] = [saving, closing, beginning, opening, topping_up, failing, replacing]


@pytest.mark.parametrize("scene", SCENES)
async def test_run_twice_it_is_done_once(node: Node, scene: Scene) -> None:
    command = await scene(node)
    first, second = await asyncio.gather(node.ledger.submit(command), node.ledger.submit(command))
    rows = await node.rows("updated_at")
    assert first == second == await node.ledger.submit(command)
    assert await node.rows("updated_at") == rows
    await node.assert_sound()


async def test_who_begins_second_begins_nothing(node: Node) -> None:
    """Two looks at one invoice, both of which saw PAID."""
    await node.ledger.submit(save(node, "a", new_key=new_key("a")))
    begun = await asyncio.gather(
        *(node.ledger.submit(begin(node, "a", owner=owner)) for owner in ("one", "two"))
    )
    assert [each is None for each in begun] == [False, True]
    assert not await node.ledger.submit(CloseInvoice(invoice_id="inv_a", status="expired"))
    await node.assert_sound()


async def test_a_look_is_taken_once(node: Node) -> None:
    await node.ledger.submit(save(node, "a", new_key=new_key("a")))
    claim, asked = ClaimLooks(limit=9), ClaimLooks(limit=1, invoice_id="inv_a")
    node.clock.advance(2)
    [first] = await node.ledger.submit(asked)
    assert (first.quote_id, first.amount) == ("quote-a", AMOUNT)
    assert await node.ledger.submit(asked) == ()
    assert await node.ledger.submit(claim) == ()


async def test_one_invoice_text_belongs_to_one_row(node: Node) -> None:
    assert await node.ledger.submit(save(node, "a", new_key=new_key("a")))
    stolen = replace(save(node, "a", new_key=new_key("b")), invoice_id="inv_b")
    assert not await node.ledger.submit(stolen)
