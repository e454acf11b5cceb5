"""What flows read of admins, their sessions and tokens, and of what was done."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Row, select

from routstr.ledger.actions import ACTION
from routstr.ledger.admins import ADMIN, SETUP_LINK
from routstr.ledger.engine import ReadConnection
from routstr.ledger.reads import plain_setting
from routstr.ledger.sessions import SESSION


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminView:
    """Somebody who may log in; `codes` are the hashes of what recovery codes are left."""

    id: str
    name: str
    password_hash: str = field(repr=False)
    sealed_secret: str = field(repr=False)
    last_step: int | None
    codes: tuple[str, ...] = field(repr=False)
    enrolled_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionView:
    """A session or a token, without what it is known by."""

    id: str
    user_id: str
    user_name: str
    kind: str
    name: str | None
    preview: str | None
    scopes: tuple[str, ...]
    created_at: datetime
    last_used_at: datetime | None
    totp_at: datetime | None
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionView:
    """One line of what was done."""

    id: int
    actor: str
    action: str
    target: str | None
    detail: Mapping[str, object] | None
    request_id: str | None
    created_at: datetime


async def find_admin(connection: ReadConnection) -> AdminView | None:
    """The one admin there is, if there is."""
    row = (await connection.execute(select(ADMIN).limit(1))).one_or_none()
    if row is None:
        return None
    return AdminView(
        id=row.id,
        name=row.name,
        password_hash=row.password_hash,
        sealed_secret=row.totp_secret or "",
        last_step=row.totp_last_step,
        codes=tuple(row.recovery_codes or ()),
        enrolled_at=row.enrolled_at,
    )


async def setup_digest(connection: ReadConnection) -> str | None:
    """The digest of the set-up link in force."""
    value = await plain_setting(connection, SETUP_LINK)
    digest = None if value is None else value.get("digest")
    return digest if isinstance(digest, str) else None


async def find_session(connection: ReadConnection, token_hash: str) -> SessionView | None:
    """The session or token of that hash."""
    rows = await connection.execute(_sessions().where(SESSION.c.token_hash == token_hash))
    row = rows.one_or_none()
    return None if row is None else _session(row)


async def sessions_of(connection: ReadConnection, *, tokens: bool, limit: int) -> list[SessionView]:
    """Sessions, or tokens, the newest first, those that are over included."""
    is_token = SESSION.c.kind == "token"
    rows = await connection.execute(
        _sessions()
        .where(is_token if tokens else ~is_token)
        .order_by(SESSION.c.created_at.desc(), SESSION.c.id)
        .limit(limit)
    )
    return [_session(row) for row in rows]


async def newest_actions(
    connection: ReadConnection, *, limit: int, before: int | None
) -> list[ActionView]:
    """What was done, the newest first; `before` is the id of the last one that was shown."""
    wanted = select(ACTION).order_by(ACTION.c.id.desc()).limit(limit)
    if before is not None:
        wanted = wanted.where(ACTION.c.id < before)
    return [
        ActionView(
            id=row.id,
            actor=row.actor,
            action=row.action,
            target=row.target,
            detail=row.detail,
            request_id=row.request_id,
            created_at=row.created_at,
        )
        for row in await connection.execute(wanted)
    ]


def _sessions() -> Any:
    return select(SESSION, ADMIN.c.name.label("user_name")).join(
        ADMIN, ADMIN.c.id == SESSION.c.admin_user_id
    )


def _session(row: Row[Any]) -> SessionView:
    return SessionView(
        id=row.id,
        user_id=row.admin_user_id,
        user_name=row.user_name,
        kind=row.kind,
        name=row.name,
        preview=row.preview,
        scopes=tuple(row.scopes),
        created_at=row.created_at,
        last_used_at=row.last_used_at,
        totp_at=row.totp_at,
        expires_at=row.expires_at,
    )
