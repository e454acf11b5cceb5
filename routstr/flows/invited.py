"""Whether somebody may make a key, where that needs an invite."""

import re
from typing import Final

from routstr.errors import InviteRequired
from routstr.flows.context import Context
from routstr.ledger.invites import find_invite

HEADER: Final = "x-routstr-invite"
_CODE: Final = re.compile(r"invite-[0-9a-f]{64}")


def new_code(ctx: Context) -> str:
    """A fresh code: 256 random bits."""
    return f"invite-{ctx.new_api_key().removeprefix('sk-')}"


async def invite_hash(ctx: Context, code: str | None) -> str | None:
    """The hash of the code that a new key takes a use of; None where none is needed.

    The use itself is held and taken by the ledger. Raises InviteRequired.
    """
    if not ctx.switches.needs_invite:
        return None
    if code is None or not _CODE.fullmatch(code.strip()):
        raise InviteRequired
    code_hash = ctx.wallet.vault.key_hash(code.strip())
    async with ctx.database.reading() as connection:
        invite = await find_invite(connection, code_hash)
    if invite is None or not invite.is_open(ctx.clock.now()):
        raise InviteRequired("This invite is not known, used up, or over.")
    return code_hash
