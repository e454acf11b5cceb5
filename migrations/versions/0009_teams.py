"""Keys for teams: children that spend their parent's money, caps that renew, limits of a rate."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0009"
down_revision: str | None = "0008"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

TIME = sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite")

NUMBERS = (
    "limit_base",
    "limit_held",
    "opening_fee",
    "running",
    "rate_minute",
    "rate_requests",
    "rate_tokens",
)
LIMITS = ("requests_per_minute", "tokens_per_minute", "concurrent_max")


def upgrade() -> None:
    for name in NUMBERS:
        op.add_column(
            "apikey", sa.Column(name, sa.BigInteger(), nullable=False, server_default="0")
        )
    for name in LIMITS:
        op.add_column("apikey", sa.Column(name, sa.BigInteger(), nullable=True))
    op.add_column("apikey", sa.Column("limit_since", TIME, nullable=True))
    op.add_column("apikey", sa.Column("preview", sa.Text(), nullable=True))
    op.execute(
        "ALTER TABLE reservation ADD COLUMN spender_id TEXT"
        " CONSTRAINT fk_reservation_spender_id REFERENCES apikey (id)"
    )
    op.create_index(
        "ix_reservation_spender_id",
        "reservation",
        ["spender_id"],
        postgresql_where=sa.text("spender_id IS NOT NULL"),
        sqlite_where=sa.text("spender_id IS NOT NULL"),
    )
    op.execute(
        "UPDATE apikey SET running = (SELECT count(*) FROM reservation"
        " WHERE reservation.api_key_id = apikey.id AND reservation.state = 'held')"
        " WHERE id IN (SELECT api_key_id FROM reservation WHERE state = 'held')"
    )
    # A limit was written down until now, and not kept: what was spent before does not count.
    op.execute("UPDATE apikey SET limit_base = total_spent WHERE balance_limit IS NOT NULL")


def downgrade() -> None:
    op.drop_index("ix_reservation_spender_id", table_name="reservation")
    op.drop_column("reservation", "spender_id")
    for name in ("preview", "limit_since", *LIMITS, *NUMBERS):
        op.drop_column("apikey", name)
