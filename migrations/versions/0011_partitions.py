"""Audit rows by the month on PostgreSQL, and one index less on both engines.

The table that was there becomes the first partition, with all rows and indexes it has: nothing is
copied, PostgreSQL reads it once to see that every row is from before the next month. A partition
can only be unique by itself, so the ids of operations are copied into a table of their own, which
is what makes an operation happen once, whatever the month.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision: str = "0011"
down_revision: str | None = "0010"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

MONTHS_AHEAD = 2
FIRST, DEFAULT = "transaction_first", "transaction_default"

# The views of 0004; they follow a table that is renamed, so they are made again.
KEY_STATEMENT = """
CREATE VIEW key_statement AS
SELECT api_key_id, sequence, timestamp, type, amount, balance_after, description, operation_id,
       sum(CASE WHEN amount > 0 THEN amount ELSE 0 END) OVER w AS paid_in,
       sum(CASE WHEN amount < 0 THEN -amount ELSE 0 END) OVER w AS paid_out
FROM "transaction"
WINDOW w AS (PARTITION BY api_key_id ORDER BY sequence)
"""
REVENUE = """
CREATE VIEW revenue_by_model_day AS
SELECT to_char(timestamp AT TIME ZONE 'UTC', 'YYYY-MM-DD') AS day, description AS model,
       count(*) AS requests, sum(-amount) AS revenue_msat
FROM "transaction"
WHERE type = 'usage' AND amount < 0
GROUP BY 1, 2
"""
# The triggers on a partition are for who writes into it by its own name.
APPEND_ONLY = """
CREATE TRIGGER transaction_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}
FOR EACH STATEMENT EXECUTE FUNCTION routstr_refuse()
"""
NOTED = """
CREATE TRIGGER transaction_noted AFTER INSERT ON {table} REFERENCING NEW TABLE AS added
FOR EACH STATEMENT EXECUTE FUNCTION routstr_note_operations()
"""
NOTE_OPERATIONS = """
CREATE FUNCTION routstr_note_operations() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN
  INSERT INTO transaction_operation (operation_id) SELECT operation_id FROM added;
  RETURN NULL;
END $$
"""
OWN = {
    "pk_{}": "PRIMARY KEY (id)",
    "uq_{}_api_key_id_sequence": "UNIQUE (api_key_id, sequence)",
    "uq_{}_operation_id": "UNIQUE (operation_id)",
}
SHARED = {
    "ix_{}_api_key_id_timestamp": "(api_key_id, timestamp)",
    "ix_{}_timestamp": "(timestamp)",
    "ix_{}_moved": "(id) WHERE type <> 'usage'",
}


def months(first: datetime, count: int) -> Iterator[tuple[datetime, datetime]]:
    """The beginning and the end of each of `count` months from that of `first` on."""
    begin = datetime(first.year, first.month, 1, tzinfo=UTC)
    for _ in range(count):
        end = datetime(begin.year + begin.month // 12, begin.month % 12 + 1, 1, tzinfo=UTC)
        yield begin, end
        begin = end


def upgrade() -> None:
    op.drop_index("ix_transaction_api_key_id", "transaction")  # the next index begins with it
    if op.get_bind().dialect.name != "postgresql":
        return
    newest = op.get_bind().scalar(
        sa.text('SELECT greatest(clock_timestamp(), max(timestamp)) FROM "transaction"')
    )
    ((_, first_end),) = months(newest.astimezone(UTC), 1)
    _drop_views()
    _note_all()
    op.execute(f'ALTER TABLE "transaction" RENAME TO {FIRST}')
    # Its keys keep their names: the audit of a version that still runs asks for them.
    for name in SHARED:
        op.execute(f"ALTER INDEX {name.format('transaction')} RENAME TO {name.format(FIRST)}")
    op.execute(
        f'CREATE TABLE "transaction" (LIKE {FIRST} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)'
        " PARTITION BY RANGE (timestamp)"
    )
    op.execute('ALTER SEQUENCE transaction_id_seq OWNED BY "transaction".id')
    op.create_foreign_key(
        "fk_transaction_api_key_id", "transaction", "apikey", ["api_key_id"], ["id"]
    )
    for name, columns in SHARED.items():
        op.execute(f'CREATE INDEX {name.format("transaction")} ON "transaction" {columns}')
    op.execute(APPEND_ONLY.format(table='"transaction"'))
    op.execute(NOTED.format(table='"transaction"'))
    op.execute(NOTED.format(table=FIRST))
    # PostgreSQL reads the rows for the check; attaching then takes its word.
    op.execute(
        f"ALTER TABLE {FIRST} ADD CONSTRAINT ck_{FIRST}_month CHECK (timestamp < '{first_end}')"
    )
    op.execute(
        f'ALTER TABLE "transaction" ATTACH PARTITION {FIRST}'
        f" FOR VALUES FROM (MINVALUE) TO ('{first_end}')"
    )
    op.execute(f"ALTER TABLE {FIRST} DROP CONSTRAINT ck_{FIRST}_month")
    for begin, end in months(first_end, MONTHS_AHEAD):
        _add(f"transaction_y{begin:%Ym%m}", f"FOR VALUES FROM ('{begin}') TO ('{end}')")
    _add(DEFAULT, "DEFAULT")
    _make_views()


def _note_all() -> None:
    """The ids of all operations there were, and what keeps them from then on."""
    op.execute('CREATE TABLE transaction_operation AS SELECT operation_id FROM "transaction"')
    op.execute("ALTER TABLE transaction_operation ALTER COLUMN operation_id SET NOT NULL")
    op.create_primary_key("pk_transaction_operation", "transaction_operation", ["operation_id"])
    op.execute(
        APPEND_ONLY.replace("transaction_append", "operation_append").format(
            table="transaction_operation"
        )
    )
    op.execute(NOTE_OPERATIONS)


def _add(name: str, bounds: str) -> None:
    """A partition like the first one, with its own keys and guards."""
    op.execute(f'CREATE TABLE {name} (LIKE "transaction" INCLUDING DEFAULTS INCLUDING CONSTRAINTS)')
    for key, columns in OWN.items():
        op.execute(f"ALTER TABLE {name} ADD CONSTRAINT {key.format(name)} {columns}")
    op.execute(APPEND_ONLY.format(table=name))
    op.execute(NOTED.format(table=name))
    op.execute(f'ALTER TABLE "transaction" ATTACH PARTITION {name} {bounds}')


def _drop_views() -> None:
    for view in ("revenue_by_model_day", "key_statement"):
        op.execute(f"DROP VIEW {view}")


def _make_views() -> None:
    op.execute(KEY_STATEMENT)
    op.execute(REVENUE)


def downgrade() -> None:
    """Later months are copied into the first partition, which is the table again."""
    if op.get_bind().dialect.name == "postgresql":
        _drop_views()
        op.execute(f'ALTER TABLE "transaction" DETACH PARTITION {FIRST}')
        op.execute(f"DROP TRIGGER transaction_noted ON {FIRST}")
        op.execute(f'INSERT INTO {FIRST} SELECT * FROM "transaction" ORDER BY id')  # noqa: S608 - a constant
        op.execute(f"ALTER SEQUENCE transaction_id_seq OWNED BY {FIRST}.id")
        op.execute('DROP TABLE "transaction"')
        op.execute("DROP TABLE transaction_operation")
        op.execute("DROP FUNCTION routstr_note_operations")
        op.execute(f'ALTER TABLE {FIRST} RENAME TO "transaction"')
        for name in SHARED:
            op.execute(f"ALTER INDEX {name.format(FIRST)} RENAME TO {name.format('transaction')}")
        _make_views()
    op.create_index("ix_transaction_api_key_id", "transaction", ["api_key_id"])
