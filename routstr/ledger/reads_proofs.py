"""Reading the node's own proofs for housekeeping: given out, held, retiring, and their backing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from sqlalchemy import exists, func, select, text

from routstr.ledger.engine import ReadConnection
from routstr.ledger.profit import FEE_SURPLUS
from routstr.ledger.sagas import KEYSET, MINT, OPEN_STATES, OPERATION, PROOF, OperationState
from routstr.ledger.tables import Withdrawal, table_of

WITHDRAWAL = table_of(Withdrawal)

HELD_STATES: Final = ("unspent", "locked")


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenOut:
    """A token that nobody is known to have claimed, by the Ys of its proofs."""

    withdrawal_id: str
    api_key_id: str
    unit: str
    completed_at: datetime
    ys: tuple[str, ...] = field(repr=False)


async def given_out(
    connection: ReadConnection,
    mint_url: str,
    *,
    after_id: str = "",
    proofs_max: int,
    withdrawal_id: str | None = None,
) -> list[GivenOut]:
    """A page of whole tokens of that mint in the order of their ids, about `proofs_max` proofs.

    Or one token alone. Without those that an operation is open for.
    """
    is_moving = exists().where(
        OPERATION.c.withdrawal_id == WITHDRAWAL.c.id, OPERATION.c.state.in_(OPEN_STATES)
    )
    wanted = (
        select(
            WITHDRAWAL.c.id,
            WITHDRAWAL.c.api_key_id,
            WITHDRAWAL.c.unit,
            WITHDRAWAL.c.completed_at,
            PROOF.c.y,
        )
        .join(PROOF, PROOF.c.withdrawal_id == WITHDRAWAL.c.id)
        .where(
            WITHDRAWAL.c.status == "completed",
            WITHDRAWAL.c.way == "token",
            WITHDRAWAL.c.mint_url == mint_url,
            WITHDRAWAL.c.id > after_id,
            PROOF.c.state == "issued",
            ~is_moving,
        )
        .order_by(WITHDRAWAL.c.id, PROOF.c.y)
        .limit(proofs_max)
    )
    if withdrawal_id is not None:
        wanted = wanted.where(WITHDRAWAL.c.id == withdrawal_id)
    rows = (await connection.execute(wanted)).all()
    found: dict[str, GivenOut] = {}
    for row in rows:
        known = found.get(row.id)
        found[row.id] = GivenOut(
            withdrawal_id=row.id,
            api_key_id=row.api_key_id,
            unit=row.unit,
            completed_at=row.completed_at,
            ys=(row.y,) if known is None else (*known.ys, row.y),
        )
    if len(rows) == proofs_max and len(found) > 1:
        found.popitem()  # the page may end in the middle of it
    return list(found.values())


async def mints_to_ask(connection: ReadConnection) -> list[str]:
    """The URLs of the mints whose proofs the node holds or gave out."""
    states = (*HELD_STATES, "issued")
    wanted = (
        select(MINT.c.url)
        .join(KEYSET, KEYSET.c.mint_id == MINT.c.id)
        .where(KEYSET.c.id.in_(select(PROOF.c.keyset_id).where(PROOF.c.state.in_(states))))
        .distinct()
        .order_by(MINT.c.url)
    )
    return list(await connection.scalars(wanted))


async def held_at(
    connection: ReadConnection, mint_url: str, *, after_y: str, limit: int
) -> list[str]:
    """A page of the Ys of proofs that only the node should be able to spend, in their order."""
    wanted = (
        select(PROOF.c.y)
        .join(KEYSET, KEYSET.c.id == PROOF.c.keyset_id)
        .join(MINT, MINT.c.id == KEYSET.c.mint_id)
        .where(MINT.c.url == mint_url, PROOF.c.state.in_(HELD_STATES), PROOF.c.y > after_y)
        .order_by(PROOF.c.y)
        .limit(limit)
    )
    return list(await connection.scalars(wanted))


async def still_held(connection: ReadConnection, ys: Sequence[str]) -> list[str]:
    """Those of them that the node still holds; a proof leaves that state before its mint hears."""
    wanted = select(PROOF.c.y).where(PROOF.c.y.in_(list(ys)), PROOF.c.state.in_(HELD_STATES))
    return list(await connection.scalars(wanted.order_by(PROOF.c.y)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pile:
    """How many unspent coins of one amount the node holds of a keyset."""

    keyset_id: str
    amount: int
    count: int


async def piles_at(connection: ReadConnection, mint_id: str, unit: str) -> list[Pile]:
    """The node's unspent coins at a mint in a unit."""
    rows = await connection.execute(
        select(PROOF.c.keyset_id, PROOF.c.amount, func.count().label("count_of"))
        .join(KEYSET, KEYSET.c.id == PROOF.c.keyset_id)
        .where(KEYSET.c.mint_id == mint_id, KEYSET.c.unit == unit, PROOF.c.state == "unspent")
        .group_by(PROOF.c.keyset_id, PROOF.c.amount)
        .order_by(PROOF.c.keyset_id, PROOF.c.amount)
    )
    return [Pile(keyset_id=row.keyset_id, amount=row.amount, count=row.count_of) for row in rows]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """An unspent coin by its Y; `input_fee_ppk` is what spending it costs (NUT-02)."""

    y: str
    amount: int
    input_fee_ppk: int


async def pick(
    connection: ReadConnection, keyset_ids: Sequence[str], counts: Mapping[int, int]
) -> list[Pick]:
    """So many unspent coins of each amount, or as many as there are.

    The last in the order of their Ys: withdrawals take the first, and they should seldom meet.
    """
    found: list[Pick] = []
    for amount, count in counts.items():
        rows = await connection.execute(
            select(PROOF.c.y, KEYSET.c.input_fee_ppk)
            .join(KEYSET, KEYSET.c.id == PROOF.c.keyset_id)
            .where(
                PROOF.c.keyset_id.in_(keyset_ids),
                PROOF.c.state == "unspent",
                PROOF.c.amount == amount,
            )
            .order_by(PROOF.c.y.desc())
            .limit(count)
        )
        found += [Pick(y=row.y, amount=amount, input_fee_ppk=row.input_fee_ppk) for row in rows]
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnSwap:
    """How a swap of the node's own stands."""

    state: OperationState
    ended_at: datetime | None


async def own_swaps(
    connection: ReadConnection, mint_id: str, unit: str, *, limit: int
) -> list[OwnSwap]:
    """The newest swaps of the node's own at a mint in a unit, the newest first."""
    rows = await connection.execute(
        select(OPERATION.c.state, OPERATION.c.ended_at)
        .where(
            OPERATION.c.mint_id == mint_id,
            OPERATION.c.unit == unit,
            OPERATION.c.kind == "swap",
            OPERATION.c.withdrawal_id.is_(None),
        )
        .order_by(OPERATION.c.created_at.desc(), OPERATION.c.id)
        .limit(limit)
    )
    return [OwnSwap(state=OperationState(row.state), ended_at=row.ended_at) for row in rows]


async def seen_surplus_msat(connection: ReadConnection) -> int:
    """What may pay a fee, as of now; who takes from it looks again in the same transaction."""
    return int((await connection.execute(text(FEE_SURPLUS))).scalar_one())
