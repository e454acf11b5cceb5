"""What operators did, for ever: rows that are added and never changed. No secret is in them."""

from collections.abc import Mapping
from dataclasses import dataclass

from routstr.ledger.commands import RowCommand, Transaction
from routstr.ledger.tables import table_of
from routstr.ledger.tables_admin import AdminAction
from routstr.ledger.upstreams import insert_new

ACTION = table_of(AdminAction)


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionNote:
    """One action: who, what, on what; `operation_id` makes a repeat write nothing."""

    operation_id: str
    actor: str
    action: str
    target: str | None = None
    detail: Mapping[str, object] | None = None
    request_id: str | None = None


async def write_note(transaction: Transaction, note: ActionNote) -> None:
    """Add the row, in the transaction of what it tells of; the first of an id stays."""
    await transaction.connection.execute(
        insert_new(ACTION, transaction.dialect).values(
            operation_id=note.operation_id,
            actor=note.actor,
            action=note.action,
            target=note.target,
            detail=None if note.detail is None else dict(note.detail),
            request_id=note.request_id,
            created_at=transaction.book.now,
        )
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteAction(RowCommand[None]):
    """Note an action whose effect is a command of its own."""

    note: ActionNote

    async def run(self, transaction: Transaction) -> None:
        """Add it once."""
        await write_note(transaction, self.note)
