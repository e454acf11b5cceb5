"""Triggers that keep the audit rows append-only and `updated_at` true, and the two reading views."""

from collections.abc import Sequence

from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

DATED = {"mint": "id", "keyset": "id", "upstream": "id", "model": "id", "admin_user": "id"}
SQLITE_NOW = "strftime('%Y-%m-%dT%H:%M:%f', 'now') || '000+00:00'"

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
SELECT {day} AS day, description AS model, count(*) AS requests, sum(-amount) AS revenue_msat
FROM "transaction"
WHERE type = 'usage' AND amount < 0
GROUP BY 1, 2
"""
SQLITE_GUARD = """
CREATE TRIGGER transaction_no_{verb} BEFORE {verb} ON "transaction"
BEGIN SELECT RAISE(ABORT, 'audit rows are append-only'); END
"""
SQLITE_DATED = """
CREATE TRIGGER {table}_updated_at AFTER UPDATE ON {table} WHEN NEW.updated_at = OLD.updated_at
BEGIN UPDATE {table} SET updated_at = {now} WHERE {key} = NEW.{key}; END
"""
POSTGRES_REFUSE = """
CREATE FUNCTION routstr_refuse() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'audit rows are append-only' USING ERRCODE = 'restrict_violation'; END $$
"""
POSTGRES_GUARD = """
CREATE TRIGGER transaction_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON "transaction"
FOR EACH STATEMENT EXECUTE FUNCTION routstr_refuse()
"""
POSTGRES_TOUCH = """
CREATE FUNCTION routstr_touch() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN NEW.updated_at = clock_timestamp(); RETURN NEW; END $$
"""
POSTGRES_DATED = """
CREATE TRIGGER {table}_updated_at BEFORE UPDATE ON {table}
FOR EACH ROW EXECUTE FUNCTION routstr_touch()
"""


def upgrade() -> None:
    sqlite = op.get_bind().dialect.name == "sqlite"
    op.execute(KEY_STATEMENT)
    op.execute(
        REVENUE.format(
            day="substr(timestamp, 1, 10)"
            if sqlite
            else "to_char(timestamp AT TIME ZONE 'UTC', 'YYYY-MM-DD')"
        )
    )
    if sqlite:
        for verb in ("UPDATE", "DELETE"):
            op.execute(SQLITE_GUARD.format(verb=verb))
        for table, key in DATED.items():
            op.execute(SQLITE_DATED.format(table=table, key=key, now=SQLITE_NOW))
        return
    op.execute(POSTGRES_REFUSE)
    op.execute(POSTGRES_GUARD)
    op.execute(POSTGRES_TOUCH)
    for table in DATED:
        op.execute(POSTGRES_DATED.format(table=table))


def downgrade() -> None:
    op.execute("DROP VIEW revenue_by_model_day")
    op.execute("DROP VIEW key_statement")
    if op.get_bind().dialect.name == "sqlite":
        for name in ("transaction_no_UPDATE", "transaction_no_DELETE"):
            op.execute(f"DROP TRIGGER {name}")
        for table in DATED:
            op.execute(f"DROP TRIGGER {table}_updated_at")
        return
    op.execute('DROP TRIGGER transaction_append_only ON "transaction"')
    for table in DATED:
        op.execute(f"DROP TRIGGER {table}_updated_at ON {table}")
    op.execute("DROP FUNCTION routstr_refuse")
    op.execute("DROP FUNCTION routstr_touch")
