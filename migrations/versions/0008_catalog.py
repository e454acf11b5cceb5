"""What a catalog of several upstreams needs: USD prices, margins, exchange rates, priced routes."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0008"
down_revision: str | None = "0007"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
TIME = sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite")
ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
ONE_PRICE = "(price_msat IS NULL) <> (price_usd IS NULL)"


def upgrade() -> None:
    op.add_column(
        "upstream", sa.Column("weight", sa.BigInteger(), nullable=False, server_default="0")
    )
    op.add_column(
        "upstream",
        sa.Column("sells_new", sa.Boolean(), nullable=False, server_default=sa.text("true")),
    )
    op.add_column("upstream", sa.Column("listed_at", TIME, nullable=True))
    # No release ever wrote a model: its fee gets room to say "the upstream's".
    op.drop_column("model", "fee_ppm")
    op.add_column("model", sa.Column("fee_ppm", sa.BigInteger(), nullable=True))
    op.add_column("model", sa.Column("name", sa.Text(), nullable=True))
    op.add_column("model", sa.Column("usd", JSON, nullable=True))
    op.add_column("model", sa.Column("usd_source", sa.Text(), nullable=True))
    op.add_column("model", sa.Column("own_usd", JSON, nullable=True))
    op.add_column("model", sa.Column("own_context_length", sa.BigInteger(), nullable=True))
    op.add_column("model", sa.Column("own_max_output_tokens", sa.BigInteger(), nullable=True))
    for name in ("is_free", "is_gone"):
        op.add_column(
            "model", sa.Column(name, sa.Boolean(), nullable=False, server_default=sa.text("false"))
        )
    op.create_index(
        "uq_model_upstream_id_forwarded_model_id",
        "model",
        ["upstream_id", "forwarded_model_id"],
        unique=True,
    )
    op.create_table(
        "exchange_rate",
        sa.Column("id", ROW_NUMBER, nullable=False),
        sa.Column("btc_usd", sa.Text(), nullable=False),
        sa.Column("in_force", sa.Text(), nullable=False),
        sa.Column("sources", JSON, nullable=False),
        sa.Column("taken_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_exchange_rate")),
    )
    op.create_index(op.f("ix_exchange_rate_taken_at"), "exchange_rate", ["taken_at"])
    op.create_table(
        "priced_route",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("upstream_id", sa.Text(), nullable=True),
        sa.Column("upstream_path", sa.Text(), nullable=False),
        sa.Column("price_msat", sa.BigInteger(), nullable=True),
        sa.Column("price_usd", sa.Text(), nullable=True),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.CheckConstraint(ONE_PRICE, name=op.f("ck_priced_route_one_price")),
        sa.CheckConstraint("price_msat >= 0", name=op.f("ck_priced_route_price_not_negative")),
        sa.ForeignKeyConstraint(
            ["upstream_id"], ["upstream.id"], name=op.f("fk_priced_route_upstream_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_priced_route")),
        sa.UniqueConstraint("method", "path", name=op.f("uq_priced_route_method_path")),
    )
    op.create_index(op.f("ix_priced_route_upstream_id"), "priced_route", ["upstream_id"])


def downgrade() -> None:
    op.drop_table("priced_route")
    op.drop_table("exchange_rate")
    op.drop_index("uq_model_upstream_id_forwarded_model_id", table_name="model")
    for name in (
        "is_gone",
        "is_free",
        "own_max_output_tokens",
        "own_context_length",
        "own_usd",
        "usd_source",
        "usd",
        "name",
        "fee_ppm",
    ):
        op.drop_column("model", name)
    op.add_column(
        "model", sa.Column("fee_ppm", sa.BigInteger(), nullable=False, server_default="0")
    )
    for name in ("listed_at", "sells_new", "weight"):
        op.drop_column("upstream", name)
