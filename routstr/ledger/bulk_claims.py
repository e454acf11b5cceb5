"""Loading and writing the claims of a batch: one statement each, and none without a claim."""

from collections.abc import Collection
from typing import Final

import orjson
from sqlalchemy import Executable, bindparam, text, update

from routstr.core.hold import HoldState
from routstr.ledger.book import Book
from routstr.ledger.bulk import Columns, rows_as_table
from routstr.ledger.claims import ClaimRow, Place
from routstr.ledger.columns import as_time, time_text
from routstr.ledger.commands import LostRace
from routstr.ledger.connection import LedgerConnection
from routstr.ledger.engine import Dialect
from routstr.ledger.tables import table_of
from routstr.ledger.tables_house import Idempotency

IDEMPOTENCY: Final = table_of(Idempotency)
PLACE: Final[Columns] = {"scope": "text", "key": "text"}
CLAIM: Final[Columns] = {
    **PLACE,
    "reservation_id": "text",
    "fingerprint": "text",
    "created_at": "timestamptz",
    "expires_at": "timestamptz",
}


class ClaimStatements:
    """The statements for one engine, composed once."""

    def __init__(self, dialect: Dialect) -> None:
        """Compose for `dialect`; every name in them is a constant of this module."""
        claims = rows_as_table(dialect, CLAIM)
        taken = rows_as_table(dialect, {**CLAIM, "old_reservation_id": "text"})
        names = ", ".join(CLAIM)
        picks = ", ".join(f"v.{name}" for name in CLAIM)
        self.load = text(
            "SELECT i.scope, i.key, i.reservation_id, i.fingerprint, i.expires_at,"
            " i.answer_expires_at, i.available_after, r.state, r.settled_amount"
            f" FROM {rows_as_table(dialect, PLACE)}"
            " JOIN idempotency i ON i.scope = v.scope AND i.key = v.key"
            " LEFT JOIN reservation r ON r.id = i.reservation_id"
        )
        self.insert = text(f"INSERT INTO idempotency ({names}) SELECT {picks} FROM {claims}")
        self.take_over = text(
            "UPDATE idempotency SET reservation_id = v.reservation_id,"
            " fingerprint = v.fingerprint, created_at = v.created_at, expires_at = v.expires_at,"
            " answer = NULL, answer_expires_at = NULL, available_after = NULL"
            f" FROM {taken} WHERE idempotency.scope = v.scope AND idempotency.key = v.key"
            " AND idempotency.reservation_id = v.old_reservation_id"
        )
        self.keep = (
            update(IDEMPOTENCY)
            .where(IDEMPOTENCY.c.reservation_id == bindparam("hold_id"))
            .values(
                answer=bindparam("sealed"),
                answer_expires_at=bindparam("until"),
                available_after=bindparam("available_msat"),
            )
        )


async def load_claims(
    connection: LedgerConnection, statements: ClaimStatements, places: Collection[Place]
) -> list[ClaimRow]:
    """Load the claims made at those places, once their accounts are locked."""
    if not places:
        return []
    found = await connection.execute(
        statements.load, {"rows": orjson.dumps([tuple(place) for place in places]).decode()}
    )
    return [
        ClaimRow(
            place=Place(row.scope, row.key),
            hold_id=row.reservation_id,
            fingerprint=row.fingerprint,
            expires_at=as_time(row.expires_at),
            answer_until=None if row.answer_expires_at is None else as_time(row.answer_expires_at),
            available_msat=row.available_after,
            state=None if row.state is None else HoldState(row.state),
            settled_msat=row.settled_amount,
        )
        for row in found
    ]


async def write_claims(
    connection: LedgerConnection, statements: ClaimStatements, book: Book
) -> None:
    """Write all that changed. Raises LostRace when a claim went to another hold meanwhile."""
    claims, now_text = book.claims, time_text(book.now)
    new = [_values(row, now_text) for row in claims.new()]
    await _guarded(connection, statements.insert, new)
    taken = [(*_values(row, now_text), hold_id) for hold_id, row in claims.taken_over()]
    await _guarded(connection, statements.take_over, taken)
    if claims.kept:
        rows = [
            {
                "hold_id": kept.hold_id,
                "sealed": kept.answer,
                "until": kept.until,
                "available_msat": kept.available_msat,
            }
            for kept in claims.kept
        ]
        await connection.execute(statements.keep, rows)


async def _guarded(
    connection: LedgerConnection, statement: Executable, rows: list[tuple[str, ...]]
) -> None:
    if not rows:
        return
    result = await connection.execute(statement, {"rows": orjson.dumps(rows).decode()})
    if result.rowcount != len(rows):
        raise LostRace


def _values(row: ClaimRow, now_text: str) -> tuple[str, ...]:
    return (*row.place, row.hold_id, row.fingerprint, now_text, time_text(row.expires_at))
