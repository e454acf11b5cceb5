"""The operator's house: log-ins and their throttle, what admins did, how jobs ran."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0010"
down_revision: str | None = "0009"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
TIME = sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite")
ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

SQLITE_GUARD = """
CREATE TRIGGER admin_action_no_{verb} BEFORE {verb} ON admin_action
BEGIN SELECT RAISE(ABORT, 'audit rows are append-only'); END
"""
POSTGRES_GUARD = """
CREATE TRIGGER admin_action_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON admin_action
FOR EACH STATEMENT EXECUTE FUNCTION routstr_refuse()
"""

SUMS = ("charged_msat", "margin_msat", "absorbed_msat", "at_risk_msat")
TOKENS = ("input_tokens", "output_tokens")


def upgrade() -> None:
    op.add_column(
        "mint_operation",
        sa.Column("is_from_copy", sa.Boolean(), nullable=False, server_default=sa.text("false")),
    )
    op.add_column("admin_user", sa.Column("recovery_codes", JSON, nullable=True))
    op.add_column("admin_user", sa.Column("enrolled_at", TIME, nullable=True))
    op.add_column("admin_user", sa.Column("totp_last_by", sa.Text(), nullable=True))
    op.add_column("admin_session", sa.Column("totp_at", TIME, nullable=True))
    op.add_column("admin_session", sa.Column("preview", sa.Text(), nullable=True))
    op.create_index("ix_admin_session_expires_at", "admin_session", ["expires_at"])
    op.add_column("invite", sa.Column("note", sa.Text(), nullable=True))
    op.add_column("invite", sa.Column("uses", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column(
        "withdrawal",
        sa.Column("is_change", sa.Boolean(), nullable=False, server_default=sa.text("false")),
    )
    op.create_index(
        "ix_withdrawal_created_at_left",
        "withdrawal",
        ["created_at"],
        postgresql_where=sa.text("NOT is_change"),
        sqlite_where=sa.text("NOT is_change"),
    )
    op.create_table(
        "admin_action",
        sa.Column("id", ROW_NUMBER, nullable=False),
        sa.Column("operation_id", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=True),
        sa.Column("detail", JSON, nullable=True),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_admin_action")),
        sa.UniqueConstraint("operation_id", name=op.f("uq_admin_action_operation_id")),
    )
    op.create_index("ix_admin_action_created_at", "admin_action", ["created_at"])
    op.create_table(
        "invite_use",
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("invite_id", sa.Text(), nullable=False),
        sa.Column("held_until", TIME, nullable=False),
        sa.Column("taken_at", TIME, nullable=True),
        sa.ForeignKeyConstraint(["invite_id"], ["invite.id"], name=op.f("fk_invite_use_invite_id")),
        sa.PrimaryKeyConstraint("key_id", name=op.f("pk_invite_use")),
    )
    op.create_index("ix_invite_use_invite_id", "invite_use", ["invite_id"])
    op.create_table(
        "login_throttle",
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("failures", sa.BigInteger(), nullable=False),
        sa.Column("last_attempt", sa.Text(), nullable=False),
        sa.Column("first_at", TIME, nullable=False),
        sa.Column("blocked_until", TIME, nullable=True),
        sa.Column("expires_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("scope", name=op.f("pk_login_throttle")),
    )
    op.create_index("ix_login_throttle_expires_at", "login_throttle", ["expires_at"])
    op.create_table(
        "job_history",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("is_dry_run", sa.Boolean(), nullable=False),
        sa.Column("asked_by", sa.Text(), nullable=True),
        sa.Column("started_at", TIME, nullable=False),
        sa.Column("finished_at", TIME, nullable=True),
        sa.Column("ok", sa.Boolean(), nullable=True),
        sa.Column("result", JSON, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job_history")),
    )
    op.create_index("ix_job_history_started_at", "job_history", ["started_at"])
    op.create_index("ix_job_history_name_started_at", "job_history", ["name", "started_at"])
    _upgrade_reading()
    if op.get_bind().dialect.name == "sqlite":
        for verb in ("UPDATE", "DELETE"):
            op.execute(SQLITE_GUARD.format(verb=verb))
    else:
        op.execute(POSTGRES_GUARD)


def _upgrade_reading() -> None:
    """What pages read: sums of what was sold, and lists in the order of time."""

    def counted(*names: str) -> list[sa.Column[int]]:
        return [sa.Column(name, sa.BigInteger(), nullable=False) for name in names]

    key = ("span_s", "start_at")
    op.create_table(
        "usage_span",
        sa.Column("span_s", sa.BigInteger(), nullable=False),
        sa.Column("start_at", TIME, nullable=False),
        *counted("requests", "failed", *SUMS, *TOKENS),
        sa.Column("times", JSON, nullable=False),
        sa.PrimaryKeyConstraint(*key, name=op.f("pk_usage_span")),
    )
    parts = ("model", "upstream", "outcome")
    op.create_table(
        "usage_part",
        sa.Column("span_s", sa.BigInteger(), nullable=False),
        sa.Column("start_at", TIME, nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in parts),
        *counted("requests", *SUMS, *TOKENS),
        sa.PrimaryKeyConstraint(*key, *parts, name=op.f("pk_usage_part")),
    )
    # Written once a key and once an invoice, by whoever has just waited for a mint.
    op.create_index("ix_apikey_created_at", "apikey", ["created_at", "id"])
    op.create_index("ix_lightning_invoice_created_at", "lightning_invoice", ["created_at"])
    # A paid request is not in it, so it costs the paid road nothing.
    moved = sa.text("type <> 'usage'")
    op.create_index(
        "ix_transaction_moved", "transaction", ["id"], postgresql_where=moved, sqlite_where=moved
    )


def downgrade() -> None:
    op.drop_index("ix_transaction_moved", table_name="transaction")
    op.drop_index("ix_lightning_invoice_created_at", table_name="lightning_invoice")
    op.drop_index("ix_apikey_created_at", table_name="apikey")
    for table in ("usage_part", "usage_span"):
        op.drop_table(table)
    for table in ("job_history", "login_throttle", "invite_use", "admin_action"):
        op.drop_table(table)
    op.drop_index("ix_withdrawal_created_at_left", table_name="withdrawal")
    op.drop_column("withdrawal", "is_change")
    for name in ("uses", "note"):
        op.drop_column("invite", name)
    op.drop_index("ix_admin_session_expires_at", table_name="admin_session")
    for name in ("preview", "totp_at"):
        op.drop_column("admin_session", name)
    for name in ("totp_last_by", "enrolled_at", "recovery_codes"):
        op.drop_column("admin_user", name)
    op.drop_column("mint_operation", "is_from_copy")
