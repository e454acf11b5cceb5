"""The operator takes what is his, and never a millisatoshi of what is owed."""

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from sqlalchemy import text

from routstr.ecash.amounts import split
from routstr.ecash.keyset import fee
from routstr.errors import InvalidApiKey, InvalidParameter, MintShort, ProfitTooSmall, RoutstrError
from routstr.ledger.accounts import OWNER_KEY_ID, Transfer
from routstr.ledger.audit_ecash import BACKING
from routstr.ledger.book import KeyRef
from routstr.ledger.profit import SURPLUS, Taken, TakeProfit
from routstr.ledger.sagas import MarkSent, Operation
from routstr.ledger.swaps import BeginSwap, EndSwap
from routstr.ledger.withdrawals import FailWithdrawal
from tests.ledger.node import (
    Node,
    Signer,
    credit_command,
    issue_command,
    reserve,
    running_node,
    settle,
    ys_of,
)

OWNER = KeyRef(id=OWNER_KEY_ID)
KEEP_MSAT = 5_000
FEES_MSAT_MAX = 4_000


def take(payout_id: str, amount_msat: int | None = None, *, keep_msat: int = 0) -> TakeProfit:
    return TakeProfit(
        payout_id=payout_id, amount_msat=amount_msat, keep_msat=keep_msat, key_hash="nobody's"
    )


async def earn(node: Node, name: str, amount_msat: int) -> KeyRef:
    """A customer with 31 sat who has spent that much of it."""
    key = await node.open_key(name)
    await node.fund(key, [16, 8, 4, 2, 1], salt=name)
    await node.ledger.submit(reserve(f"h_{name}", key, amount_msat))
    await node.ledger.submit(settle(f"h_{name}", key, amount_msat))
    return key


async def test_what_was_earned_is_taken_once(node: Node) -> None:
    key = await earn(node, "k", 7_300)
    with pytest.raises(ProfitTooSmall):
        await node.ledger.submit(take("p0", 7_301))
    with pytest.raises(InvalidParameter):
        await node.ledger.submit(take("p0", 0))
    assert await node.ledger.submit(take("p1", 2_000)) == Taken(
        amount_msat=2_000, available_msat=2_000
    )
    rest = await node.ledger.submit(take("p2", keep_msat=300))
    assert rest == Taken(amount_msat=5_000, available_msat=7_000)
    assert await node.ledger.submit(take("p2", keep_msat=300)) == rest
    for keep_msat in (300, 301, 10**9):
        with pytest.raises(ProfitTooSmall):
            await node.ledger.submit(take("p3", keep_msat=keep_msat))
    assert await node.balance(key) == 31_000 - 7_300
    await node.assert_sound()
    begun = await node.ledger.submit(node.withdraw("w", OWNER, 7))
    assert begun.withdrawal.available_msat == 0
    await node.assert_sound()


async def test_what_the_same_commit_owes_is_not_profit(node: Node) -> None:
    key = await earn(node, "k", 1_000)
    begun = await node.ledger.submit(
        node.begin("dep_2", node.signer.proofs([64], salt="2"), target=key)
    )
    assert begun.operation is not None
    await node.ledger.submit(MarkSent(operation_id=begun.operation.id))
    batches = node.ledger.batches
    _, taken, _ = await asyncio.gather(
        node.ledger.submit(credit_command(node.signer, begun.operation, key.id)),
        node.ledger.submit(take("p")),
        node.ledger.submit(node.withdraw("w", key, 5)),
    )
    assert node.ledger.batches == batches + 1, "they were to share a commit"
    assert taken.amount_msat == 1_000
    await node.assert_sound()


async def test_coins_in_doubt_and_fees_under_way_are_not_profit(node: Node) -> None:
    await node.save_mint(Signer(fee_ppk=500, salt=5))
    await earn(node, "k", 10_000)
    operation = await begin_swap(node, "own")
    assert operation is not None
    fee_msat = operation.fee_amount * 1_000
    assert fee_msat > 0
    with pytest.raises(ProfitTooSmall) as refused:
        await node.ledger.submit(take("p", 10**9))
    assert refused.value.details == {"profit_msat": 10_000 - fee_msat}
    await node.ledger.submit(MarkSent(operation_id=operation.id))
    await node.execute("UPDATE mint_operation SET state = 'watch' WHERE kind = 'swap'")
    with pytest.raises(ProfitTooSmall) as refused:
        await node.ledger.submit(take("p", 10**9))
    assert refused.value.details == {"profit_msat": 0}
    await node.assert_sound()


async def test_what_a_withdrawal_is_about_to_take_is_not_profit(node: Node) -> None:
    await node.save_mint(Signer(fee_ppk=500, salt=5))
    key = await earn(node, "k", 10_000)
    await node.ledger.submit(node.withdraw("w1", key, 3))
    begun = await node.ledger.submit(node.withdraw("w2", key, 2))
    assert begun.operation is not None, "the purse has exact coins; choose another amount"
    with pytest.raises(ProfitTooSmall) as refused:
        await node.ledger.submit(take("p", 10_001))
    assert refused.value.details == {"profit_msat": 10_000}
    await node.ledger.submit(take("p", 10_000))
    await node.ledger.submit(MarkSent(operation_id=begun.operation.id))
    await node.ledger.submit(issue_command(node.signer, begun.operation, key))
    await node.assert_sound()


async def test_the_operators_account_is_nobodys_key(node: Node) -> None:
    key = await earn(node, "k", 10_000)
    await node.ledger.submit(take("p"))
    for payer, payee in ((key, OWNER), (OWNER, key)):
        with pytest.raises(InvalidApiKey):
            await node.ledger.submit(
                Transfer(transfer_id="t", payer=payer, payee=payee, amount_msat=1)
            )
    await node.assert_sound()


async def test_two_processes_take_it_once(postgres_url: str) -> None:
    async with running_node(postgres_url) as one, running_node(postgres_url, owner="two") as two:
        for turn in range(5):
            await earn(one, f"k{turn}", 6_000)
            wishes = [
                node.ledger.submit(take(f"p{turn}{n}", 4_000))
                for n, node in enumerate((one, two, one, two))
            ]
            taken = await asyncio.gather(*wishes, return_exceptions=True)
            assert sorted(type(each).__name__ for each in taken) == ["ProfitTooSmall"] * 3 + [
                "Taken"
            ]
            await two.ledger.submit(take(f"rest{turn}"))
        assert await one.balance(OWNER) == 30_000
        await one.assert_sound()


# ── any order of everything ───────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class Bustle:
    """Customers, withdrawals, own swaps and payouts, begun and ended in any order at once."""

    node: Node
    dice: random.Random
    keys: list[KeyRef]
    open: list[tuple[str, KeyRef, Operation]] = field(default_factory=list)
    count: int = 0
    taken_msat: int = 0

    async def step(self) -> None:
        """One to four things at the same time."""
        moves: Sequence[Callable[[], Coroutine[Any, Any, None]]] = (
            self.deposit, self.withdraw, self.use, self.swap, self.take, self.take, self.end,
            self.end,
        )  # fmt: skip
        chosen = self.dice.choices(moves, k=self.dice.randint(1, 4))
        await asyncio.gather(*(move() for move in chosen))

    def name(self, kind: str) -> str:
        self.count += 1
        return f"{kind}{self.count}"

    async def deposit(self) -> None:
        key, name = self.dice.choice(self.keys), self.name("d")
        proofs = self.node.signer.proofs(split(self.dice.randint(3, 60)), salt=name)
        command = self.node.begin(name, proofs, target=key)
        few = split(command.face_amount - command.fee_amount)  # so that many withdrawals swap
        begun = await self.node.ledger.submit(replace(command, output_amounts=few))
        assert begun.operation is not None
        await self.node.ledger.submit(MarkSent(operation_id=begun.operation.id))
        self.open.append(("deposit", key, begun.operation))

    async def withdraw(self) -> None:
        key = self.dice.choice([*self.keys, OWNER])
        amount = self.dice.choice([None, 1, 3, 7, 20])
        command = self.node.withdraw(self.name("w"), key, amount)
        with suppress(RoutstrError):
            begun = await self.node.ledger.submit(command)
            if begun.operation is not None:
                await self.node.ledger.submit(MarkSent(operation_id=begun.operation.id))
                self.open.append(("withdrawal", key, begun.operation))

    async def use(self) -> None:
        key, name = self.dice.choice(self.keys), self.name("h")
        cost_msat = self.dice.randint(0, 4_000)
        with suppress(RoutstrError):
            await self.node.ledger.submit(reserve(name, key, cost_msat + 1))
            await self.node.ledger.submit(settle(name, key, cost_msat))

    async def swap(self) -> None:
        """As the house does it: no fee that the surplus does not cover, kept back for it."""
        operation = await begin_swap(self.node, self.name("s"))
        if operation is not None:
            await self.node.ledger.submit(MarkSent(operation_id=operation.id))
            self.open.append(("swap", OWNER, operation))

    async def take(self) -> None:
        amount_msat = self.dice.choice([None, 1, 700, 5_000])
        with suppress(ProfitTooSmall):
            taken = await self.node.ledger.submit(
                take(self.name("p"), amount_msat, keep_msat=KEEP_MSAT)
            )
            self.taken_msat += taken.amount_msat

    async def end(self) -> None:
        """What was begun ends: mostly signed, sometimes refused."""
        if not self.open:
            return
        kind, key, operation = self.open.pop(self.dice.randrange(len(self.open)))
        signer, ledger = self.node.signer, self.node.ledger
        if kind == "deposit":
            await ledger.submit(credit_command(signer, operation, key.id))
        elif kind == "swap":
            proofs = signer.sign(operation)
            await ledger.submit(EndSwap(operation=operation, proofs=proofs, ys=ys_of(proofs)))
        elif self.dice.random() < 0.3:
            assert key.id is not None
            await ledger.submit(
                FailWithdrawal(
                    operation=operation, api_key_id=key.id, code="11005", message="refused"
                )
            )
        else:
            await ledger.submit(issue_command(signer, operation, key))


async def test_no_order_of_things_takes_what_is_owed(node: Node) -> None:
    await node.save_mint(Signer(fee_ppk=300, salt=5))
    keys = [await earn(node, name, 10_000) for name in ("a", "b", "c")]
    await node.ledger.submit(take("first", 1))
    bustle = Bustle(node=node, dice=random.Random(11), keys=keys)
    for _ in range(200):
        await bustle.step()
        assert await node.value(BACKING) is None
    while bustle.open:
        await bustle.end()
    await node.assert_sound()
    assert bustle.taken_msat > 50_000


async def begin_swap(node: Node, name: str) -> Operation | None:
    """Swap up to three of the node's coins, if the surplus covers four such at once."""
    if await node.value(SURPLUS) < FEES_MSAT_MAX:  # type: ignore[operator]  # it is a number
        return None
    sql = text("SELECT y, amount FROM proof WHERE state = 'unspent' ORDER BY y LIMIT 3")
    async with node.database.reading() as connection:
        coins = [(row.y, row.amount) for row in await connection.execute(sql)]
    fee_amount = fee([node.signer.keyset.input_fee_ppk] * len(coins))
    net_amount = sum(amount for _, amount in coins) - fee_amount
    if net_amount < 1:
        return None
    try:
        return await node.ledger.submit(
            BeginSwap(
                kind="swap",
                mint_id=node.mint_id,
                unit=node.signer.keyset.unit,
                keyset_id=node.signer.keyset.id,
                ys=[y for y, _ in coins],
                output_amounts=split(net_amount),
                owner=name,
                lease_s=30,
            )
        )
    except MintShort:
        return None
