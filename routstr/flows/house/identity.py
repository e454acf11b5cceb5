"""Who is at the operator's door: logging in, the session after it, a fresh code, logging out.

Laws (SR-3, SR-4)
- A try is counted before it is looked at, per account and per address; a right password during a
  block is refused as well. Nobody can shut a running session out, nor a browser that logged in
  before: it has tries of its own.
- A wrong password, a wrong code and nobody's account sound and last the same.
- A session is a random text of 256 bits whose hash is stored; it ends after 30 idle minutes, after
  12 hours, and at once where its row is deleted.
"""

import hmac
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from routstr.errors import InvalidCredentials, TotpRequired
from routstr.flows.context import Context
from routstr.flows.house.actions import new_note, note_action
from routstr.flows.house.codes import proof_of
from routstr.ledger.admins import LogIn, Proof, TakeProof
from routstr.ledger.notices import SESSIONS
from routstr.ledger.reads_admins import AdminView, SessionView, find_admin, find_session
from routstr.ledger.sessions import EndSessions, NewSession, TouchSession
from routstr.ledger.throttle import TakeTry, ThrottleScope

TOKEN_BYTES: Final = 32
TOKEN_PREFIX: Final = "rst_"  # noqa: S105 - a prefix is no secret
IDLE_S: Final = 30 * 60
SESSION_S: Final = 12 * 3600
TOUCH_S: Final = 60

ACCOUNT_FREE: Final = 5
ACCOUNT_WAIT_S: Final = 180
ADDRESS_FREE: Final = 10
ADDRESS_WAIT_S: Final = 900

NOBODY: Final = "stranger"

Session = SessionView


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Where somebody comes from: his address, and what his browser kept of an earlier log-in."""

    address: str
    device: str | None = field(default=None, repr=False)
    request_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A session that begins; `token` is the cookie's value, `device` is for the next log-in."""

    token: str = field(repr=False)
    session_id: str
    kind: str
    lifetime_s: int
    device: str = field(default="", repr=False)


async def log_in(ctx: Context, *, password: str, code: str | None, peer: Peer) -> Opened:
    """Open a session. One whose set-up is not over can only go on with that.

    Raises RateLimited, InvalidCredentials, and TotpRequired for a right password without a code.
    """
    admin = await _admin(ctx)
    scopes = _login_scopes(ctx, peer)
    attempt = ctx.new_id("try")
    await ctx.ledger.submit(TakeTry(attempt=attempt, scopes=scopes))
    stored = None if admin is None else admin.password_hash
    if not await ctx.passwords.is_right(password, stored) or admin is None:
        await _note_failure(ctx, peer, "login.fail")
        raise InvalidCredentials
    try:
        proof = None if admin.enrolled_at is None else _proof(ctx, admin, code, attempt)
        opened = new_session(ctx, "enrolling" if admin.enrolled_at is None else "session")
        await ctx.ledger.submit(
            LogIn(
                user_id=admin.id,
                password_hash=admin.password_hash,
                proof=proof,
                session=row_of(ctx, opened),
                forgives=scopes,
                note=new_note(
                    ctx,
                    admin.name,
                    "login",
                    detail={"address": peer.address},
                    request_id=peer.request_id,
                ),
            )
        )
    except InvalidCredentials:
        await _note_failure(ctx, peer, "login.fail")
        raise
    return opened


def _proof(ctx: Context, admin: AdminView, code: str | None, attempt: str) -> Proof:
    if not code:
        raise TotpRequired
    proof = proof_of(ctx, admin, code, attempt=attempt)
    if proof is None:
        raise InvalidCredentials
    return proof


async def confirm(ctx: Context, session: SessionView, code: str | None, peer: Peer) -> None:
    """Use up a fresh code for one act of a session. Raises TotpRequired, InvalidCredentials,
    RateLimited."""
    if not code:
        raise TotpRequired
    scope = _scope(ctx, f"confirm|{session.id}", ACCOUNT_FREE, ACCOUNT_WAIT_S)
    attempt = ctx.new_id("try")
    await ctx.ledger.submit(TakeTry(attempt=attempt, scopes=[scope]))
    admin = await _admin(ctx)
    try:
        if admin is None:
            raise InvalidCredentials
        proof = _proof(ctx, admin, code, attempt)
        await ctx.ledger.submit(TakeProof(session_id=session.id, proof=proof, forgives=[scope]))
    except InvalidCredentials:
        await _note_failure(ctx, peer, "code.fail", actor=session.user_name)
        raise


async def session_of(ctx: Context, token: str) -> SessionView | None:
    """The session of a cookie, if it goes on; that it was used is noted once a minute."""
    found = await _find(ctx, token)
    if found is None or found.kind == "token":
        return None
    if not is_open(found, ctx.clock.now()):
        return None
    await _touch(ctx, found)
    return found


def is_open(session: Session, now: datetime) -> bool:
    """Whether a session goes on: neither too old nor idle for too long."""
    used_at = session.last_used_at or session.created_at
    return session.expires_at > now and used_at + timedelta(seconds=IDLE_S) > now


async def token_of(ctx: Context, token: str) -> SessionView | None:
    """The program's token of that text, if it is valid; its use is noted once a minute."""
    if not token.startswith(TOKEN_PREFIX):
        return None
    found = await _find(ctx, token)
    if found is None or found.kind != "token" or found.expires_at <= ctx.clock.now():
        return None
    await _touch(ctx, found)
    return found


async def _find(ctx: Context, token: str) -> SessionView | None:
    async with ctx.database.reading() as connection:
        return await find_session(connection, token_hash(ctx, token))


async def _touch(ctx: Context, session: SessionView) -> None:
    now = ctx.clock.now()
    used_at = session.last_used_at
    if used_at is None or used_at + timedelta(seconds=TOUCH_S) <= now:
        await ctx.ledger.submit(TouchSession(session_id=session.id, at=now))


async def log_out(ctx: Context, session: SessionView, *, request_id: str | None = None) -> None:
    """End that session."""
    note = new_note(ctx, session.user_name, "logout", request_id=request_id)
    await ctx.ledger.submit(
        EndSessions(user_id=session.user_id, tokens=False, session_id=session.id, note=note)
    )
    ctx.tell(SESSIONS)


async def has_admin(ctx: Context) -> bool:
    """Whether anybody can log in at all."""
    return await _admin(ctx) is not None


def csrf_token(ctx: Context, session_id: str) -> str:
    """What a page of that session sends along with every write; nobody else can work it out."""
    return ctx.wallet.vault.digest(f"admin csrf|{session_id}".encode())


def is_csrf_token(ctx: Context, session_id: str, given: str) -> bool:
    """Whether that is it, in constant time."""
    return hmac.compare_digest(csrf_token(ctx, session_id).encode(), given.encode())


# ── parts of the set-up as well ───────────────────────────────────────────────────────────────


def new_session(ctx: Context, kind: str) -> Opened:
    """A session that has no row yet."""
    return Opened(
        token=fresh_token(ctx),
        session_id=ctx.new_id("ses"),
        kind=kind,
        lifetime_s=SESSION_S,
        device="" if kind == "enrolling" else _new_device(ctx),
    )


def row_of(ctx: Context, opened: Opened) -> NewSession:
    """Its row."""
    return NewSession(
        id=opened.session_id,
        token_hash=token_hash(ctx, opened.token),
        kind=opened.kind,
        lifetime_s=opened.lifetime_s,
    )


def fresh_token(ctx: Context) -> str:
    """256 random bits in hex."""
    return ctx.wallet.vault.fresh_bytes(TOKEN_BYTES).hex()


def token_hash(ctx: Context, token: str) -> str:
    """The only form of a session's or a program's token that is stored."""
    return ctx.wallet.vault.digest(f"admin token|{token}".encode("utf-8", "replace"))


async def _admin(ctx: Context) -> AdminView | None:
    async with ctx.database.reading() as connection:
        return await find_admin(connection)


async def _note_failure(ctx: Context, peer: Peer, action: str, *, actor: str = NOBODY) -> None:
    """Bounded by the throttle: what was blocked was not tried."""
    await note_action(
        ctx,
        actor=actor,
        action=action,
        detail={"address": peer.address},
        request_id=peer.request_id,
    )


# ── whose tries are counted together ──────────────────────────────────────────────────────────


def _login_scopes(ctx: Context, peer: Peer) -> list[ThrottleScope]:
    """The account's and the address's; alone its own of a browser that logged in before."""
    if peer.device and _is_device(ctx, peer.device):
        return [_scope(ctx, f"login|device|{peer.device}", ACCOUNT_FREE, ACCOUNT_WAIT_S)]
    return [
        _scope(ctx, "login|account", ACCOUNT_FREE, ACCOUNT_WAIT_S),
        _scope(ctx, f"login|address|{peer.address}", ADDRESS_FREE, ADDRESS_WAIT_S),
    ]


def _scope(ctx: Context, name: str, free: int, wait_s_max: int) -> ThrottleScope:
    digest = ctx.wallet.vault.digest(name.encode())
    return ThrottleScope(name=digest, free=free, wait_s_max=wait_s_max)


def _new_device(ctx: Context) -> str:
    name = ctx.wallet.vault.fresh_bytes(TOKEN_BYTES // 2).hex()
    return f"{name}.{_device_mac(ctx, name)}"


def _is_device(ctx: Context, text: str) -> bool:
    name, _, mac = text.partition(".")
    return hmac.compare_digest(_device_mac(ctx, name).encode(), mac.encode())


def _device_mac(ctx: Context, name: str) -> str:
    return ctx.wallet.vault.digest(f"admin device|{name}".encode("utf-8", "replace"))
