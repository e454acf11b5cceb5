"""The wallet's mnemonic: made once per database, sealed, and the same for every process on it."""

from collections.abc import Callable
from datetime import datetime
from typing import Final

from sqlalchemy import insert
from sqlalchemy.exc import IntegrityError

from routstr.errors import ConfigError
from routstr.ledger.columns import Sealed
from routstr.ledger.engine import Database, ReadConnection
from routstr.ledger.reads import SETTING, plain_setting, sealed_setting
from routstr.ledger.vault import CannotOpen, Vault

NAME: Final = "wallet_mnemonic"
ACCEPTANCE_INDEX: Final = "acceptance_key_index"


async def wallet_mnemonic(
    database: Database, vault: Vault, *, new_mnemonic: Callable[[], str], now: datetime
) -> str:
    """The mnemonic of this database, created when it has none.

    Two processes that start together on an empty database agree: one insert wins, both read it.
    Raises ConfigError when the master key does not open it.
    """
    async with database.reading() as connection:
        stored = await stored_mnemonic(connection, vault)
    if stored is not None:
        return stored
    fresh = sealed_mnemonic(vault, new_mnemonic())
    try:
        async with database.writer.begin() as connection:
            await connection.execute(
                insert(SETTING).values(
                    name=NAME, version=1, sealed_value=fresh, changed_by="node", created_at=now
                )
            )
    except IntegrityError:
        pass  # another process was first; its mnemonic is the one
    async with database.reading() as connection:
        stored = await stored_mnemonic(connection, vault)
    assert stored is not None
    return stored


async def stored_mnemonic(connection: ReadConnection, vault: Vault) -> str | None:
    """The mnemonic of this database, if it has one.

    Raises ConfigError when the master key does not open it.
    """
    stored = await sealed_setting(connection, NAME)
    if stored is None:
        return None
    try:
        return vault.open(stored[0], table="setting", column="sealed_value", row_id=NAME)
    except CannotOpen as error:
        raise ConfigError(
            "SECRET_KEY: it does not open this database; use the key it was made with"
        ) from error


def sealed_mnemonic(vault: Vault, mnemonic: str) -> Sealed:
    """A mnemonic as its setting keeps it."""
    return vault.seal(mnemonic, table="setting", column="sealed_value", row_id=NAME)


async def acceptance_index(database: Database) -> int:
    """Which of the seed's acceptance keys this database uses: one key, one database."""
    async with database.reading() as connection:
        value = await plain_setting(connection, ACCEPTANCE_INDEX)
    index = None if value is None else value.get("index")
    return index if isinstance(index, int) else 0
