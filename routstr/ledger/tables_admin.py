"""The operator's tables: who may log in, what was done, invites, the jobs, and what was sold when.

Importing this module completes `tables.metadata`; migrations and tests do.
"""

from datetime import datetime

from sqlalchemy import Index, Text
from sqlmodel import Field

from routstr.ledger.columns import Json, Money, RowNumber, SealedText, UtcTime
from routstr.ledger.tables import Row


class AdminUser(Row, table=True):
    """Somebody who runs the node: an argon2id hash, a sealed TOTP secret, hashed recovery codes.

    `totp_last_step` is the last 30 s step whose code was taken: none is taken twice (RFC 6238).
    `totp_last_by` names the attempt that took it, or a recovery code: only that one may repeat.
    `enrolled_at` is None until a first code has proved the TOTP secret.
    """

    __tablename__ = "admin_user"
    id: str = Field(primary_key=True, sa_type=Text)
    name: str = Field(unique=True, sa_type=Text)
    password_hash: str = Field(sa_type=Text)
    totp_secret: str | None = Field(default=None, sa_type=SealedText)
    totp_last_step: int | None = Field(default=None, sa_type=Money)
    totp_last_by: str | None = Field(default=None, sa_type=Text)
    recovery_codes: list[str] | None = Field(default=None, sa_type=Json)
    enrolled_at: datetime | None = Field(default=None, sa_type=UtcTime)
    created_at: datetime = Field(sa_type=UtcTime)
    updated_at: datetime = Field(sa_type=UtcTime)


class AdminSession(Row, table=True):
    """A log-in or a CLI token, by the hash of its 256-bit id.

    `kind` is `session`, `token`, or what a set-up that is not over has: `enrolling`, `saving`.
    `expires_at` is absolute; `last_used_at` ends an idle session, `totp_at` is the last fresh code.
    `preview` is what may be shown of a token.
    """

    __tablename__ = "admin_session"
    id: str = Field(primary_key=True, sa_type=Text)
    admin_user_id: str = Field(foreign_key="admin_user.id", index=True, sa_type=Text)
    token_hash: str = Field(unique=True, sa_type=Text)
    kind: str = Field(sa_type=Text)
    name: str | None = Field(default=None, sa_type=Text)
    preview: str | None = Field(default=None, sa_type=Text)
    scopes: list[str] = Field(sa_type=Json)
    created_at: datetime = Field(sa_type=UtcTime)
    last_used_at: datetime | None = Field(default=None, sa_type=UtcTime)
    totp_at: datetime | None = Field(default=None, sa_type=UtcTime)
    expires_at: datetime = Field(index=True, sa_type=UtcTime)


class Invite(Row, table=True):
    """A code that lets somebody make a key, by its hash; `note` is for the operator's eyes."""

    __tablename__ = "invite"
    id: str = Field(primary_key=True, sa_type=Text)
    code_hash: str = Field(unique=True, sa_type=Text)
    note: str | None = Field(default=None, sa_type=Text)
    uses: int = Field(default=0, sa_type=Money, sa_column_kwargs={"server_default": "0"})
    uses_left: int = Field(sa_type=Money)
    created_at: datetime = Field(sa_type=UtcTime)
    expires_at: datetime | None = Field(default=None, sa_type=UtcTime)


class InviteUse(Row, table=True):
    """A use of an invite by a key: held from the intent on, taken when the key is opened."""

    __tablename__ = "invite_use"
    key_id: str = Field(primary_key=True, sa_type=Text)
    invite_id: str = Field(foreign_key="invite.id", index=True, sa_type=Text)
    held_until: datetime = Field(sa_type=UtcTime)
    taken_at: datetime | None = Field(default=None, sa_type=UtcTime)


class AdminAction(Row, table=True):
    """What an operator did, for ever: triggers refuse UPDATE and DELETE. No secret is in it."""

    __tablename__ = "admin_action"
    id: int | None = Field(default=None, primary_key=True, sa_type=RowNumber)
    operation_id: str = Field(unique=True, sa_type=Text)
    actor: str = Field(sa_type=Text)
    action: str = Field(sa_type=Text)
    target: str | None = Field(default=None, sa_type=Text)
    detail: dict[str, object] | None = Field(default=None, sa_type=Json)
    request_id: str | None = Field(default=None, sa_type=Text)
    created_at: datetime = Field(index=True, sa_type=UtcTime)


class LoginThrottle(Row, table=True):
    """Failed log-ins of an account or of an address, which the scope is a digest of (SR-3)."""

    __tablename__ = "login_throttle"
    scope: str = Field(primary_key=True, sa_type=Text)
    failures: int = Field(sa_type=Money)
    last_attempt: str = Field(sa_type=Text)
    first_at: datetime = Field(sa_type=UtcTime)
    blocked_until: datetime | None = Field(default=None, sa_type=UtcTime)
    expires_at: datetime = Field(index=True, sa_type=UtcTime)


class JobRun(Row, table=True):
    """The lease and the last result of one job; `lease_until` lets one process run it."""

    __tablename__ = "job_run"
    name: str = Field(primary_key=True, sa_type=Text)
    lease_owner: str | None = Field(default=None, sa_type=Text)
    lease_until: datetime | None = Field(default=None, sa_type=UtcTime)
    next_run_at: datetime = Field(sa_type=UtcTime)
    started_at: datetime | None = Field(default=None, sa_type=UtcTime)
    finished_at: datetime | None = Field(default=None, sa_type=UtcTime)
    ok: bool | None = None
    result: dict[str, object] | None = Field(default=None, sa_type=Json)


class JobHistory(Row, table=True):
    """One run of a job that was asked for, changed something, or failed."""

    __tablename__ = "job_history"
    __table_args__ = (Index("ix_job_history_name_started_at", "name", "started_at"),)
    id: str = Field(primary_key=True, sa_type=Text)
    name: str = Field(sa_type=Text)
    is_dry_run: bool = False
    asked_by: str | None = Field(default=None, sa_type=Text)
    started_at: datetime = Field(index=True, sa_type=UtcTime)
    finished_at: datetime | None = Field(default=None, sa_type=UtcTime)
    ok: bool | None = None
    result: dict[str, object] | None = Field(default=None, sa_type=Json)


class UsageSpan(Row, table=True):
    """What was sold in one minute, hour or day (`span_s`), summed up by the job `rollup`.

    `failed` counts what the node or an upstream is to blame for. `times` are histograms
    (`core/quantiles.py`) by what was timed, each as bucket and count.
    """

    __tablename__ = "usage_span"
    span_s: int = Field(primary_key=True, sa_type=Money)
    start_at: datetime = Field(primary_key=True, sa_type=UtcTime)
    requests: int = Field(sa_type=Money)
    failed: int = Field(sa_type=Money)
    charged_msat: int = Field(sa_type=Money)
    margin_msat: int = Field(sa_type=Money)
    absorbed_msat: int = Field(sa_type=Money)
    at_risk_msat: int = Field(sa_type=Money)
    input_tokens: int = Field(sa_type=Money)
    output_tokens: int = Field(sa_type=Money)
    times: dict[str, dict[str, int]] = Field(sa_type=Json)


class UsagePart(Row, table=True):
    """The part of a `usage_span` that one model of one upstream has with one outcome."""

    __tablename__ = "usage_part"
    span_s: int = Field(primary_key=True, sa_type=Money)
    start_at: datetime = Field(primary_key=True, sa_type=UtcTime)
    model: str = Field(primary_key=True, sa_type=Text)
    upstream: str = Field(primary_key=True, sa_type=Text)
    outcome: str = Field(primary_key=True, sa_type=Text)
    requests: int = Field(sa_type=Money)
    charged_msat: int = Field(sa_type=Money)
    margin_msat: int = Field(sa_type=Money)
    absorbed_msat: int = Field(sa_type=Money)
    at_risk_msat: int = Field(sa_type=Money)
    input_tokens: int = Field(sa_type=Money)
    output_tokens: int = Field(sa_type=Money)
