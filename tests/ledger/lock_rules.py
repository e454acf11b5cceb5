"""The rules of T-1 for locked ecash: taken at once up to a cap, redeemed or not, and lost."""

from abc import abstractmethod
from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, consumes, multiple, rule
from sqlalchemy import text

from routstr.ecash.amounts import split
from routstr.ecash.keyset import fee
from routstr.ledger.book import KeyRef
from routstr.ledger.locked import AcceptLocked, WriteOff
from routstr.ledger.sagas import MarkSent, Operation
from routstr.ledger.swaps import BeginSwap, EndSwap, FailSwap
from tests.ledger.node import Node, ys_of

CAP_MSAT = 400_000
BATCH_MAX = 100
LOCK_KEY = "02" + "5" * 64
SURPLUS = """SELECT (SELECT coalesce(sum(amount) * 1000, 0) FROM proof
    WHERE state IN ('unspent', 'reserved', 'locked'))
  - (SELECT coalesce(sum(balance), 0) FROM apikey)
  - (SELECT coalesce(sum(amount + fee_amount), 0) FROM withdrawal WHERE status = 'pending')
  - (SELECT count(*) * 1000 FROM proof
    WHERE lock_key IS NOT NULL AND state IN ('locked', 'reserved'))"""

T = TypeVar("T")


class Purse(Protocol):
    balance: int


class LockRules:
    """To be mixed into the machine, which has the rest."""

    keys = Bundle("keys")
    redemptions = Bundle("redemptions")
    node: Node

    @abstractmethod
    def run(self, work: Coroutine[Any, Any, T]) -> T: ...

    @abstractmethod
    def submit(self, command: Any) -> Any: ...

    @abstractmethod
    def next_id(self, prefix: str) -> str: ...

    @abstractmethod
    def purse(self, key: KeyRef) -> Purse: ...

    @rule(key=keys, amount=st.integers(2, 120))
    def accept(self, key: KeyRef, amount: int) -> None:
        name = self.next_id("d")
        proofs = self.node.signer.proofs(split(amount), salt=name)
        deposit = self.node.begin(name, proofs, target=key)
        before = self.run(self.waiting_msat())
        accepted = self.submit(
            AcceptLocked(
                deposit=deposit,
                lock_key=LOCK_KEY,
                locktimes=[None] * len(proofs),
                waiting_msat_max=CAP_MSAT,
            )
        )
        fits = before + 1000 * amount <= CAP_MSAT
        assert (accepted.credited is not None) == fits
        if fits:
            self.purse(key).balance += deposit.credit_msat

    @rule(target=redemptions, end=st.sampled_from(["done", "failed", "wait"]))
    def redeem(self, end: str) -> Any:
        locked = self.run(self.locked())
        keyset = self.node.signer.keyset
        net = sum(locked.values()) - fee([keyset.input_fee_ppk] * len(locked))
        if net < 1:
            return multiple()
        begun = self.submit(
            BeginSwap(
                kind="redeem",
                mint_id=self.node.mint_id,
                unit=keyset.unit,
                keyset_id=keyset.id,
                ys=list(locked),
                output_amounts=split(net),
                owner=self.next_id("lease"),
                lease_s=3600,
            )
        )
        if end == "wait":
            return begun
        self.end_redeem(begun, end)
        return multiple()

    @rule(operation=consumes(redemptions), end=st.sampled_from(["done", "failed"]))
    def end_redeem(self, operation: Operation, end: str) -> None:
        self.submit(MarkSent(operation_id=operation.id))
        if end == "done":
            proofs = self.node.signer.sign(operation)
            ended = self.submit(EndSwap(operation=operation, proofs=proofs, ys=ys_of(proofs)))
        else:
            ended = self.submit(FailSwap(operation=operation, code="11001"))
        assert ended

    @rule()
    def lose(self) -> None:
        """A mint goes back on its word; no more than the node can bear and redeem the rest."""
        surplus = self.run(self.number(SURPLUS))
        locked = self.run(self.locked())
        y = min(locked, default=None)
        if y is not None and locked[y] * 1000 <= surplus:
            assert self.submit(WriteOff(ys=[y])) == 1
            assert y not in self.run(self.locked())

    async def locked(self) -> dict[str, int]:
        """What waits to be redeemed, by Y."""
        query = "SELECT y, amount FROM proof WHERE state = 'locked' ORDER BY y"
        async with self.node.database.reading() as connection:
            rows = (await connection.execute(text(query))).all()
        return {row.y: row.amount for row in rows[:BATCH_MAX]}

    async def waiting_msat(self) -> int:
        return await self.number(
            "SELECT coalesce(sum(amount), 0) * 1000 FROM proof"
            " WHERE lock_key IS NOT NULL AND state IN ('locked', 'reserved')"
        )

    async def number(self, sql: str) -> int:
        async with self.node.database.reading() as connection:
            return int((await connection.execute(text(sql))).scalar_one())
