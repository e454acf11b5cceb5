"""Invites: codes that let somebody make a key, each for so many keys.

Laws
- A use is held with the intent that a key is to be opened, so that no more keys are on their way
  than there are uses, and taken in the commit that opens it. What fails gives its use back at once;
  what nobody finishes, when `held_until` is over.
- A key whose money came later than that is opened all the same, and its use counted: what was paid
  is credited.
- The code itself is nowhere; the database holds its keyed hash.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import Row, case, delete, func, insert, or_, select, update

from routstr.errors import InviteRequired
from routstr.ledger.commands import RowCommand, Transaction
from routstr.ledger.engine import ReadConnection
from routstr.ledger.tables import table_of
from routstr.ledger.tables_admin import Invite, InviteUse

INVITE = table_of(Invite)
USE = table_of(InviteUse)


@dataclass(frozen=True, slots=True, kw_only=True)
class InviteView:
    """An invite; of its code only what it was called by is known."""

    id: str
    note: str | None
    uses: int
    uses_left: int
    created_at: datetime
    expires_at: datetime | None

    def is_open(self, now: datetime) -> bool:
        """Whether it still lets somebody in."""
        return self.uses_left > 0 and (self.expires_at is None or self.expires_at > now)


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeInvite(RowCommand[None]):
    """Keep a new invite for `uses` keys; a repeat changes nothing."""

    invite_id: str
    code_hash: str = field(repr=False)
    uses: int
    note: str | None
    expires_at: datetime | None

    async def run(self, transaction: Transaction) -> None:
        """Insert it once."""
        connection = transaction.connection
        if await connection.scalar(select(INVITE.c.id).where(INVITE.c.id == self.invite_id)):
            return
        await connection.execute(
            insert(INVITE).values(
                id=self.invite_id,
                code_hash=self.code_hash,
                note=self.note,
                uses=0,
                uses_left=self.uses,
                created_at=transaction.book.now,
                expires_at=self.expires_at,
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EndInvite(RowCommand[bool]):
    """Let nobody in with it any more; False if there is none of that id."""

    invite_id: str

    async def run(self, transaction: Transaction) -> bool:
        """It expires now, unless it did before."""
        now = transaction.book.now
        ended = await transaction.connection.execute(
            update(INVITE)
            .where(INVITE.c.id == self.invite_id)
            .values(expires_at=case((INVITE.c.expires_at <= now, INVITE.c.expires_at), else_=now))
        )
        return bool(ended.rowcount)


async def hold_use(
    transaction: Transaction, code_hash: str, key_id: str, *, until: datetime
) -> None:
    """Hold one use for a key that is to be opened. Raises InviteRequired when there is none."""
    connection, now = transaction.connection, transaction.book.now
    wanted = select(INVITE).where(INVITE.c.code_hash == code_hash)
    if transaction.dialect == "postgresql":
        wanted = wanted.with_for_update()
    row = (await connection.execute(wanted)).one_or_none()
    if row is None or not _view(row).is_open(now):
        raise InviteRequired
    held = await connection.scalar(
        select(func.count())
        .select_from(USE)
        .where(USE.c.invite_id == row.id, USE.c.taken_at.is_(None), USE.c.held_until > now)
    )
    if int(held or 0) >= row.uses_left:
        raise InviteRequired("This invite's last use is being made; try again in a while.")
    await connection.execute(
        insert(USE).values(key_id=key_id, invite_id=row.id, held_until=until, taken_at=None)
    )


async def take_use(transaction: Transaction, key_id: str) -> None:
    """The key is open: its use is taken, once."""
    connection = transaction.connection
    invite_id = await connection.scalar(
        update(USE)
        .where(USE.c.key_id == key_id, USE.c.taken_at.is_(None))
        .values(taken_at=transaction.book.now)
        .returning(USE.c.invite_id)
    )
    if invite_id is None:
        return
    left = INVITE.c.uses_left
    await connection.execute(
        update(INVITE)
        .where(INVITE.c.id == invite_id)
        .values(uses=INVITE.c.uses + 1, uses_left=case((left > 0, left - 1), else_=0))
    )


async def give_back_use(transaction: Transaction, new_key: Mapping[str, object] | None) -> None:
    """No key will be opened of those terms: somebody else may use it."""
    if new_key is not None and new_key.get("invite"):
        await transaction.connection.execute(
            delete(USE).where(USE.c.key_id == new_key["id"], USE.c.taken_at.is_(None))
        )


def held_until(now: datetime, seconds: float) -> datetime:
    """When a use is free again that nobody has taken."""
    return now + timedelta(seconds=seconds)


async def find_invite(connection: ReadConnection, code_hash: str) -> InviteView | None:
    """The invite of that code."""
    row = (
        await connection.execute(select(INVITE).where(INVITE.c.code_hash == code_hash))
    ).one_or_none()
    return None if row is None else _view(row)


async def list_invites(
    connection: ReadConnection, *, search: str, limit: int, offset: int
) -> tuple[list[InviteView], int]:
    """Those whose note or id has the text in it, the newest first; and how many in all."""
    wanted = select(INVITE)
    if search:
        like = INVITE.c.note.icontains(search, autoescape=True)
        wanted = wanted.where(or_(like, INVITE.c.id == search))
    total = await connection.scalar(select(func.count()).select_from(wanted.subquery()))
    newest = (INVITE.c.created_at.desc(), INVITE.c.id)
    rows = await connection.execute(wanted.order_by(*newest).limit(limit).offset(offset))
    return [_view(row) for row in rows], int(total or 0)


def _view(row: Row[tuple[object, ...]]) -> InviteView:
    return InviteView(
        id=row.id,
        note=row.note,
        uses=row.uses,
        uses_left=row.uses_left,
        created_at=row.created_at,
        expires_at=row.expires_at,
    )
