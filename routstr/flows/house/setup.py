"""The first log-in: a link that is good once, a password, an authenticator app, recovery codes.

There is no default password. Whoever has the link (who sees the node's terminal) becomes the one
admin; until an app has proved its secret, and the recovery codes are said to be saved, his session
can do nothing but that.
"""

from dataclasses import dataclass, field
from typing import Final

from routstr.core.totp import enrolment_uri, matching_step, secret_text
from routstr.errors import InvalidCredentials, InvalidRequest, SetupRefused
from routstr.flows.context import Context
from routstr.flows.house.actions import new_note
from routstr.flows.house.codes import new_recovery_codes, new_secret, recovery_hash, secret_of
from routstr.flows.house.identity import Opened, Peer, fresh_token, new_session, row_of
from routstr.flows.house.passwords import SALT_BYTES, check_password
from routstr.ledger.admins import ADMIN_NAME, CreateAdmin, Enrol, KeepSetupLink, ReplaceCodes
from routstr.ledger.reads_admins import AdminView, SessionView, find_admin, setup_digest
from routstr.ledger.sessions import AcceptCodes

# Listening everywhere is listening here, where browsers keep a log-in without TLS.
WILDCARDS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing is bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """What an authenticator app needs: a URI for its camera, and the secret as text."""

    uri: str = field(repr=False)
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolled:
    """The new session, and the recovery codes, which nobody can read again."""

    opened: Opened
    codes: list[str] = field(repr=False)


async def new_setup_link(ctx: Context, *, actor: str, is_first: bool = False) -> str | None:
    """The token of a set-up link, which replaces any other; only its hash is stored.

    None where there is an admin already, and with `is_first` where there was a link before.
    """
    token = fresh_token(ctx)
    note = new_note(ctx, actor, "setup.link")
    kept = await ctx.ledger.submit(
        KeepSetupLink(digest=_link_digest(ctx, token), is_first=is_first, note=note)
    )
    return token if kept else None


def setup_url(ctx: Context, token: str, *, host: str, port: int) -> str:
    """The link itself, at the node's public address, else where it listens; for one person."""
    here = WILDCARDS.get(host, host)
    local = f"http://[{here}]:{port}" if ":" in here else f"http://{here}:{port}"
    base = (ctx.facts.http_url or local).rstrip("/")
    return f"{base}/admin/setup?token={token}"


async def is_setup_link(ctx: Context, token: str) -> bool:
    """Whether that link would be taken now."""
    async with ctx.database.reading() as connection:
        if await find_admin(connection) is not None:
            return False
        return await setup_digest(connection) == _link_digest(ctx, token)


async def set_up(ctx: Context, token: str, password: str, peer: Peer) -> Opened:
    """Make the admin; the session can only enrol. Raises SetupRefused, InvalidParameter."""
    check_password(password)
    if not await is_setup_link(ctx, token):
        raise SetupRefused
    salt = ctx.wallet.vault.fresh_bytes(SALT_BYTES)
    opened = new_session(ctx, "enrolling")
    await ctx.ledger.submit(
        CreateAdmin(
            user_id=ctx.new_id("adm"),
            link_digest=_link_digest(ctx, token),
            password_hash=await ctx.passwords.hashed(password, salt=salt),
            totp_secret=new_secret(ctx),
            session=row_of(ctx, opened),
            note=new_note(
                ctx,
                ADMIN_NAME,
                "setup",
                detail={"address": peer.address},
                request_id=peer.request_id,
            ),
        )
    )
    return opened


async def enrolment(ctx: Context, session: SessionView) -> Enrolment:
    """What to show to somebody who enrols. Raises InvalidRequest once an app is connected."""
    admin = await _enrolling(ctx, session)
    secret = secret_of(ctx, admin)
    uri = enrolment_uri(secret, issuer=ctx.facts.name, account=admin.name)
    return Enrolment(uri=uri, secret=secret_text(secret))


async def enrol(ctx: Context, session: SessionView, code: str, peer: Peer) -> Enrolled:
    """Prove the app by its first code. Raises InvalidCredentials."""
    admin = await _enrolling(ctx, session)
    step = matching_step(
        secret_of(ctx, admin),
        "".join(code.split()),
        unix_s=int(ctx.clock.now().timestamp()),
        after=None,
    )
    if step is None:
        raise InvalidCredentials("That code is wrong; take the one that the app shows now.")
    codes = new_recovery_codes(ctx)
    opened = new_session(ctx, "saving")
    await ctx.ledger.submit(
        Enrol(
            user_id=admin.id,
            sealed_secret=admin.sealed_secret,
            step=step,
            code_hashes=[recovery_hash(ctx, each) for each in codes],
            session=row_of(ctx, opened),
            note=new_note(ctx, admin.name, "totp.enrol", request_id=peer.request_id),
        )
    )
    return Enrolled(opened=opened, codes=codes)


async def accept_codes(ctx: Context, session: SessionView) -> None:
    """They were saved: the set-up is over."""
    await ctx.ledger.submit(AcceptCodes(session_id=session.id))


async def new_codes(
    ctx: Context, user_id: str, *, actor: str, request_id: str | None = None
) -> list[str]:
    """Ten other recovery codes; those before are worth nothing any more."""
    codes = new_recovery_codes(ctx)
    note = new_note(ctx, actor, "codes.make", request_id=request_id)
    hashes = [recovery_hash(ctx, each) for each in codes]
    await ctx.ledger.submit(ReplaceCodes(user_id=user_id, code_hashes=hashes, note=note))
    return codes


async def _enrolling(ctx: Context, session: SessionView) -> AdminView:
    async with ctx.database.reading() as connection:
        admin = await find_admin(connection)
    if admin is None or admin.enrolled_at is not None or session.kind != "enrolling":
        raise InvalidRequest("An authenticator app is connected already.")
    return admin


def _link_digest(ctx: Context, token: str) -> str:
    return ctx.wallet.vault.digest(f"setup link|{token}".encode("utf-8", "replace"))
