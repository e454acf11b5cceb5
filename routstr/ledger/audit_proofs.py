"""What a deep audit asks the mints about: our proofs by mint, and operations left open there."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from routstr.ledger.engine import ReadConnection
from routstr.ledger.sagas import KEYSET, MINT, OPERATION, PROOF, OperationState

ASKED = ("unspent", "reserved", "issued", "locked")


@dataclass(frozen=True, slots=True, kw_only=True)
class OurProof:
    """A proof by its Y, and what we take it for."""

    y: str
    state: str


async def mints_with_proofs(connection: ReadConnection) -> list[str]:
    """The URLs of the mints whose proofs we hold or gave out."""
    wanted = (
        select(MINT.c.url)
        .join(KEYSET, KEYSET.c.mint_id == MINT.c.id)
        .where(KEYSET.c.id.in_(select(PROOF.c.keyset_id).where(PROOF.c.state.in_(ASKED))))
        .distinct()
        .order_by(MINT.c.url)
    )
    return list(await connection.scalars(wanted))


async def proofs_at(
    connection: ReadConnection, mint_url: str, *, after_y: str, limit: int
) -> list[OurProof]:
    """A page of those proofs, in the order of their Ys."""
    wanted = (
        select(PROOF.c.y, PROOF.c.state)
        .join(KEYSET, KEYSET.c.id == PROOF.c.keyset_id)
        .join(MINT, MINT.c.id == KEYSET.c.mint_id)
        .where(MINT.c.url == mint_url, PROOF.c.state.in_(ASKED), PROOF.c.y > after_y)
        .order_by(PROOF.c.y)
        .limit(limit)
    )
    return [OurProof(y=row.y, state=row.state) for row in await connection.execute(wanted)]


async def still_unspent(connection: ReadConnection, ys: Sequence[str]) -> list[str]:
    """Those we still take for ours to spend; a proof leaves that state before its mint hears."""
    held = PROOF.c.state.in_(("unspent", "locked"))
    wanted = select(PROOF.c.y).where(PROOF.c.y.in_(ys), held)
    return list(await connection.scalars(wanted.order_by(PROOF.c.y)))


async def stranded_at(connection: ReadConnection, mint_url: str, before: datetime) -> list[str]:
    """Operations open since before then at a mint that answers, but those it calls pending (I-8).

    Operations under watch are apart too: a day of doubt is their way to an end.
    """
    states = (OperationState.PREPARED, OperationState.SENT)
    wanted = (
        select(OPERATION.c.id)
        .join(MINT, MINT.c.id == OPERATION.c.mint_id)
        .where(
            MINT.c.url == mint_url,
            OPERATION.c.state.in_(states),
            OPERATION.c.created_at < before,
        )
        .order_by(OPERATION.c.id)
    )
    return list(await connection.scalars(wanted))
