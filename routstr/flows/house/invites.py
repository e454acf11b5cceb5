"""Invites as the operator makes and ends them; a code is shown once and kept nowhere."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from routstr.errors import InvalidParameter, NotFound
from routstr.flows.context import Context
from routstr.flows.house.actions import note_action
from routstr.flows.invited import new_code
from routstr.ledger.invites import EndInvite, InviteView, MakeInvite, list_invites

USES_MAX: Final = 1_000_000
NOTE_CHARS_MAX: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class NewInvite:
    """An invite just made; `code` is here and nowhere else."""

    id: str
    code: str = field(repr=False)


async def make_invite(
    ctx: Context,
    *,
    uses: int = 1,
    note: str = "",
    expires_at: datetime | None = None,
    actor: str,
    request_id: str | None = None,
) -> NewInvite:
    """A code for so many keys. Raises InvalidParameter."""
    if not 1 <= uses <= USES_MAX:
        raise InvalidParameter(f"From 1 to {USES_MAX}.", param="uses")
    if len(note) > NOTE_CHARS_MAX or not (note.isprintable()):
        raise InvalidParameter(f"At most {NOTE_CHARS_MAX} printable characters.", param="note")
    if expires_at is not None and expires_at <= ctx.clock.now():
        raise InvalidParameter("A time in the future.", param="expires_at")
    code = new_code(ctx)
    made = NewInvite(id=ctx.new_id("ivt"), code=code)
    await ctx.ledger.submit(
        MakeInvite(
            invite_id=made.id,
            code_hash=ctx.wallet.vault.key_hash(code),
            uses=uses,
            note=note or None,
            expires_at=expires_at,
        )
    )
    await note_action(
        ctx,
        actor=actor,
        action="invite.make",
        target=made.id,
        detail={"uses": uses},
        request_id=request_id,
    )
    return made


async def end_invite(
    ctx: Context, invite_id: str, *, actor: str, request_id: str | None = None
) -> None:
    """Let nobody in with it any more; keys that were made stay. Raises NotFound."""
    if not await ctx.ledger.submit(EndInvite(invite_id=invite_id)):
        raise NotFound("There is no such invite.", param="id")
    await note_action(
        ctx, actor=actor, action="invite.end", target=invite_id, request_id=request_id
    )


async def invites(
    ctx: Context, *, search: str = "", limit: int = 50, offset: int = 0
) -> tuple[Sequence[InviteView], int]:
    """The newest first, and how many in all."""
    async with ctx.database.reading() as connection:
        return await list_invites(connection, search=search, limit=limit, offset=offset)
