"""Keeping the database quick, without standing in anybody's way.

Nothing here rewrites a table or takes a lock that a paid request waits for longer than a moment:
statistics of a few hundred rows an index, and a checkpoint that never waits for readers.
"""

from typing import Any, Final, cast

from sqlalchemy import text

from routstr.ledger.engine import Database

ANALYSED: Final = (
    "apikey",
    "reservation",
    '"transaction"',
    "deposit",
    "withdrawal",
    "proof",
    "mint_operation",
    "mint_output",
    "idempotency",
)
SAMPLE_ROWS: Final = 400
FREE_PAGES: Final = 1_000
TIMEOUT_MS: Final = 60_000


async def vacuum(database: Database) -> int:
    """Refresh the statistics, and move what was written to where it belongs; how many tables."""
    if database.dialect == "sqlite":
        await _sqlite(database)
    else:
        for table in ANALYSED:
            async with database.writer.begin() as connection:
                await connection.execute(text(f"SET LOCAL statement_timeout = {TIMEOUT_MS}"))
                await connection.execute(text(f"ANALYZE {table}"))
    return len(ANALYSED)


async def _sqlite(database: Database) -> None:
    """Each statement is a transaction of its own: the ledger's next commit waits for one at most.

    It goes to the driver itself, because a checkpoint is refused within a transaction.
    """
    async with database.writer.connect() as connection:
        raw = await connection.get_raw_connection()
        driver = cast(Any, raw.driver_connection)
        statements = [
            f"PRAGMA analysis_limit={SAMPLE_ROWS}",
            *(f"ANALYZE {table}" for table in ANALYSED),
            "PRAGMA optimize",
            f"PRAGMA incremental_vacuum({FREE_PAGES})",
            "PRAGMA wal_checkpoint(PASSIVE)",
        ]
        for statement in statements:
            cursor = await driver.execute(statement)
            await cursor.fetchall()
            await cursor.close()
