"""Loading and writing the claims of a batch: one statement each, and none without a claim."""

from collections.abc import Collection, Sequence
from typing import Final

import orjson

from routstr.ledger.book import Book
from routstr.ledger.bulk import STATES, BulkStatements
from routstr.ledger.changes import Change, Columns, insertion, rows_as_table, updating
from routstr.ledger.claims import ClaimRow, Place
from routstr.ledger.columns import as_time
from routstr.ledger.drivers import Driver, Row
from routstr.ledger.engine import Dialect

PLACE: Final[Columns] = {"scope": "text", "key": "text"}
CLAIM: Final[Columns] = {
    **PLACE,
    "reservation_id": "text",
    "fingerprint": "text",
    "created_at": "timestamptz",
    "expires_at": "timestamptz",
}
TAKEN: Final[Columns] = {
    **CLAIM,
    "old_reservation_id": "text",
    "answer": "text",
    "answer_expires_at": "timestamptz",
    "available_after": "bigint",
}
KEPT: Final[Columns] = {
    "reservation_id": "text",
    "answer": "text",
    "answer_expires_at": "timestamptz",
    "available_after": "bigint",
}
NO_ANSWER: Final = (None, None, None)


class ClaimStatements:
    """The statements for one engine, composed once."""

    def __init__(self, dialect: Dialect) -> None:
        """Compose for `dialect`; every name in them is a constant of this module."""
        parameter = "?1" if dialect == "sqlite" else "$1"
        self.load = (
            "SELECT i.scope, i.key, i.reservation_id, i.fingerprint, i.expires_at,"
            " i.answer_expires_at, i.available_after, r.state, r.settled_amount"
            f" FROM {rows_as_table(dialect, PLACE, parameter)}"
            " JOIN idempotency i ON i.scope = v.scope AND i.key = v.key"
            " LEFT JOIN reservation r ON r.id = i.reservation_id"
        )
        self.insert = insertion(dialect, "idempotency", CLAIM)
        self.take_over = updating(
            dialect,
            "idempotency",
            TAKEN,
            sets={name: name for name in TAKEN if name not in {*PLACE, "old_reservation_id"}},
            where={**{name: name for name in PLACE}, "reservation_id": "old_reservation_id"},
        )
        # An answer is kept if its hold still has the claim.
        self.keep = updating(
            dialect,
            "idempotency",
            KEPT,
            sets={name: name for name in KEPT if name != "reservation_id"},
            where={"reservation_id": "reservation_id"},
            is_guarded=False,
        )


async def load_claims(
    driver: Driver, statements: ClaimStatements, places: Collection[Place]
) -> list[ClaimRow]:
    """Load the claims made at those places, once their accounts are locked."""
    if not places:
        return []
    wanted = orjson.dumps([tuple(place) for place in places]).decode()
    return [
        ClaimRow(
            place=Place(scope, key),
            hold_id=hold_id,
            fingerprint=fingerprint,
            expires_at=as_time(expires_at),
            answer_until=None if answer_until is None else as_time(answer_until),
            available_msat=available_after,
            state=None if state is None else STATES[state],
            settled_msat=settled_amount,
        )
        for (
            scope,
            key,
            hold_id,
            fingerprint,
            expires_at,
            answer_until,
            available_after,
            state,
            settled_amount,
        ) in await driver.fetch(statements.load, wanted)
    ]


def claim_changes(
    bulk: BulkStatements, statements: ClaimStatements, book: Book
) -> list[list[tuple[Change, Sequence[Row]]]]:
    """All claims that changed; one that went to another hold meanwhile is a lost race.

    Answers are kept when the claims are written, as a claim may be new and kept in one batch.
    """
    claims, time = book.claims, bulk.time

    def values(row: ClaimRow) -> Row:
        times = (time(book.now), time(row.expires_at))
        return (*row.place, row.hold_id, row.fingerprint, *times)

    kept = [
        (kept.hold_id, kept.answer, time(kept.until), kept.available_msat) for kept in claims.kept
    ]
    taken = [(*values(row), old, *NO_ANSWER) for old, row in claims.taken_over()]
    return [
        [(statements.insert, [values(row) for row in claims.new()]), (statements.take_over, taken)],
        [(statements.keep, kept)],
    ]
