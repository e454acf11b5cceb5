"""Where Alembic meets the node: which tables, which database, in one transaction.

Two ways in. A program (the node at start-up, a test) hands its connection over in
`config.attributes["connection"]` and commits itself; nothing here opens, commits or closes it. The
command line (`make db-upgrade` and its sisters) reads the settings the node reads and opens the
database they name.

Either way all pending revisions are one transaction on both engines, so a process that dies while
migrating leaves the old schema, and a second process waits until the first has finished.
"""

import asyncio
import logging.config
from collections.abc import Iterable, MutableMapping
from typing import Any, Final

from alembic import context
from alembic.operations.ops import MigrationScript
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.schema import SchemaItem

import routstr.ledger.tables_admin
import routstr.ledger.tables_house  # noqa: F401 - as above
from routstr.config import load_settings
from routstr.ledger.engine import PoolSettings, open_database
from routstr.ledger.migrate import leave_references_unchecked
from routstr.ledger.tables import metadata

TARGET: Final = metadata

# Any number will do; all nodes that migrate one database must use the same.
MIGRATION_LOCK: Final = 0x526F757473747200
LOCK_TIMEOUT: Final = "10s"


def number_revision(
    migration: MigrationContext,
    revision: str | Iterable[str | None] | Iterable[str],
    directives: list[MigrationScript],
) -> None:
    """Name a new revision by the next number: two people who both write 0007 see the conflict."""
    script = ScriptDirectory.from_config(context.config)
    for directive in directives:
        directive.rev_id = f"{len(list(script.walk_revisions())) + 1:04}"


def is_compared(name: str | None, kind: str, _: MutableMapping[Any, str | None]) -> bool:
    """Whether the tables in Python tell of it: PostgreSQL's partitions are the database's affair."""
    return not (kind == "table" and str(name).startswith("transaction_"))


def is_declared(
    item: SchemaItem, name: str | None, kind: str, is_reflected: bool, _: SchemaItem | None
) -> bool:
    """Likewise: each partition has the keys of `transaction`, so that the whole has none there."""
    return not (kind == "unique_constraint" and str(name).startswith("uq_transaction_"))


def run_on(connection: Connection) -> None:
    """Run what was asked for on an open connection, inside its transaction if it has one."""
    is_sqlite = connection.dialect.name == "sqlite"
    if not is_sqlite:
        # The lock first, under no time-out: a big migration elsewhere may take its time. After it,
        # a table that somebody holds makes us give up instead of queueing every reader behind us.
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SET LOCAL lock_timeout = 0"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
        connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
    context.configure(
        connection=connection,
        target_metadata=TARGET,
        compare_type=True,
        compare_server_default=True,
        transactional_ddl=True,
        render_as_batch=is_sqlite,
        include_name=None if is_sqlite else is_compared,
        include_object=None if is_sqlite else is_declared,
        process_revision_directives=number_revision,
    )
    with context.begin_transaction():
        context.run_migrations()
        if is_sqlite:
            dangling = connection.execute(text("PRAGMA foreign_key_check")).all()
            if dangling:
                raise RuntimeError(f"references to missing rows, nothing was migrated: {dangling}")


async def run_from_settings() -> None:
    """Open the database that the settings name, as the node would, and run there."""
    database = open_database(load_settings().database_url, PoolSettings())
    if database.dialect == "sqlite":
        leave_references_unchecked(database.writer)
    try:
        async with database.writer.begin() as connection:
            await connection.run_sync(run_on)
    finally:
        await database.close()


def main() -> None:
    """Choose the way in."""
    if context.is_offline_mode():
        context.configure(url=load_settings().database_url, target_metadata=TARGET)
        with context.begin_transaction():
            context.run_migrations()
        return
    connection = context.config.attributes.get("connection")
    if isinstance(connection, Connection):
        run_on(connection)
        return
    if context.config.config_file_name is not None:
        logging.config.fileConfig(
            context.config.config_file_name, disable_existing_loggers=False, encoding="utf-8"
        )
    asyncio.run(run_from_settings())


main()
