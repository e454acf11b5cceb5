"""Keys, their audit chain, and holds."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
TIME = sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite")
ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "apikey",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("key_hash", sa.Text(), nullable=False),
        sa.Column("balance", sa.BigInteger(), nullable=False),
        sa.Column("reserved", sa.BigInteger(), nullable=False),
        sa.Column("total_deposited", sa.BigInteger(), nullable=False),
        sa.Column("total_spent", sa.BigInteger(), nullable=False),
        sa.Column("total_requests", sa.BigInteger(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("first_used_at", TIME, nullable=True),
        sa.Column("last_used_at", TIME, nullable=True),
        sa.Column("expires_at", TIME, nullable=True),
        sa.Column(
            "metadata",
            JSON,
            nullable=True,
        ),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("parent_id", sa.Text(), nullable=True),
        sa.Column("balance_limit", sa.BigInteger(), nullable=True),
        sa.Column("limit_reset", sa.Text(), nullable=True),
        sa.Column(
            "allowed_models",
            JSON,
            nullable=True,
        ),
        sa.Column("revoked_at", TIME, nullable=True),
        sa.CheckConstraint("balance >= 0", name=op.f("ck_apikey_balance_not_negative")),
        sa.CheckConstraint("reserved <= balance", name=op.f("ck_apikey_reserved_within_balance")),
        sa.CheckConstraint("reserved >= 0", name=op.f("ck_apikey_reserved_not_negative")),
        sa.ForeignKeyConstraint(["parent_id"], ["apikey.id"], name=op.f("fk_apikey_parent_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_apikey")),
        sa.UniqueConstraint("key_hash", name=op.f("uq_apikey_key_hash")),
    )
    op.create_index(
        "ix_apikey_expires_at",
        "apikey",
        ["expires_at"],
        unique=False,
        postgresql_where=sa.text("expires_at IS NOT NULL"),
        sqlite_where=sa.text("expires_at IS NOT NULL"),
    )
    op.create_index(op.f("ix_apikey_parent_id"), "apikey", ["parent_id"], unique=False)
    op.create_table(
        "transaction",
        sa.Column("id", ROW_NUMBER, nullable=False),
        sa.Column("api_key_id", sa.Text(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("balance_after", sa.BigInteger(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("timestamp", TIME, nullable=False),
        sa.Column(
            "request_data",
            JSON,
            nullable=True,
        ),
        sa.Column("operation_id", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "type IN ('deposit', 'usage', 'withdrawal', 'refund', 'transfer_in', 'transfer_out', 'fee', 'expiry')",
            name=op.f("ck_transaction_type_known"),
        ),
        sa.CheckConstraint(
            "balance_after >= 0", name=op.f("ck_transaction_balance_after_not_negative")
        ),
        sa.ForeignKeyConstraint(
            ["api_key_id"], ["apikey.id"], name=op.f("fk_transaction_api_key_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_transaction")),
        sa.UniqueConstraint(
            "api_key_id", "sequence", name=op.f("uq_transaction_api_key_id_sequence")
        ),
        sa.UniqueConstraint("operation_id", name=op.f("uq_transaction_operation_id")),
    )
    op.create_index(op.f("ix_transaction_api_key_id"), "transaction", ["api_key_id"], unique=False)
    op.create_index(
        "ix_transaction_api_key_id_timestamp",
        "transaction",
        ["api_key_id", "timestamp"],
        unique=False,
    )
    op.create_index(op.f("ix_transaction_timestamp"), "transaction", ["timestamp"], unique=False)
    op.create_table(
        "reservation",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("api_key_id", sa.Text(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("quote_amount", sa.BigInteger(), nullable=False),
        sa.Column("settled_amount", sa.BigInteger(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column(
            "price_snapshot",
            JSON,
            nullable=False,
        ),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("deadline", TIME, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("ended_at", TIME, nullable=True),
        sa.CheckConstraint(
            "state IN ('held', 'settled', 'released', 'expired')",
            name=op.f("ck_reservation_state_known"),
        ),
        sa.CheckConstraint("amount >= 0", name=op.f("ck_reservation_amount_not_negative")),
        sa.CheckConstraint(
            "settled_amount <= amount", name=op.f("ck_reservation_settled_within_hold")
        ),
        sa.ForeignKeyConstraint(
            ["api_key_id"], ["apikey.id"], name=op.f("fk_reservation_api_key_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reservation")),
    )
    op.create_index(op.f("ix_reservation_api_key_id"), "reservation", ["api_key_id"], unique=False)
    op.create_index(
        "ix_reservation_deadline",
        "reservation",
        ["deadline"],
        unique=False,
        postgresql_where=sa.text("state = 'held'"),
        sqlite_where=sa.text("state = 'held'"),
    )


def downgrade() -> None:
    op.drop_table("reservation")
    op.drop_table("transaction")
    op.drop_table("apikey")
