"""What the ecash engine keeps: locked proofs, Lightning in and out, operations of every kind."""

import re
from collections.abc import Iterable, Mapping, Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy import text

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

TIME = sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite")

BEFORE = {
    "mint_operation": {
        "kind_known": "kind IN ('receive', 'redeem', 'swap', 'mint', 'melt')",
        "state_known": "state IN ('prepared', 'sent', 'waiting', 'watch', 'done', 'failed')",
    },
    "proof": {
        "amount_positive": "amount > 0",
        "state_known": "state IN ('unspent', 'reserved', 'issued', 'locked', 'spent')",
    },
}
AFTER = {
    "mint_operation": BEFORE["mint_operation"]
    | {"kind_known": "kind IN ('receive', 'redeem', 'swap', 'mint', 'melt', 'restore')"},
    "proof": BEFORE["proof"]
    | {"state_known": "state IN ('unspent', 'reserved', 'issued', 'locked', 'spent', 'lost')"},
}
WAY_CHECK = "CONSTRAINT ck_withdrawal_way_known CHECK (way IN ('token', 'lightning'))"
UNPAID = "status IN ('pending', 'settlement_pending')"


def upgrade() -> None:
    for table in AFTER:
        _check(table, BEFORE[table], AFTER[table])
    op.add_column("mint_operation", sa.Column("unit", sa.Text(), nullable=True))
    op.execute(
        "UPDATE mint_operation SET unit = (SELECT ks.unit FROM mint_output o"
        " JOIN keyset ks ON ks.id = o.keyset_id"
        " WHERE o.operation_id = mint_operation.id AND o.position = 0)"
    )
    op.create_index(op.f("ix_mint_operation_ended_at"), "mint_operation", ["ended_at"])
    op.add_column("proof", sa.Column("locktime", sa.BigInteger(), nullable=True))
    op.add_column(
        "deposit",
        sa.Column("is_locked", sa.Boolean(), nullable=False, server_default=sa.text("false")),
    )
    op.execute(f"ALTER TABLE withdrawal ADD COLUMN way TEXT DEFAULT 'token' NOT NULL {WAY_CHECK}")
    op.add_column("withdrawal", sa.Column("recipient", sa.Text(), nullable=True))
    op.add_column("withdrawal", sa.Column("payment_hash", sa.Text(), nullable=True))
    op.add_column("withdrawal", sa.Column("preimage", sa.Text(), nullable=True))
    op.add_column(
        "withdrawal",
        sa.Column("fee_returned", sa.BigInteger(), nullable=False, server_default="0"),
    )
    op.create_index(op.f("ix_withdrawal_payment_hash"), "withdrawal", ["payment_hash"])
    op.add_column("lightning_invoice", sa.Column("quote_id", sa.Text(), nullable=True))
    op.add_column("lightning_invoice", sa.Column("next_poll_at", TIME, nullable=True))
    op.add_column(
        "lightning_invoice",
        sa.Column("polls", sa.BigInteger(), nullable=False, server_default="0"),
    )
    op.create_index(
        "ix_lightning_invoice_next_poll_at",
        "lightning_invoice",
        ["next_poll_at"],
        postgresql_where=sa.text(UNPAID),
        sqlite_where=sa.text(UNPAID),
    )


def downgrade() -> None:
    op.drop_index("ix_lightning_invoice_next_poll_at", table_name="lightning_invoice")
    for name in ("polls", "next_poll_at", "quote_id"):
        op.drop_column("lightning_invoice", name)
    op.drop_index(op.f("ix_withdrawal_payment_hash"), table_name="withdrawal")
    for name in ("fee_returned", "preimage", "payment_hash", "recipient", "way"):
        op.drop_column("withdrawal", name)
    op.drop_column("deposit", "is_locked")
    op.drop_column("proof", "locktime")
    op.drop_index(op.f("ix_mint_operation_ended_at"), table_name="mint_operation")
    op.drop_column("mint_operation", "unit")
    for table in BEFORE:
        _check(table, AFTER[table], BEFORE[table])


def _check(table: str, then: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Put the rules of `now` in the place of those of `then`."""
    changed = {name: (then[name], rule) for name, rule in now.items() if then[name] != rule}
    if op.get_bind().dialect.name == "sqlite":
        _make_anew(table, changed.values())
        return
    for name, (_, rule) in changed.items():
        op.drop_constraint(op.f(f"ck_{table}_{name}"), table, type_="check")
        op.create_check_constraint(op.f(f"ck_{table}_{name}"), table, rule)


def _make_anew(table: str, changed: Iterable[tuple[str, str]]) -> None:
    """On SQLite a rule changes by copying the table; its own statement says how to make it."""
    connection = op.get_bind()
    made = text(
        "SELECT sql FROM sqlite_master WHERE type = :type AND tbl_name = :name ORDER BY name"
    )
    (create,) = connection.scalars(made, {"type": "table", "name": table})
    indexes = [sql for sql in connection.scalars(made, {"type": "index", "name": table}) if sql]
    for then, now in changed:
        assert then in create, "the rule is not the one this migration knows"
        create = create.replace(then, now)
    copy = f"{table}_copy"
    op.execute(re.sub(rf'CREATE TABLE "?{table}"?', f"CREATE TABLE {copy}", create, count=1))
    op.execute(f"INSERT INTO {copy} SELECT * FROM {table}")  # noqa: S608 - names of this module
    op.execute(f"DROP TABLE {table}")
    op.execute(f"ALTER TABLE {copy} RENAME TO {table}")
    for index in indexes:
        op.execute(index)
