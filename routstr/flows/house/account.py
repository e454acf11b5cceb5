"""What the admin changes about himself: password, tokens for programs, who is logged in."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from routstr.errors import InvalidCredentials, InvalidParameter, NotFound
from routstr.flows.context import Context
from routstr.flows.house.actions import new_note
from routstr.flows.house.codes import new_secret
from routstr.flows.house.identity import (
    TOKEN_PREFIX,
    Opened,
    fresh_token,
    is_open,
    new_session,
    row_of,
    token_hash,
)
from routstr.flows.house.passwords import SALT_BYTES, check_password
from routstr.ledger.admins import ChangePassword, ResetTotp
from routstr.ledger.notices import SESSIONS
from routstr.ledger.reads_admins import AdminView, SessionView, find_admin, sessions_of
from routstr.ledger.sessions import AddToken, EndSessions, NewSession

SCOPES: Final = ("read", "write", "withdraw")
DAY_S: Final = 86_400
TOKEN_DAYS: Final = 90
TOKEN_DAYS_MAX: Final = 366
NAME_CHARS_MAX: Final = 60
PREVIEW_HEAD: Final = 8
PREVIEW_TAIL: Final = 4
SHOWN_MAX: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class NewToken:
    """A token for programs; its text is here and nowhere else."""

    token: str = field(repr=False)
    id: str


async def make_token(
    ctx: Context,
    user_id: str,
    *,
    name: str,
    scopes: Collection[str],
    days: int = TOKEN_DAYS,
    actor: str,
    request_id: str | None = None,
) -> NewToken:
    """A token that may do what `scopes` name, for so many days. Raises InvalidParameter."""
    if not name.strip() or len(name) > NAME_CHARS_MAX or not name.isprintable():
        raise InvalidParameter(f"A name of 1 to {NAME_CHARS_MAX} characters.", param="name")
    if not scopes or not set(scopes) <= set(SCOPES):
        raise InvalidParameter(f"Some of {', '.join(SCOPES)}.", param="scopes")
    if not 1 <= days <= TOKEN_DAYS_MAX:
        raise InvalidParameter(f"1 to {TOKEN_DAYS_MAX} days.", param="expires_in_days")
    token = f"{TOKEN_PREFIX}{fresh_token(ctx)}"
    chosen = [each for each in SCOPES if each in scopes]
    row = NewSession(
        id=ctx.new_id("ses"),
        token_hash=token_hash(ctx, token),
        kind="token",
        lifetime_s=days * DAY_S,
        name=name.strip(),
        preview=f"{token[:PREVIEW_HEAD]}…{token[-PREVIEW_TAIL:]}",
        scopes=chosen,
    )
    note = new_note(
        ctx,
        actor,
        "token.make",
        target=row.id,
        detail={"name": name.strip(), "scopes": chosen, "days": days},
        request_id=request_id,
    )
    await ctx.ledger.submit(AddToken(user_id=user_id, token=row, note=note))
    return NewToken(token=token, id=row.id)


async def revoke_token(
    ctx: Context, user_id: str, token_id: str, *, actor: str, request_id: str | None = None
) -> None:
    """End a token at once. Raises NotFound."""
    note = new_note(ctx, actor, "token.revoke", target=token_id, request_id=request_id)
    ended = await ctx.ledger.submit(
        EndSessions(user_id=user_id, tokens=True, session_id=token_id, note=note)
    )
    if not ended:
        raise NotFound("There is no token of that id.")
    ctx.tell(SESSIONS)


async def tokens(ctx: Context) -> list[SessionView]:
    """Every token that was not revoked, the newest first."""
    return await _sessions(ctx, tokens=True)


async def open_sessions(ctx: Context) -> list[SessionView]:
    """Every session that goes on, the newest first."""
    now = ctx.clock.now()
    return [each for each in await _sessions(ctx, tokens=False) if is_open(each, now)]


async def _sessions(ctx: Context, *, tokens: bool) -> list[SessionView]:
    async with ctx.database.reading() as connection:
        return await sessions_of(connection, tokens=tokens, limit=SHOWN_MAX)


async def end_sessions(
    ctx: Context,
    user_id: str,
    *,
    session_id: str | None = None,
    actor: str,
    request_id: str | None = None,
) -> int:
    """End one session, or all of them; yields how many ended."""
    note = new_note(ctx, actor, "session.end", target=session_id, request_id=request_id)
    ended = await ctx.ledger.submit(
        EndSessions(user_id=user_id, tokens=False, session_id=session_id, note=note)
    )
    ctx.tell(SESSIONS)
    return ended


async def change_password(
    ctx: Context,
    user_id: str,
    *,
    current: str,
    new: str,
    actor: str,
    request_id: str | None = None,
) -> None:
    """Another password for who knows the one in force; ends every session.

    Raises InvalidCredentials, InvalidParameter.
    """
    check_password(new)
    admin = await the_admin(ctx)
    if admin.id != user_id or not await ctx.passwords.is_right(current, admin.password_hash):
        raise InvalidCredentials("The current password is wrong.")
    note = new_note(ctx, actor, "password.change", request_id=request_id)
    await ctx.ledger.submit(
        ChangePassword(
            user_id=user_id,
            password_hash=await _hashed(ctx, new),
            was=admin.password_hash,
            note=note,
        )
    )


# ── for somebody who owns the machine ─────────────────────────────────────────────────────────


async def reset_password(ctx: Context, new: str, *, actor: str) -> None:
    """Another password without the one in force. Raises NotFound, InvalidParameter."""
    check_password(new)
    admin = await the_admin(ctx)
    note = new_note(ctx, actor, "password.reset")
    await ctx.ledger.submit(
        ChangePassword(user_id=admin.id, password_hash=await _hashed(ctx, new), was=None, note=note)
    )


async def reset_totp(ctx: Context, *, actor: str) -> None:
    """Forget the authenticator app; the next log-in connects another one. Raises NotFound."""
    admin = await the_admin(ctx)
    note = new_note(ctx, actor, "totp.reset")
    await ctx.ledger.submit(ResetTotp(user_id=admin.id, totp_secret=new_secret(ctx), note=note))


async def replace_app(ctx: Context, *, actor: str, request_id: str | None = None) -> Opened:
    """Forget the authenticator app; the session that begins can only connect another one.

    Raises NotFound.
    """
    admin = await the_admin(ctx)
    opened = new_session(ctx, "enrolling")
    note = new_note(ctx, actor, "totp.reset", request_id=request_id)
    await ctx.ledger.submit(
        ResetTotp(
            user_id=admin.id, totp_secret=new_secret(ctx), session=row_of(ctx, opened), note=note
        )
    )
    return opened


async def codes_left(ctx: Context) -> int:
    """How many recovery codes were not used yet. Raises NotFound."""
    return len((await the_admin(ctx)).codes)


async def the_admin(ctx: Context) -> AdminView:
    """The one admin. Raises NotFound before the set-up."""
    async with ctx.database.reading() as connection:
        admin = await find_admin(connection)
    if admin is None:
        raise NotFound("There is no admin yet; open the set-up link first.")
    return admin


async def _hashed(ctx: Context, password: str) -> str:
    return await ctx.passwords.hashed(password, salt=ctx.wallet.vault.fresh_bytes(SALT_BYTES))
