"""Mints, deposits, withdrawals and the operations between."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
TIME = sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "mint",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mint")),
        sa.UniqueConstraint("url", name=op.f("uq_mint_url")),
    )
    op.create_table(
        "keyset",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("mint_id", sa.Text(), nullable=False),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("input_fee_ppk", sa.BigInteger(), nullable=False),
        sa.Column("final_expiry", sa.BigInteger(), nullable=True),
        sa.Column(
            "keys",
            JSON,
            nullable=False,
        ),
        sa.Column("next_counter", sa.BigInteger(), nullable=False),
        sa.Column("residue31", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["mint_id"], ["mint.id"], name=op.f("fk_keyset_mint_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_keyset")),
        sa.UniqueConstraint("residue31", name=op.f("uq_keyset_residue31")),
    )
    op.create_index(op.f("ix_keyset_mint_id"), "keyset", ["mint_id"], unique=False)
    op.create_table(
        "deposit",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("api_key_id", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("mint_url", sa.Text(), nullable=False),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("face_amount", sa.BigInteger(), nullable=False),
        sa.Column("credit_msat", sa.BigInteger(), nullable=False),
        sa.Column("sealed_key", sa.Text(), nullable=True),
        sa.Column(
            "new_key",
            JSON,
            nullable=True,
        ),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("fingerprint", sa.Text(), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("credited_at", TIME, nullable=True),
        sa.CheckConstraint(
            "state IN ('pending', 'credited', 'failed')", name=op.f("ck_deposit_state_known")
        ),
        sa.ForeignKeyConstraint(["api_key_id"], ["apikey.id"], name=op.f("fk_deposit_api_key_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deposit")),
        sa.UniqueConstraint(
            "api_key_id", "idempotency_key", name=op.f("uq_deposit_api_key_id_idempotency_key")
        ),
    )
    op.create_index(op.f("ix_deposit_api_key_id"), "deposit", ["api_key_id"], unique=False)
    op.create_index(op.f("ix_deposit_created_at"), "deposit", ["created_at"], unique=False)
    op.create_table(
        "deposit_input",
        sa.Column("y", sa.Text(), nullable=False),
        sa.Column("deposit_id", sa.Text(), nullable=False),
        sa.CheckConstraint("length(y) = 66", name=op.f("ck_deposit_input_y_is_a_point")),
        sa.ForeignKeyConstraint(
            ["deposit_id"], ["deposit.id"], name=op.f("fk_deposit_input_deposit_id")
        ),
        sa.PrimaryKeyConstraint("y", name=op.f("pk_deposit_input")),
    )
    op.create_index(
        op.f("ix_deposit_input_deposit_id"), "deposit_input", ["deposit_id"], unique=False
    )
    op.create_table(
        "withdrawal",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("api_key_id", sa.Text(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("fee_amount", sa.BigInteger(), nullable=False),
        sa.Column("token", sa.Text(), nullable=True),
        sa.Column("mint_url", sa.Text(), nullable=False),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("completed_at", TIME, nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("retry_count", sa.BigInteger(), nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("fingerprint", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "status IN ('pending', 'completed', 'failed', 'claimed', 'reclaimed')",
            name=op.f("ck_withdrawal_status_known"),
        ),
        sa.CheckConstraint("amount > 0", name=op.f("ck_withdrawal_amount_positive")),
        sa.ForeignKeyConstraint(
            ["api_key_id"], ["apikey.id"], name=op.f("fk_withdrawal_api_key_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_withdrawal")),
        sa.UniqueConstraint(
            "api_key_id", "idempotency_key", name=op.f("uq_withdrawal_api_key_id_idempotency_key")
        ),
    )
    op.create_index(op.f("ix_withdrawal_api_key_id"), "withdrawal", ["api_key_id"], unique=False)
    op.create_index(op.f("ix_withdrawal_created_at"), "withdrawal", ["created_at"], unique=False)
    op.create_index(op.f("ix_withdrawal_status"), "withdrawal", ["status"], unique=False)
    op.create_table(
        "lightning_invoice",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("api_key_id", sa.Text(), nullable=True),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("mint_url", sa.Text(), nullable=False),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("credit_msat", sa.BigInteger(), nullable=False),
        sa.Column("bolt11", sa.Text(), nullable=False),
        sa.Column("payment_hash", sa.Text(), nullable=False),
        sa.Column("sealed_key", sa.Text(), nullable=True),
        sa.Column(
            "new_key",
            JSON,
            nullable=True,
        ),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
        sa.Column("paid_at", TIME, nullable=True),
        sa.CheckConstraint(
            "purpose IN ('create', 'topup')", name=op.f("ck_lightning_invoice_purpose_known")
        ),
        sa.CheckConstraint(
            "status IN ('pending', 'settlement_pending', 'paid', 'expired', 'cancelled', 'reconciliation_required')",
            name=op.f("ck_lightning_invoice_status_known"),
        ),
        sa.ForeignKeyConstraint(
            ["api_key_id"], ["apikey.id"], name=op.f("fk_lightning_invoice_api_key_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_lightning_invoice")),
        sa.UniqueConstraint("bolt11", name=op.f("uq_lightning_invoice_bolt11")),
    )
    op.create_index(
        op.f("ix_lightning_invoice_api_key_id"), "lightning_invoice", ["api_key_id"], unique=False
    )
    op.create_index(
        op.f("ix_lightning_invoice_status"), "lightning_invoice", ["status"], unique=False
    )
    op.create_table(
        "mint_operation",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("mint_id", sa.Text(), nullable=False),
        sa.Column("request", sa.Text(), nullable=False),
        sa.Column("input_amount", sa.BigInteger(), nullable=False),
        sa.Column("fee_amount", sa.BigInteger(), nullable=False),
        sa.Column("quote_id", sa.Text(), nullable=True),
        sa.Column("deposit_id", sa.Text(), nullable=True),
        sa.Column("withdrawal_id", sa.Text(), nullable=True),
        sa.Column("lightning_invoice_id", sa.Text(), nullable=True),
        sa.Column("predecessor_id", sa.Text(), nullable=True),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_until", TIME, nullable=True),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("next_attempt_at", TIME, nullable=False),
        sa.Column("watch_until", TIME, nullable=True),
        sa.Column("last_code", sa.Text(), nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("ended_at", TIME, nullable=True),
        sa.CheckConstraint(
            "kind IN ('receive', 'redeem', 'swap', 'mint', 'melt')",
            name=op.f("ck_mint_operation_kind_known"),
        ),
        sa.CheckConstraint(
            "state IN ('prepared', 'sent', 'waiting', 'watch', 'done', 'failed')",
            name=op.f("ck_mint_operation_state_known"),
        ),
        sa.ForeignKeyConstraint(
            ["deposit_id"], ["deposit.id"], name=op.f("fk_mint_operation_deposit_id")
        ),
        sa.ForeignKeyConstraint(
            ["lightning_invoice_id"],
            ["lightning_invoice.id"],
            name=op.f("fk_mint_operation_lightning_invoice_id"),
        ),
        sa.ForeignKeyConstraint(["mint_id"], ["mint.id"], name=op.f("fk_mint_operation_mint_id")),
        sa.ForeignKeyConstraint(
            ["predecessor_id"], ["mint_operation.id"], name=op.f("fk_mint_operation_predecessor_id")
        ),
        sa.ForeignKeyConstraint(
            ["withdrawal_id"], ["withdrawal.id"], name=op.f("fk_mint_operation_withdrawal_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mint_operation")),
    )
    op.create_index(
        op.f("ix_mint_operation_deposit_id"), "mint_operation", ["deposit_id"], unique=False
    )
    op.create_index(
        op.f("ix_mint_operation_lightning_invoice_id"),
        "mint_operation",
        ["lightning_invoice_id"],
        unique=False,
    )
    op.create_index(
        "ix_mint_operation_next_attempt_at",
        "mint_operation",
        ["next_attempt_at"],
        unique=False,
        postgresql_where=sa.text("state NOT IN ('done', 'failed')"),
        sqlite_where=sa.text("state NOT IN ('done', 'failed')"),
    )
    op.create_index(
        op.f("ix_mint_operation_withdrawal_id"), "mint_operation", ["withdrawal_id"], unique=False
    )
    op.create_table(
        "mint_output",
        sa.Column("operation_id", sa.Text(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("keyset_id", sa.Text(), nullable=False),
        sa.Column("counter", sa.BigInteger(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=True),
        sa.Column("b_", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "purpose IN ('keep', 'send', 'change')", name=op.f("ck_mint_output_purpose_known")
        ),
        sa.ForeignKeyConstraint(
            ["keyset_id"], ["keyset.id"], name=op.f("fk_mint_output_keyset_id")
        ),
        sa.ForeignKeyConstraint(
            ["operation_id"], ["mint_operation.id"], name=op.f("fk_mint_output_operation_id")
        ),
        sa.PrimaryKeyConstraint("operation_id", "position", name=op.f("pk_mint_output")),
        sa.UniqueConstraint("b_", name=op.f("uq_mint_output_b_")),
        sa.UniqueConstraint("keyset_id", "counter", name=op.f("uq_mint_output_keyset_id_counter")),
    )
    op.create_table(
        "proof",
        sa.Column("y", sa.Text(), nullable=False),
        sa.Column("keyset_id", sa.Text(), nullable=False),
        sa.Column("counter", sa.BigInteger(), nullable=True),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("c", sa.Text(), nullable=False),
        sa.Column("e", sa.Text(), nullable=True),
        sa.Column("s", sa.Text(), nullable=True),
        sa.Column("lock_key", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("operation_id", sa.Text(), nullable=True),
        sa.Column("withdrawal_id", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "state IN ('unspent', 'reserved', 'issued', 'locked', 'spent')",
            name=op.f("ck_proof_state_known"),
        ),
        sa.CheckConstraint("amount > 0", name=op.f("ck_proof_amount_positive")),
        sa.ForeignKeyConstraint(["keyset_id"], ["keyset.id"], name=op.f("fk_proof_keyset_id")),
        sa.ForeignKeyConstraint(
            ["operation_id"], ["mint_operation.id"], name=op.f("fk_proof_operation_id")
        ),
        sa.ForeignKeyConstraint(
            ["withdrawal_id"], ["withdrawal.id"], name=op.f("fk_proof_withdrawal_id")
        ),
        sa.PrimaryKeyConstraint("y", name=op.f("pk_proof")),
    )
    op.create_index(
        "ix_proof_keyset_id_state_amount", "proof", ["keyset_id", "state", "amount"], unique=False
    )
    op.create_index(op.f("ix_proof_operation_id"), "proof", ["operation_id"], unique=False)
    op.create_index(op.f("ix_proof_withdrawal_id"), "proof", ["withdrawal_id"], unique=False)


def downgrade() -> None:
    op.drop_table("proof")
    op.drop_table("mint_output")
    op.drop_table("mint_operation")
    op.drop_table("lightning_invoice")
    op.drop_table("withdrawal")
    op.drop_table("deposit_input")
    op.drop_table("deposit")
    op.drop_table("keyset")
    op.drop_table("mint")
