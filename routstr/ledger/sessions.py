"""The commands of sessions and tokens: opened, used, ended. Only the hash of an id is stored."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import delete, update

from routstr.ledger.actions import ActionNote, write_note
from routstr.ledger.commands import RowCommand, Transaction
from routstr.ledger.tables import table_of
from routstr.ledger.tables_admin import AdminSession
from routstr.ledger.upstreams import insert_new

SESSION = table_of(AdminSession)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSession:
    """A session or a token that is to be; `scopes` and `preview` are a token's."""

    id: str
    token_hash: str = field(repr=False)
    kind: str
    lifetime_s: int
    name: str | None = None
    preview: str | None = None
    scopes: Sequence[str] = ()


async def write_session(transaction: Transaction, user_id: str, session: NewSession) -> None:
    """Add its row, unless it is there."""
    now = transaction.book.now
    await transaction.connection.execute(
        insert_new(SESSION, transaction.dialect).values(
            id=session.id,
            admin_user_id=user_id,
            token_hash=session.token_hash,
            kind=session.kind,
            name=session.name,
            preview=session.preview,
            scopes=list(session.scopes),
            created_at=now,
            last_used_at=None if session.kind == "token" else now,
            expires_at=now + timedelta(seconds=session.lifetime_s),
        )
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AddToken(RowCommand[None]):
    """Keep a token for programs."""

    user_id: str
    token: NewSession
    note: ActionNote

    async def run(self, transaction: Transaction) -> None:
        """Insert it once."""
        await write_session(transaction, self.user_id, self.token)
        await write_note(transaction, self.note)


@dataclass(frozen=True, slots=True, kw_only=True)
class TouchSession(RowCommand[None]):
    """It was used at `at`."""

    session_id: str
    at: datetime

    async def run(self, transaction: Transaction) -> None:
        """Never backwards; one that has ended stays so."""
        await transaction.connection.execute(
            update(SESSION)
            .where(
                SESSION.c.id == self.session_id,
                SESSION.c.last_used_at.is_(None) | (SESSION.c.last_used_at < self.at),
            )
            .values(last_used_at=self.at)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptCodes(RowCommand[None]):
    """The recovery codes were saved: the session that made them is an ordinary one now."""

    session_id: str

    async def run(self, transaction: Transaction) -> None:
        """Change its kind."""
        await transaction.connection.execute(
            update(SESSION)
            .where(SESSION.c.id == self.session_id, SESSION.c.kind == "saving")
            .values(kind="session")
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EndSessions(RowCommand[int]):
    """End somebody's sessions, or his tokens, or one of either by its id; yields how many.

    A repeat finds none.
    """

    user_id: str
    tokens: bool
    session_id: str | None = None
    note: ActionNote

    async def run(self, transaction: Transaction) -> int:
        """Delete them; nothing to end is nothing to note."""
        ended = delete(SESSION).where(SESSION.c.admin_user_id == self.user_id)
        is_token = SESSION.c.kind == "token"
        ended = ended.where(is_token if self.tokens else ~is_token)
        if self.session_id is not None:
            ended = ended.where(SESSION.c.id == self.session_id)
        count = (await transaction.connection.execute(ended)).rowcount
        if count:
            await write_note(transaction, self.note)
        return count
