"""Reading the node's own proofs for housekeeping: given out, held, retiring, and their backing."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from sqlalchemy import exists, select

from routstr.ledger.engine import ReadConnection
from routstr.ledger.sagas import KEYSET, MINT, OPEN_STATES, OPERATION, PROOF
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
