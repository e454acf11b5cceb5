"""The rules of T-1 for child keys, and what T-1 believes of keys, children and holds."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, multiple, rule
from sqlalchemy import text

from routstr.ledger.book import KeyRef
from routstr.ledger.teams import ResetChild, RevokeChild
from tests.ledger.node import HELD_MSAT_MAX, Node, make_children, reserve

TENTHS = st.integers(0, 12)  # of what there is: mostly possible, sometimes a little too much
MONEY = """SELECT id, balance, reserved, limit_held,
  CASE WHEN parent_id IS NULL THEN 0 ELSE total_spent - limit_base END AS used FROM apikey"""


@dataclass(slots=True)
class Purse:
    """What the model believes of a key."""

    balance: int = 0
    reserved: int = 0

    @property
    def available(self) -> int:
        return self.balance - self.reserved


@dataclass(slots=True)
class Ward:
    """What the model believes of a child; `limit` None is none."""

    id: str
    parent: KeyRef
    limit: int | None
    used: int = 0
    held: int = 0
    is_dead: bool = False


@dataclass(slots=True)
class Promise:
    """What the model believes of a hold; `ward` is the child that has asked."""

    key: KeyRef
    amount: int
    quote: int
    open: bool = True
    ward: Ward | None = None

    @property
    def names(self) -> dict[str, Any]:
        """The keys that a command on it names."""
        return {
            "api_key_id": self.key.id,
            "spender_id": None if self.ward is None else self.ward.id,
        }


class TeamRules:
    """To be mixed into the machine, which has the rest."""

    keys = Bundle("keys")
    holds = Bundle("holds")
    children = Bundle("children")
    node: Node
    promises: dict[str, Promise]
    wards: dict[str, Ward]

    @abstractmethod
    def submit(self, command: Any) -> Any: ...

    @abstractmethod
    def next_id(self, prefix: str) -> str: ...

    @abstractmethod
    def purse(self, key: KeyRef) -> Purse: ...

    def free(self, promise: Promise) -> int:
        """What may be promised besides what is."""
        return self.free_of(promise.key, promise.ward)

    def free_of(self, key: KeyRef, ward: Ward | None) -> int:
        available = self.purse(key).available
        if ward is None or ward.limit is None:
            return available
        return min(available, max(0, ward.limit - ward.used - ward.held))

    def is_dead(self, promise: Promise) -> bool:
        return promise.ward is not None and promise.ward.is_dead

    def promise_more(self, promise: Promise, amount: int) -> None:
        self.purse(promise.key).reserved += amount
        promise.amount += amount
        if promise.ward is not None:
            promise.ward.held += amount

    @rule(target=children, parent=keys, share=st.none() | TENTHS, cost=st.sampled_from([0, 7]))
    def make_child(self, parent: KeyRef, share: int | None, cost: int) -> Any:
        purse, name = self.purse(parent), self.next_id("c")
        limit = None if share is None else 1 + purse.balance * share // 20
        made = self.submit(make_children(parent, name, cost_msat=cost, balance_limit_msat=limit))
        assert (made is not None) == (cost <= purse.available)
        if made is None:
            return multiple()
        purse.balance -= cost
        ward = Ward(id=f"key_{name}", parent=parent, limit=limit)
        self.wards[ward.id] = ward
        return ward.id

    @rule(target=holds, child=children, share=TENTHS, least=TENTHS, more=TENTHS)
    def reserve_by_child(self, child: str, share: int, least: int, more: int) -> Any:
        ward, hold_id = self.wards[child], self.next_id("h")
        rich = self.purse(ward.parent).balance
        wanted = rich * share // 20
        minimum, quote = wanted * least // 10, wanted + rich * more // 20
        command = reserve(hold_id, KeyRef(id=child), wanted, minimum_msat=minimum, quote_msat=quote)
        hold = self.submit(command)
        amount = min(wanted, self.free_of(ward.parent, ward))
        held = sum(each.amount for each in self.promises.values() if each.open)
        if ward.is_dead or amount < minimum or held + amount > HELD_MSAT_MAX:
            assert hold is None
            return multiple()
        assert hold.amount_msat == amount
        promise = Promise(key=ward.parent, amount=0, quote=quote, ward=ward)
        self.promises[hold_id] = promise
        self.promise_more(promise, amount)
        return hold_id

    @rule(child=children, who=keys)
    def reset(self, child: str, who: KeyRef) -> None:
        ward = self.wards[child]
        self.submit(ResetChild(parent=who, child=KeyRef(id=child)))
        if who == ward.parent:
            ward.used = 0

    @rule(child=children)
    def revoke(self, child: str) -> None:
        ward = self.wards[child]
        self.submit(RevokeChild(parent=ward.parent, child=KeyRef(id=child)))
        ward.is_dead = True

    async def money(self) -> dict[str, tuple[int, int, int, int]]:
        """(balance, reserved, held of its parent's, used of its cap) of each key."""
        async with self.node.database.reading() as connection:
            rows = await connection.execute(text(MONEY))
            return {row.id: (row.balance, row.reserved, row.limit_held, row.used) for row in rows}
