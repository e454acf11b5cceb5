"""Bringing the schema up to date when the node starts, on the database it will use.

Alembic is imported where it has something to do: a node whose schema is up to date, as after every
start but the first of a release, has its 6 MB for something else.
"""

from pathlib import Path
from typing import Final

from sqlalchemy import Connection, event, inspect, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncEngine

from routstr.ledger.engine import Database, PoolSettings, open_database

MIGRATIONS: Final = Path(__file__).parents[2] / "migrations"


def knows_revision(revision: str) -> bool:
    """Whether a schema of that revision is one of this version of the node, or an older one."""
    from alembic.config import Config  # noqa: PLC0415 - see above
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - see above

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    scripts = ScriptDirectory.from_config(config)
    return revision in {each.revision for each in scripts.walk_revisions()}


async def migrate(database_url: str, revision: str = "head") -> None:
    """Run all pending migrations in one transaction; a second process waits for the first."""
    database = open_database(database_url, PoolSettings(size=1, overflow=0))
    if database.dialect == "sqlite":
        leave_references_unchecked(database.writer)

    def upgrade(connection: Connection) -> None:
        from alembic import command  # noqa: PLC0415 - see above
        from alembic.config import Config  # noqa: PLC0415 - see above

        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)

    try:
        if revision == "head" and await _revision(database) == newest_revision():
            return
        async with database.writer.begin() as connection:
            await connection.run_sync(upgrade)
    finally:
        await database.close()


async def _revision(database: Database) -> str | None:
    """What the schema is at; None for a database without one."""
    async with database.reading() as connection:
        if not await connection.run_sync(lambda sync: inspect(sync).has_table("alembic_version")):
            return None
        found: str | None = await connection.scalar(text("SELECT version_num FROM alembic_version"))
        return found


def newest_revision() -> str:
    """The last revision there is: they are linear, and their files are named by number."""
    return max(path.name.partition("_")[0] for path in MIGRATIONS.glob("versions/[0-9]*_*.py"))


def leave_references_unchecked(engine: AsyncEngine) -> None:
    """Let SQLite rebuild a table that others refer to; the migrations check them all at the end."""

    @event.listens_for(engine.sync_engine, "connect")
    def configure(connection: DBAPIConnection, _: object) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA foreign_keys=OFF")
        cursor.close()
