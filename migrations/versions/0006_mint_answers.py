"""What a mint announced, and when it last answered: who takes its locked ecash must know."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
TIME = sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite")


def upgrade() -> None:
    op.add_column("mint", sa.Column("nuts", JSON, nullable=True))
    op.add_column("mint", sa.Column("answered_at", TIME, nullable=True))
    op.create_index(
        "ix_proof_locked",
        "proof",
        ["keyset_id", "locktime"],
        postgresql_where=sa.text("lock_key IS NOT NULL AND state IN ('locked', 'reserved')"),
        sqlite_where=sa.text("lock_key IS NOT NULL AND state IN ('locked', 'reserved')"),
    )


def downgrade() -> None:
    op.drop_index("ix_proof_locked", table_name="proof")
    op.drop_column("mint", "answered_at")
    op.drop_column("mint", "nuts")
