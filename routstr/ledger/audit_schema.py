"""What the audit asks of the schema and of every text column: the guards stand, no secret is bare.

Each query yields the `id` of every breach, as those of `audit_queries.py` do.
"""

from typing import Final

from sqlalchemy import JSON, Text

import routstr.ledger.tables_admin
import routstr.ledger.tables_house  # noqa: F401 - as above: all tables are asked, whoever audits
from routstr.ledger.columns import SealedText
from routstr.ledger.engine import Dialect
from routstr.ledger.tables import metadata

GUARDS: Final = (
    ("I-4", "ck_apikey_balance_not_negative"),
    ("I-4", "ck_apikey_reserved_not_negative"),
    ("I-4", "ck_apikey_reserved_within_balance"),
    ("I-4", "ck_proof_amount_positive"),
    ("I-4", "ck_withdrawal_amount_positive"),
    ("I-6", "pk_deposit_input"),
    ("I-11", "uq_withdrawal_api_key_id_idempotency_key"),
    ("I-12", "uq_mint_output_keyset_id_counter"),
    ("I-12", "uq_mint_output_b_"),
    ("I-15", "uq_deposit_api_key_id_idempotency_key"),
    ("I-15", "pk_idempotency"),
    ("I-15", "uq_idempotency_reservation_id"),
)
# What each partition of the chain must have by itself on PostgreSQL, and SQLite's only table has.
CHAIN_KEYS: Final = (
    ("I-5", "uq_transaction_api_key_id_sequence", "UNIQUE (api_key_id, sequence)"),
    ("I-15", "uq_transaction_operation_id", "UNIQUE (operation_id)"),
)
ONCE: Final = ("I-15", "pk_transaction_operation")  # whatever the month; PostgreSQL only
TRIGGERS: Final = {
    "sqlite": (("I-5", "transaction_no_UPDATE"), ("I-5", "transaction_no_DELETE")),
    "postgresql": (("I-5", "transaction_append_only"), ("I-15", "transaction_noted")),
}
TREE: Final = "pg_partition_tree(CAST('\"transaction\"' AS regclass))"
HAS_CHAIN_KEY: Final = {
    "sqlite": "SELECT '{name}' AS id WHERE NOT EXISTS (SELECT 1 FROM sqlite_master"
    " WHERE type = 'table' AND instr(sql, '{name}') > 0)",
    "postgresql": "SELECT '{name} of ' || p.relid AS id"
    f" FROM {TREE} p WHERE p.isleaf AND NOT EXISTS (SELECT 1 FROM pg_constraint c"
    " WHERE c.conrelid = p.relid AND c.convalidated AND pg_get_constraintdef(c.oid) = '{key}')",
}
HAS_GUARD: Final = {
    "sqlite": "SELECT 1 FROM sqlite_master WHERE type = 'table' AND instr(sql, '{name}') > 0",
    "postgresql": "SELECT 1 FROM pg_constraint WHERE conname = '{name}' AND convalidated"
    " AND connamespace = CAST(CAST(current_schema() AS text) AS regnamespace)",
}
HAS_TRIGGER: Final = {
    "sqlite": "SELECT '{name}' AS id WHERE NOT EXISTS (SELECT 1 FROM sqlite_master"
    " WHERE type = 'trigger' AND name = '{name}')",
    "postgresql": "SELECT '{name} of ' || p.relid AS id"
    f" FROM {TREE} p WHERE NOT EXISTS (SELECT 1 FROM pg_trigger t WHERE t.tgrelid = p.relid"
    " AND t.tgname = '{name}' AND t.tgenabled IN ('O', 'A'))",
}
# Where a fast audit reads a table's newest rows; the tables that are not here it leaves out.
NEWEST: Final = {
    "transaction": "recent",
    "reservation": "holds",
    "deposit": "deposits",
    "withdrawal": "withdrawals",
    "mint_operation": "operations",
    "setting": "setting",
    "upstream": "upstream",
    "admin_user": "admin_user",
    "job_run": "job_run",
}
HEX_64: Final = "[0-9a-f]" * 64
TOKEN_START: Final = "[A-Za-z0-9_-]" * 16
IN_CLEAR: Final = {
    "sqlite": f"({{0}} GLOB '*cashu[AB]{TOKEN_START}*' OR {{0}} GLOB '*sk-{HEX_64}*'"
    f" OR {{0}} GLOB '*clm_{HEX_64}*' OR {{0}} GLOB '*rst_{HEX_64}*')",
    "postgresql": "CAST({0} AS text)"
    " ~ 'cashu[AB][A-Za-z0-9_-]{{16}}|(sk-|clm_|rst_)[0-9a-f]{{64}}'",
}


def guard_queries(dialect: Dialect) -> list[tuple[str, str]]:
    """(invariant, SELECT) for each constraint and trigger that must stand, on each partition."""
    guards = (*GUARDS, ONCE) if dialect == "postgresql" else GUARDS
    return [
        *(
            (
                number,
                f"SELECT '{name}' AS id WHERE NOT EXISTS ({HAS_GUARD[dialect]})".format(name=name),
            )
            for number, name in guards
        ),
        *(
            (number, HAS_CHAIN_KEY[dialect].format(name=name, key=key))
            for number, name, key in CHAIN_KEYS
        ),
        *((number, HAS_TRIGGER[dialect].format(name=name)) for number, name in TRIGGERS[dialect]),
    ]


def secret_queries(dialect: Dialect, *, full: bool) -> list[tuple[str, str]]:
    """(I-23, SELECT of `table.column` per row): sealed columns are sealed, others hold no secret.

    What the patterns know is a Cashu token, an API key or an admin's token of ours, and a claim
    secret.
    """
    queries = []
    for table in metadata.sorted_tables:
        if not full and table.name not in NEWEST:
            continue
        source = f'"{table.name}"' if full else NEWEST[table.name]
        for column in table.columns:
            name = f'"{column.name}"'
            if isinstance(column.type, SealedText):
                condition = f"{name} NOT LIKE 'v1|%|%|%|%'"
            elif isinstance(column.type, Text | JSON):
                condition = IN_CLEAR[dialect].format(name)
            else:
                continue
            place = f"'{table.name}.{column.name}'"
            queries.append(("I-23", f"SELECT {place} AS id FROM {source} WHERE {condition}"))
    return queries
