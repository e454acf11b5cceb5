"""Bringing the schema up to date when the node starts, on the database it will use."""

from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncEngine

from routstr.ledger.engine import PoolSettings, open_database

MIGRATIONS: Final = Path(__file__).parents[2] / "migrations"


def knows_revision(revision: str) -> bool:
    """Whether a schema of that revision is one of this version of the node, or an older one."""
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
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)

    try:
        async with database.writer.begin() as connection:
            await connection.run_sync(upgrade)
    finally:
        await database.close()


def leave_references_unchecked(engine: AsyncEngine) -> None:
    """Let SQLite rebuild a table that others refer to; the migrations check them all at the end."""

    @event.listens_for(engine.sync_engine, "connect")
    def configure(connection: DBAPIConnection, _: object) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA foreign_keys=OFF")
        cursor.close()
