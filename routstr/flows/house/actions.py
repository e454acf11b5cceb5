"""What operators did: noted for ever, and read again, the newest first. No secret is in it."""

import re
from collections.abc import Mapping
from typing import Final

from routstr.flows.context import Context
from routstr.ledger.actions import ActionNote, NoteAction
from routstr.ledger.reads_admins import ActionView, newest_actions

PAGE_MAX: Final = 500
_ACTION: Final = re.compile(r"[a-z]+(?:\.[a-z]+)?")


def new_note(
    ctx: Context,
    actor: str,
    action: str,
    *,
    target: str | None = None,
    detail: Mapping[str, object] | None = None,
    request_id: str | None = None,
) -> ActionNote:
    """A note for a command that writes it together with what it tells of.

    `action` is a thing and what was done with it: `key.change`, `login`.
    """
    assert _ACTION.fullmatch(action), action
    return ActionNote(
        operation_id=ctx.new_id("act"),
        actor=actor,
        action=action,
        target=target,
        detail=detail,
        request_id=request_id,
    )


async def note_action(
    ctx: Context,
    *,
    actor: str,
    action: str,
    target: str | None = None,
    detail: Mapping[str, object] | None = None,
    request_id: str | None = None,
) -> None:
    """Note what somebody did; `detail` holds JSON values and no secret."""
    note = new_note(ctx, actor, action, target=target, detail=detail, request_id=request_id)
    await ctx.ledger.submit(NoteAction(note=note))


async def actions(ctx: Context, *, limit: int, before: int | None = None) -> list[ActionView]:
    """At most `limit` of them; `before` is the id of the last one that was shown."""
    async with ctx.database.reading() as connection:
        return await newest_actions(connection, limit=min(limit, PAGE_MAX), before=before)
