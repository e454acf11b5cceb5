"""Mint operations: the row that is committed before every call to a mint, and its states.

One operation is one body, for ever. It is `prepared` with inputs, outputs, counters and the exact
bytes; `sent` is committed before the first POST; from then on unknown is a state, never a failure:
only a definite answer of the mint ends it. One process drives an operation at a time, by a lease
taken with compare-and-set; recovery finds open ones by query.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Literal

import orjson
from sqlalchemy import insert, select, text, update

from routstr.ecash.outputs import BLANK, Output, blinded_messages_json, make_outputs, proofs_json
from routstr.ecash.proof import Proof
from routstr.errors import Pending
from routstr.ledger.commands import LostRace, RowCommand, Transaction, Wallet
from routstr.ledger.connection import LedgerConnection
from routstr.ledger.tables import KeysetRow, Mint, MintOperation, MintOutput, ProofRow, table_of
from routstr.ledger.vault import CannotOpen

OPERATION = table_of(MintOperation)
OUTPUT = table_of(MintOutput)
KEYSET = table_of(KeysetRow)
MINT = table_of(Mint)
PROOF = table_of(ProofRow)

Purpose = Literal["keep", "send", "change"]
Kind = Literal["receive", "redeem", "swap", "mint", "melt"]
InputsJson = Sequence[Mapping[str, object]]
Compose = Callable[[InputsJson, Sequence[Output]], Mapping[str, object]]


class OperationState(StrEnum):
    """Where a call to a mint stands; `waiting` is the mint's PENDING, `watch` a day of doubt."""

    PREPARED = "prepared"
    SENT = "sent"
    WAITING = "waiting"
    WATCH = "watch"
    DONE = "done"
    FAILED = "failed"


OPERATION_MOVES: Final[Mapping[OperationState, frozenset[OperationState]]] = {
    OperationState.PREPARED: frozenset({OperationState.SENT}),
    OperationState.SENT: frozenset(
        {OperationState.WAITING, OperationState.WATCH, OperationState.DONE, OperationState.FAILED}
    ),
    OperationState.WAITING: frozenset(
        {OperationState.SENT, OperationState.WATCH, OperationState.DONE, OperationState.FAILED}
    ),
    OperationState.WATCH: frozenset({OperationState.DONE, OperationState.FAILED}),
    OperationState.DONE: frozenset(),
    OperationState.FAILED: frozenset(),
}
OPEN_STATES: Final = tuple(state for state, moves in OPERATION_MOVES.items() if moves)
# The same in the words of the partial index, which a list of parameters would not be known by.
IS_OPEN: Final = text("mint_operation.state NOT IN ('done', 'failed')")


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A saga as a flow drives it; `outputs` and `purposes` go position by position."""

    id: str
    kind: str
    state: OperationState
    mint_id: str
    mint_url: str
    unit: str
    body: bytes = field(repr=False)
    outputs: tuple[Output, ...] = field(repr=False)
    purposes: tuple[Purpose, ...]
    input_amount: int
    fee_amount: int
    deposit_id: str | None
    withdrawal_id: str | None
    predecessor_id: str | None
    attempts: int
    lease_owner: str | None
    lightning_invoice_id: str | None = None
    quote_id: str | None = field(default=None, repr=False)
    watch_until: datetime | None = None
    last_code: str | None = None
    is_from_copy: bool = False

    @property
    def inputs(self) -> tuple[dict[str, object], ...]:
        """The proofs in the body, in NUT-00 JSON; a mint operation has none."""
        return tuple(orjson.loads(self.body).get("inputs", ()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to prepare: inputs, and output amounts with what each is for.

    Inputs are proofs, or NUT-00 JSON where they carry a witness. BLANK outputs are for the mint to
    say the amount of (NUT-08). `compose` makes the body of anything but a swap.
    """

    kind: Kind
    mint_id: str
    keyset_id: str
    unit: str
    inputs: Sequence[Proof] | InputsJson = field(repr=False)
    outputs: Sequence[tuple[int, Purpose]]
    input_amount: int
    fee_amount: int
    owner: str
    lease_s: float
    deposit_id: str | None = None
    withdrawal_id: str | None = None
    predecessor_id: str | None = None
    lightning_invoice_id: str | None = None
    quote_id: str | None = field(default=None, repr=False)
    compose: Compose | None = None


def compose_swap(inputs: InputsJson, outputs: Sequence[Output]) -> Mapping[str, object]:
    """The body of a swap (NUT-03)."""
    return {"inputs": inputs, "outputs": blinded_messages_json(outputs)}


async def prepare(transaction: Transaction, plan: Plan) -> Operation:
    """Reserve counters, make the outputs and the bytes, write it all. Same commit as its cause."""
    wallet, now = transaction.wallet, transaction.book.now
    ordered = sorted(plan.outputs)
    outputs = await _make_outputs(transaction, plan.keyset_id, [amount for amount, _ in ordered])
    operation_id = wallet.new_id("op")
    body = orjson.dumps((plan.compose or compose_swap)(_inputs_json(plan.inputs), outputs))

    def sealed(value: str, column: str) -> str:
        return wallet.vault.seal(value, table="mint_operation", column=column, row_id=operation_id)

    await transaction.connection.execute(
        insert(OPERATION).values(
            id=operation_id,
            kind=plan.kind,
            state=OperationState.PREPARED,
            mint_id=plan.mint_id,
            unit=plan.unit,
            request=sealed(body.decode(), "request"),
            quote_id=None if plan.quote_id is None else sealed(plan.quote_id, "quote_id"),
            input_amount=plan.input_amount,
            fee_amount=plan.fee_amount,
            deposit_id=plan.deposit_id,
            withdrawal_id=plan.withdrawal_id,
            lightning_invoice_id=plan.lightning_invoice_id,
            predecessor_id=plan.predecessor_id,
            lease_owner=plan.owner,
            lease_until=now + timedelta(seconds=plan.lease_s),
            attempts=0,
            next_attempt_at=now,
            created_at=now,
        )
    )
    rows = [
        {
            "operation_id": operation_id,
            "position": position,
            "keyset_id": output.keyset_id,
            "counter": output.counter,
            "amount": None if output.amount == BLANK else output.amount,
            "b_": output.b_,
            "purpose": purpose,
        }
        for position, (output, (_, purpose)) in enumerate(zip(outputs, ordered, strict=True))
    ]
    if rows:  # a melt that is paid to the unit has nothing to come back
        await transaction.connection.execute(insert(OUTPUT), rows)
    return await load_operation(transaction.connection, wallet, operation_id)


async def _make_outputs(
    transaction: Transaction, keyset_id: str, amounts: Sequence[int]
) -> tuple[Output, ...]:
    reserved = await transaction.connection.execute(
        update(KEYSET)
        .where(KEYSET.c.id == keyset_id)
        .values(next_counter=KEYSET.c.next_counter + len(amounts))
        .returning(KEYSET.c.next_counter)
    )
    first_counter = int(reserved.scalar_one()) - len(amounts)
    return make_outputs(transaction.wallet.seed, keyset_id, first_counter, amounts)


def _inputs_json(
    inputs: Sequence[Proof] | Sequence[Mapping[str, object]],
) -> list[Mapping[str, object]]:
    proofs = [proof for proof in inputs if isinstance(proof, Proof)]
    if proofs:
        return list(proofs_json(proofs))
    return [proof for proof in inputs if not isinstance(proof, Proof)]


async def load_operation(
    connection: LedgerConnection, wallet: Wallet, operation_id: str
) -> Operation:
    """The operation with its outputs derived anew from seed and counters (NUT-13).

    Raises CannotOpen.
    """
    row = (
        await connection.execute(
            select(OPERATION, MINT.c.url)
            .join(MINT, MINT.c.id == OPERATION.c.mint_id)
            .where(OPERATION.c.id == operation_id)
        )
    ).one()
    rows = (
        await connection.execute(
            select(OUTPUT).where(OUTPUT.c.operation_id == operation_id).order_by(OUTPUT.c.position)
        )
    ).all()
    outputs: tuple[Output, ...] = ()
    if rows:
        amounts = [BLANK if output.amount is None else output.amount for output in rows]
        outputs = make_outputs(wallet.seed, rows[0].keyset_id, rows[0].counter, amounts)
    if [output.b_ for output in outputs] != [output.b_ for output in rows]:
        raise CannotOpen("the outputs are not of this seed")

    def opened(value: str, column: str) -> str:
        return wallet.vault.open(value, table="mint_operation", column=column, row_id=operation_id)

    return Operation(
        id=row.id,
        kind=row.kind,
        state=OperationState(row.state),
        mint_id=row.mint_id,
        mint_url=row.url,
        unit=row.unit,
        body=opened(row.request, "request").encode(),
        outputs=outputs,
        purposes=tuple(output.purpose for output in rows),
        input_amount=row.input_amount,
        fee_amount=row.fee_amount,
        deposit_id=row.deposit_id,
        withdrawal_id=row.withdrawal_id,
        predecessor_id=row.predecessor_id,
        lightning_invoice_id=row.lightning_invoice_id,
        quote_id=None if row.quote_id is None else opened(row.quote_id, "quote_id"),
        attempts=row.attempts,
        lease_owner=row.lease_owner,
        watch_until=row.watch_until,
        last_code=row.last_code,
        is_from_copy=row.is_from_copy,
    )


async def move_operation(
    transaction: Transaction,
    operation_id: str,
    to: OperationState,
    *,
    code: str | None = None,
    owner: str | None = None,
) -> bool:
    """Move it, guarded by state; False when it is there already. Raises LostRace otherwise.

    With `owner` only while that process has the lease, else Pending: whoever took it over may have
    posted the same bytes again, so a refusal heard before proves nothing any more.
    """
    sources = [state for state, moves in OPERATION_MOVES.items() if to in moves]
    ending = to in {OperationState.DONE, OperationState.FAILED}
    guards = [OPERATION.c.id == operation_id, OPERATION.c.state.in_(sources)]
    if owner is not None:
        guards.append(OPERATION.c.lease_owner == owner)
    moved = await transaction.connection.execute(
        update(OPERATION)
        .where(*guards)
        .values(
            state=to,
            last_code=code,
            ended_at=transaction.book.now if ending else None,
            lease_until=None if ending else OPERATION.c.lease_until,
        )
    )
    if moved.rowcount:
        return True
    row = (
        await transaction.connection.execute(
            select(OPERATION.c.state, OPERATION.c.lease_owner).where(OPERATION.c.id == operation_id)
        )
    ).one()
    if row.state in sources and owner is not None and row.lease_owner != owner:
        raise Pending("Another node has taken this operation over.")
    if row.state != to:
        raise LostRace
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkSent(RowCommand[None]):
    """Commit that the first POST is about to leave; a POST without this row never happens."""

    operation_id: str

    async def run(self, transaction: Transaction) -> None:
        """prepared → sent."""
        await move_operation(transaction, self.operation_id, OperationState.SENT)


async def prepared_by(transaction: Transaction, owner: str) -> Operation | None:
    """What a command with that lease prepared when it ran before, its COMMIT's answer lost."""
    made = await transaction.connection.scalar(
        select(OPERATION.c.id).where(
            OPERATION.c.lease_owner == owner, OPERATION.c.state == OperationState.PREPARED
        )
    )
    if made is None:
        return None
    return await load_operation(transaction.connection, transaction.wallet, made)


async def spend_inputs(transaction: Transaction, operation_id: str) -> None:
    """The mint has taken the coins that were reserved for it: reserved → spent."""
    await transaction.connection.execute(
        update(PROOF)
        .where(PROOF.c.operation_id == operation_id, PROOF.c.state == "reserved")
        .values(state="spent")
    )


async def store_proofs(
    transaction: Transaction,
    operation: Operation,
    proofs: Sequence[Proof],
    ys: Sequence[str],
    *,
    withdrawal_id: str | None,
) -> None:
    """Write what the mint signed: `keep` and `change` as unspent, `send` as issued."""
    seal = transaction.wallet.vault.seal
    rows = [
        {
            "y": y,
            "keyset_id": proof.keyset_id,
            "counter": output.counter,
            "amount": proof.amount,
            "secret": seal(proof.secret, table="proof", column="secret", row_id=y),
            "c": proof.c,
            "e": None if proof.dleq is None else proof.dleq.e,
            "s": None if proof.dleq is None else proof.dleq.s,
            "state": "issued" if purpose == "send" else "unspent",
            "operation_id": operation.id,
            "withdrawal_id": withdrawal_id if purpose == "send" else None,
        }
        for y, proof, output, purpose in zip(
            ys, proofs, operation.outputs, operation.purposes, strict=True
        )
    ]
    await transaction.connection.execute(insert(PROOF), rows)
