"""A ledger as the tests drive it: a running executor on a real database, and a mint that signs."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

from sqlalchemy import select, text

from routstr.core.pricing import Model, Price, Usage
from routstr.core.quote import Quote, price_snapshot
from routstr.ecash import bdhke
from routstr.ecash.amounts import FloatGoal, split_for_float
from routstr.ecash.keyset import fee, keyset_id
from routstr.ecash.outputs import unblind_all
from routstr.ecash.proof import BlindSignature, Dleq, Keyset, Proof
from routstr.ledger.accounts import NewKey, OpenKey
from routstr.ledger.audit import AuditReport, audit
from routstr.ledger.book import KeyRef
from routstr.ledger.catalog import SaveMint
from routstr.ledger.commands import Wallet
from routstr.ledger.credits import Credited
from routstr.ledger.deposits import BeginDeposit, Begun, CreditDeposit
from routstr.ledger.engine import Database, PoolSettings, open_database
from routstr.ledger.executor import ExecutorLimits, LedgerExecutor
from routstr.ledger.holds import Reserve, Settle
from routstr.ledger.sagas import MarkSent, Operation
from routstr.ledger.tables import metadata
from routstr.ledger.teams import ChildTerms, MakeChildren, NewChild
from routstr.ledger.vault import Vault
from routstr.ledger.withdrawals import BeginWithdrawal, IssueWithdrawal

MASTER = b"m" * 32
SEED = bytes(range(64))
MINT_URL = "https://mint.example"
HELD_MSAT_MAX = 10**9
START = datetime(2025, 1, 1, tzinfo=UTC)


class HandClock:
    """A clock that the test moves; waiting only lets others run, and is remembered."""

    def __init__(self) -> None:
        self.time = START
        self.waits: list[float] = []
        self.on_wait: Callable[[], None] = lambda: None

    def now(self) -> datetime:
        return self.time

    def advance(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.on_wait()
        await asyncio.sleep(0)


class Signer:
    """A mint's keys: it signs what it is asked to, and can issue tokens of its own."""

    def __init__(self, *, fee_ppk: int = 0, unit: str = "sat", salt: int = 1) -> None:
        self.private_keys = {1 << bit: f"{(bit + 3) * 7919 * salt:064x}" for bit in range(16)}
        keys = {amount: bdhke.public_key(key) for amount, key in self.private_keys.items()}
        name = keyset_id(keys, unit=unit, input_fee_ppk=fee_ppk, final_expiry=None, version="00")
        self.keyset = Keyset(
            id=name, unit=unit, active=True, input_fee_ppk=fee_ppk, final_expiry=None, keys=keys
        )

    def proofs(self, amounts: Iterable[int], *, salt: str) -> tuple[Proof, ...]:
        """A user's coins; the same salt makes the same coins."""
        return tuple(
            self._proof(amount, sha256(f"{salt} {n}".encode()).hexdigest())
            for n, amount in enumerate(amounts)
        )

    def sign(self, operation: Operation, *, dleq: bool = False) -> tuple[Proof, ...]:
        """The proofs of an operation's outputs, as after a swap."""
        signatures = [
            BlindSignature(
                amount=output.amount,
                keyset_id=output.keyset_id,
                c_=bdhke.sign_blinded(output.b_, self.private_keys[output.amount]),
                dleq=self._dleq(output.b_, output.amount) if dleq else None,
            )
            for output in operation.outputs
        ]
        return unblind_all(operation.outputs, signatures, self.keyset, require_dleq=dleq)

    def _dleq(self, b_: str, amount: int) -> Dleq:
        key = self.private_keys[amount]
        return bdhke.dleq_prove(b_, key, bdhke.dleq_nonce(b_, key))

    def _proof(self, amount: int, secret: str) -> Proof:
        c = bdhke.sign_blinded(bdhke.y_of(secret), self.private_keys[amount])
        return Proof(amount=amount, keyset_id=self.keyset.id, secret=secret, c=c)


def ys_of(proofs: Iterable[Proof]) -> tuple[str, ...]:
    return tuple(bdhke.y_of(proof.secret) for proof in proofs)


@dataclass(slots=True, kw_only=True)
class Node:
    """One process's worth of ledger: executor, clock, wallet, and short ways to common commands."""

    database: Database
    ledger: LedgerExecutor
    wallet: Wallet
    clock: HandClock
    owner: str
    mint_id: str = ""
    signer: Signer = field(default_factory=Signer)

    async def save_mint(self, signer: Signer, url: str = MINT_URL) -> None:
        self.signer = signer
        command = SaveMint(mint_url=url, keysets=[signer.keyset])
        self.mint_id = await self.ledger.submit(command)

    async def open_key(self, name: str) -> KeyRef:
        return KeyRef(id=await self.ledger.submit(OpenKey(key=new_key(name))))

    def begin(
        self,
        deposit_id: str,
        proofs: Sequence[Proof],
        *,
        target: KeyRef | None = None,
        new: NewKey | None = None,
        idempotency_key: str | None = None,
        fingerprint: str | None = None,
        lease_s: float = 3600,
    ) -> BeginDeposit:
        face = sum(proof.amount for proof in proofs)
        fee_amount = fee([self.signer.keyset.input_fee_ppk] * len(proofs))
        scale = 1000 if self.signer.keyset.unit == "sat" else 1
        return BeginDeposit(
            deposit_id=deposit_id,
            target=target,
            new_key=new,
            mint_id=self.mint_id,
            mint_url=MINT_URL,
            unit=self.signer.keyset.unit,
            keyset_id=self.signer.keyset.id,
            proofs=proofs,
            ys=ys_of(proofs),
            output_amounts=split_for_float(face - fee_amount, self.signer.keyset.keys),
            face_amount=face,
            fee_amount=fee_amount,
            credit_msat=(face - fee_amount) * scale,
            source="cashu",
            owner=self.owner,
            lease_s=lease_s,
            idempotency_key=idempotency_key,
            fingerprint=fingerprint,
        )

    async def credit(self, begun: Begun) -> Credited:
        """Let the mint sign what was begun, and credit it."""
        assert begun.operation is not None
        await self.ledger.submit(MarkSent(operation_id=begun.operation.id))
        return await self.ledger.submit(
            credit_command(self.signer, begun.operation, begun.deposit.api_key_id)
        )

    async def fund(self, key: KeyRef, amounts: Iterable[int], *, salt: str) -> Credited:
        """A whole deposit of those coins."""
        proofs = self.signer.proofs(amounts, salt=salt)
        begun = await self.ledger.submit(self.begin(f"dep_{salt}", proofs, target=key))
        return await self.credit(begun)

    def withdraw(
        self,
        withdrawal_id: str,
        caller: KeyRef,
        amount: int | None,
        *,
        idempotency_key: str | None = None,
        fingerprint: str | None = None,
    ) -> BeginWithdrawal:
        return BeginWithdrawal(
            withdrawal_id=withdrawal_id,
            caller=caller,
            amount=amount,
            unit=self.signer.keyset.unit,
            mint_id=self.mint_id,
            mint_url=MINT_URL,
            keyset_id=self.signer.keyset.id,
            goal=FloatGoal(denominations=tuple(self.signer.keyset.keys), coins=32, coin_max=1024),
            owner=self.owner,
            lease_s=3600,
            idempotency_key=idempotency_key,
            fingerprint=fingerprint,
        )

    def reserve(self, hold_id: str, caller: KeyRef, amount_msat: int) -> Reserve:
        return reserve(hold_id, caller, amount_msat, owner=self.owner)

    async def audit(
        self, *, full: bool = True, since: datetime | None = None, is_running: bool = True
    ) -> AuditReport:
        """The audit, at the hour the ledger writes by."""
        on_postgres = self.database.dialect == "postgresql"
        return await audit(
            self.database,
            self.wallet.vault,
            full=full,
            now=datetime.now(UTC) if on_postgres else self.clock.now(),
            held_msat_max=HELD_MSAT_MAX,
            since=since,
            is_running=is_running,
        )

    async def assert_sound(self, *, is_running: bool = True) -> None:
        report = await self.audit(is_running=is_running)
        assert report.ok, [each for each in report.invariants if each.breaches]

    async def value(self, sql: str, **values: object) -> object:
        """One value of a query."""
        async with self.database.reading() as connection:
            return (await connection.execute(text(sql), values)).scalar()

    async def execute(self, sql: str, **values: object) -> None:
        """Write past the ledger, as a broken program would."""
        async with self.database.writer.begin() as connection:
            await connection.execute(text(sql), values)

    async def rows(self, *without: str) -> dict[str, list[str]]:
        """Every row of every table, but for those columns."""
        async with self.database.reading() as connection:
            return {
                table.name: sorted(
                    repr({name: value for name, value in row.items() if name not in without})
                    for row in (await connection.execute(select(table))).mappings()
                )
                for table in metadata.sorted_tables
            }

    async def balance(self, key: KeyRef) -> int:
        found = await self.value("SELECT balance FROM apikey WHERE id = :id", id=key.id)
        assert isinstance(found, int)
        return found

    async def held(self, key: KeyRef) -> int:
        found = await self.value("SELECT reserved FROM apikey WHERE id = :id", id=key.id)
        assert isinstance(found, int)
        return found


def new_key(name: str) -> NewKey:
    return NewKey(id=f"key_{name}", hash=sha256(name.encode()).hexdigest(), text=f"sk-{name}")


def credit_command(signer: Signer, operation: Operation, key_id: str | None) -> CreditDeposit:
    proofs = signer.sign(operation)
    return CreditDeposit(operation=operation, proofs=proofs, ys=ys_of(proofs), api_key_id=key_id)


def issue_command(
    signer: Signer, operation: Operation, key: KeyRef, *, dleq: bool = False
) -> IssueWithdrawal:
    proofs = signer.sign(operation, dleq=dleq)
    assert key.id is not None
    return IssueWithdrawal(operation=operation, api_key_id=key.id, proofs=proofs, ys=ys_of(proofs))


PRICE = Price(version="v1", input_msat_per_mtok=10**6, output_msat_per_mtok=10**6)
MODEL = Model(id="m", name="m", context_length=10**6, max_output_tokens=10**5, price=PRICE)


def snapshot(quote_msat: int) -> dict[str, int | str]:
    """A pinned price at which one token costs one msat."""
    quote = Quote(
        model_id=MODEL.id,
        price=PRICE,
        n=1,
        context_length=MODEL.context_length,
        prompt_rate_msat=PRICE.input_msat_per_mtok,
        answer_rate_msat=PRICE.output_msat_per_mtok,
        base_msat=0,
        input_tokens_max=quote_msat,
        output_limit=0,
        ceiling_msat=quote_msat,
        total_msat=quote_msat,
    )
    return price_snapshot(quote)


def make_children(
    parent: KeyRef, *names: str, cost_msat: int = 0, fingerprint: str = "f", **terms: Any
) -> MakeChildren:
    """Children of those names; `terms` are fields of ChildTerms."""
    keys = [new_key(name) for name in names]
    return MakeChildren(
        parent=parent,
        children=[NewChild(id=key.id, hash=key.hash, preview=key.text) for key in keys],
        terms=ChildTerms(**terms),
        fingerprint=fingerprint,
        cost_msat=cost_msat,
    )


def reserve(
    hold_id: str,
    caller: KeyRef,
    amount_msat: int,
    *,
    quote_msat: int | None = None,
    minimum_msat: int | None = None,
    owner: str = "one",
    lease_s: float = 3600,
    **more: Any,
) -> Reserve:
    quote = amount_msat if quote_msat is None else quote_msat
    return Reserve(
        hold_id=hold_id,
        caller=caller,
        wanted_msat=amount_msat,
        minimum_msat=amount_msat if minimum_msat is None else minimum_msat,
        quote_msat=quote,
        model_id=MODEL.id,
        price_snapshot=snapshot(quote),
        owner=owner,
        lease_s=lease_s,
        **more,
    )


def settle(hold_id: str, key: KeyRef, cost_msat: int, **more: Any) -> Settle:
    """Settle for a use of so many tokens, at one msat each."""
    usage = Usage(input_tokens=cost_msat, output_tokens=0)
    assert key.id is not None
    return Settle(
        hold_id=hold_id,
        api_key_id=key.id,
        cost_msat=cost_msat,
        description=MODEL.id,
        request_data={
            "outcome": "completed",
            "evidence": "exact",
            "usage": {"input_tokens": usage.input_tokens, "output_tokens": 0},
        },
        **more,
    )


def new_wallet(owner: str = "one") -> Wallet:
    numbers = itertools.count(1)
    nonces = itertools.count(1)
    return Wallet(
        seed=SEED,
        vault=Vault(MASTER, random_bytes=lambda n: next(nonces).to_bytes(n)),
        new_id=lambda prefix: f"{prefix}_{owner}_{next(numbers)}",
    )


@asynccontextmanager
async def running_node(
    url: str,
    *,
    owner: str = "one",
    limits: ExecutorLimits | None = None,
    signer: Signer | None = None,
) -> AsyncIterator[Node]:
    """A node whose executor runs until the end of the block, with a mint it knows."""
    database = open_database(url, PoolSettings(size=2, overflow=2))
    clock, wallet = HandClock(), new_wallet(owner)
    ledger = LedgerExecutor(
        database,
        wallet=wallet,
        clock=clock,
        limits=limits or ExecutorLimits(held_msat_max=HELD_MSAT_MAX),
    )
    task = asyncio.create_task(ledger.run())
    node = Node(database=database, ledger=ledger, wallet=wallet, clock=clock, owner=owner)
    try:
        await node.save_mint(signer or Signer())
        yield node
    finally:
        ledger.stop()
        await task
        await database.close()
