"""An old copy of a node's database, made fit to go on where a life it knows nothing of has ended.

What it knows is of the moment it was made. Since then the node has made outputs, spent coins and
given coins away, ended what was open, and perhaps all of that twice (ecash, 4 E).

Laws
- From the first commit on the database says that it is a copy, and no node starts on it until the
  mints have been asked; what was begun is begun again without harm.
- No output is made twice: each keyset's counter goes behind everything the mint ever signed, and a
  gap behind that, before anything new is prepared there.
- A coin that the mint calls spent is `lost`, the operator's loss. Nobody's balance changes by that.
- What was open may have been sent since, and ended since: nothing is taken for unsent.
- What only one life may use is not used again: the acceptance key moves on, and whoever was logged
  in is not any more.
- What looks like profit may be somebody's who paid in since: none is sent until the operator says
  anew where to.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from sqlalchemy import and_, delete, func, or_, select, update

from routstr.core.money import msat_from_unit
from routstr.errors import RestoreRefused
from routstr.ledger.commands import RowCommand, Transaction
from routstr.ledger.engine import Database, ReadConnection
from routstr.ledger.reads import JOB, plain_setting
from routstr.ledger.restores import RESTORE, put_setting
from routstr.ledger.sagas import (
    IS_OPEN,
    KEYSET,
    MINT,
    OPEN_STATES,
    OPERATION,
    PROOF,
    OperationState,
)
from routstr.ledger.seed import ACCEPTANCE_INDEX, acceptance_index
from routstr.ledger.settings import VALUE
from routstr.ledger.tables import table_of
from routstr.ledger.tables_admin import AdminSession

SESSION = table_of(AdminSession)

DOUBTFUL: Final = "doubtful"  # as `flows/swap.py` leaves it: its outputs were of another life then
PAYOUT_TO: Final = "payout_to"
BLIND_SKIP: Final = 10_000
"""How far the counters at a mint that cannot be asked move on: nobody prepares more in a day."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyMark:
    """A restore that is under way: of which backup, and how far it has come.

    `first` is each keyset's next counter as the copy had it; `upto`, of the keysets that were asked
    about, the one since then. Coins below that may be somebody else's, too.
    """

    backup: str
    first: Mapping[str, int] = field(default_factory=dict)
    upto: Mapping[str, int] = field(default_factory=dict)


async def begin_copy(
    database: Database, *, backup: str, acceptance_key: int, now: datetime
) -> None:
    """Mark a database that was just filled from a backup; nobody else uses it."""
    index = max(await acceptance_index(database) + 1, acceptance_key)
    async with database.writer.begin() as connection:
        rows = await connection.execute(select(KEYSET.c.id, KEYSET.c.next_counter))
        first = {row.id: row.next_counter for row in rows}
        mark = {"state": "running", "backup": backup, "first": first, "upto": {}}
        await put_setting(connection, RESTORE, mark, now)
        await put_setting(connection, ACCEPTANCE_INDEX, {"index": index}, now)
        await put_setting(connection, PAYOUT_TO, {VALUE: None}, now)
        is_doubtful = and_(
            OPERATION.c.state == OperationState.WATCH, OPERATION.c.last_code == DOUBTFUL
        )
        await connection.execute(
            update(OPERATION)
            .where(OPERATION.c.state.in_(OPEN_STATES), ~func.coalesce(is_doubtful, False))
            .values(is_from_copy=True)
        )
        await connection.execute(
            update(OPERATION)
            .where(OPERATION.c.state == OperationState.PREPARED)
            .values(state=OperationState.SENT)
        )
        await connection.execute(
            update(OPERATION)
            .where(OPERATION.c.state.in_(OPEN_STATES))
            .values(lease_owner=None, lease_until=None, next_attempt_at=now)
        )
        await connection.execute(update(JOB).values(lease_owner=None, lease_until=None))
        await connection.execute(delete(SESSION))


async def copy_mark(connection: ReadConnection) -> CopyMark | None:
    """The restore under way, if there is one, of a backup."""
    value = await plain_setting(connection, RESTORE)
    if value is None or value.get("state") == "done":
        return None
    backup, first, upto = (value.get(name) for name in ("backup", "first", "upto"))
    if not isinstance(backup, str) or not isinstance(first, dict) or not isinstance(upto, dict):
        return None
    return CopyMark(backup=backup, first=first, upto=upto)


async def mints_of(connection: ReadConnection) -> list[str]:
    """The URLs of the mints that the database has dealt with."""
    wanted = (
        select(MINT.c.url)
        .join(KEYSET, KEYSET.c.mint_id == MINT.c.id)
        .where(or_(KEYSET.c.next_counter > 0, KEYSET.c.id.in_(select(PROOF.c.keyset_id))))
    )
    return sorted(set(await connection.scalars(wanted)))


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkAsked(RowCommand[None]):
    """Keep in mind that the mint was asked about a keyset, and up to which counter."""

    keyset_id: str
    upto: int

    async def run(self, transaction: Transaction) -> None:
        """One more version of the mark."""
        mark = await copy_mark(_reading(transaction))
        if mark is None:
            raise RestoreRefused("no backup is being restored here")
        if mark.upto.get(self.keyset_id) == self.upto:
            return
        value = {
            "state": "running",
            "backup": mark.backup,
            "first": dict(mark.first),
            "upto": {**mark.upto, self.keyset_id: self.upto},
        }
        await put_setting(transaction.connection, RESTORE, value, transaction.book.now)


@dataclass(frozen=True, slots=True, kw_only=True)
class SkipMint(RowCommand[None]):
    """Give a mint up that cannot be asked: its counters move far on, its coins stay unexamined."""

    mint_url: str

    async def run(self, transaction: Transaction) -> None:
        """Once for each keyset, however often this is run."""
        mark = await copy_mark(_reading(transaction))
        if mark is None:
            raise RestoreRefused("no backup is being restored here")
        mint = select(MINT.c.id).where(MINT.c.url == self.mint_url).scalar_subquery()
        for keyset_id, first in mark.first.items():
            await transaction.connection.execute(
                update(KEYSET)
                .where(
                    KEYSET.c.id == keyset_id,
                    KEYSET.c.mint_id == mint,
                    KEYSET.c.next_counter < first + BLIND_SKIP,
                )
                .values(next_counter=first + BLIND_SKIP)
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantine(RowCommand[int]):
    """These coins are not the node's any more: the mint calls them spent. Yields msat.

    The books keep them as `lost`. The loss is the operator's; every balance stands.
    """

    ys: Sequence[str] = field(repr=False)

    async def run(self, transaction: Transaction) -> int:
        """unspent or locked → lost; what is anything else by now stays so."""
        held = PROOF.c.y.in_(list(self.ys)), PROOF.c.state.in_(("unspent", "locked"))
        rows = await transaction.connection.execute(
            select(KEYSET.c.unit, PROOF.c.amount)
            .join(KEYSET, KEYSET.c.id == PROOF.c.keyset_id)
            .where(*held)
        )
        lost_msat = sum(msat_from_unit(int(row.amount), row.unit) for row in rows)
        await transaction.connection.execute(update(PROOF).where(*held).values(state="lost"))
        return lost_msat


@dataclass(frozen=True, slots=True, kw_only=True)
class OldCoin:
    """A coin that the life before may have given to somebody; amount in its keyset's unit."""

    y: str
    keyset_id: str
    amount: int


async def old_coins(
    connection: ReadConnection, mint_url: str, unit: str, upto: Mapping[str, int], *, limit: int
) -> list[OldCoin]:
    """The node's free coins of a mint and unit made before the restore, the largest first."""
    made_before = or_(
        *(and_(PROOF.c.keyset_id == each, PROOF.c.counter < last) for each, last in upto.items())
    )
    rows = await connection.execute(
        select(PROOF.c.y, PROOF.c.keyset_id, PROOF.c.amount)
        .join(KEYSET, KEYSET.c.id == PROOF.c.keyset_id)
        .join(MINT, MINT.c.id == KEYSET.c.mint_id)
        .where(
            MINT.c.url == mint_url,
            KEYSET.c.unit == unit,
            PROOF.c.state == "unspent",
            made_before,
        )
        .order_by(PROOF.c.amount.desc(), PROOF.c.y)
        .limit(limit)
    )
    return [OldCoin(y=row.y, keyset_id=row.keyset_id, amount=row.amount) for row in rows]


async def open_operations(connection: ReadConnection, mint_id: str | None = None) -> int:
    """How many operations the mints, or that one, have not ended yet."""
    count = select(func.count()).select_from(OPERATION).where(IS_OPEN)
    if mint_id is not None:
        count = count.where(OPERATION.c.mint_id == mint_id)
    return int((await connection.execute(count)).scalar_one())


def _reading(transaction: Transaction) -> ReadConnection:
    return ReadConnection(transaction.connection)  # type: ignore[arg-type]  # its `execute` is alike
