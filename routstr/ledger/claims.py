"""The Idempotency-Keys that one batch claims, as the executor's book has them.

A claim belongs to an account whose row is locked, so nobody else changes it meanwhile. An answer is
written but never loaded: it may be large, and whoever repeats a request reads it afterwards.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import NamedTuple

from routstr.core.hold import HoldState
from routstr.ledger.columns import Sealed


class Place(NamedTuple):
    """Where a claim is made: in the scope of an account's path, under the digest of its key."""

    scope: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimRow:
    """A row of `idempotency`, with how its hold stood when it was loaded; amounts in msat."""

    place: Place
    hold_id: str
    fingerprint: str
    expires_at: datetime
    answer_until: datetime | None = None
    available_msat: int | None = None
    state: HoldState | None = None
    settled_msat: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptAnswer:
    """An answer about to be written to the claim of its hold, if that still has it."""

    hold_id: str
    answer: Sealed = field(repr=False)
    until: datetime
    available_msat: int


class ClaimBook:
    """Claims of one batch. There is nothing to undo: a command that changes one refuses before."""

    def __init__(self, rows: Iterable[ClaimRow] = ()) -> None:
        """Start from rows whose accounts are locked."""
        self._loaded = {row.place: row for row in rows}
        self._rows = dict(self._loaded)
        self.kept: list[KeptAnswer] = []

    def find(self, place: Place) -> ClaimRow | None:
        """The claim made there, if any."""
        return self._rows.get(place)

    def put(self, row: ClaimRow) -> None:
        """Make or take over a claim."""
        self._rows[row.place] = row

    def keep(self, kept: KeptAnswer) -> None:
        """Keep an answer."""
        self.kept.append(kept)
        for place, row in self._rows.items():
            if row.hold_id == kept.hold_id:
                self._rows[place] = replace(
                    row, answer_until=kept.until, available_msat=kept.available_msat
                )

    def new(self) -> list[ClaimRow]:
        """Claims that have no row yet."""
        return [row for place, row in self._rows.items() if place not in self._loaded]

    def taken_over(self) -> list[tuple[str, ClaimRow]]:
        """(whose hold it was, as it is now) of each claim that went to another hold."""
        pairs = ((loaded.hold_id, self._rows[place]) for place, loaded in self._loaded.items())
        return [(hold_id, now) for hold_id, now in pairs if now.hold_id != hold_id]
