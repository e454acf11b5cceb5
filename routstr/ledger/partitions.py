"""The months of `transaction` on PostgreSQL, made ahead; SQLite has one table for all of them.

Laws
- A row finds a partition, whenever it is written: what no month is made for, the default one takes.
- What landed there stays there: that partition becomes the months it holds rows of, as it is, and
  an empty one takes its place. No audit row is ever moved.
- Every partition has keys and guards of its own, as `transaction` itself would have.
- Nobody waits long: a lock that is not free at once is left for the next pass.
"""

import re
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from routstr.ledger.engine import Database

MONTHS_AHEAD: Final = 2
FIRST: Final = "transaction_first"
DEFAULT: Final = "transaction_default"
LOCK_TIMEOUT_MS: Final = 1_000
LOCK_NOT_FREE: Final = "55P03"

OWN_KEYS: Final = {
    "pk_{}": "PRIMARY KEY (id)",
    "uq_{}_api_key_id_sequence": "UNIQUE (api_key_id, sequence)",
    "uq_{}_operation_id": "UNIQUE (operation_id)",
}
TRIGGERS: Final = {
    "transaction_append_only": "CREATE TRIGGER transaction_append_only"
    " BEFORE UPDATE OR DELETE OR TRUNCATE ON {} FOR EACH STATEMENT"
    " EXECUTE FUNCTION routstr_refuse()",
    "transaction_noted": "CREATE TRIGGER transaction_noted AFTER INSERT ON {}"
    " REFERENCING NEW TABLE AS added FOR EACH STATEMENT"
    " EXECUTE FUNCTION routstr_note_operations()",
}
PARTS: Final = (
    "FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
    " WHERE i.inhparent = CAST('\"transaction\"' AS regclass)"
)
BOUNDS: Final = text(f"SELECT pg_get_expr(c.relpartbound, c.oid) {PARTS}")
NAMES: Final = text(f"SELECT c.relname {PARTS}")
NEWEST: Final = text(f"SELECT max(timestamp) FROM {DEFAULT}")
UNTIL: Final = re.compile(r"TO \('(?P<end>[^']+)'\)")


def month_after(moment: datetime, count: int = 1) -> datetime:
    """The first moment of the month that is `count` months after that of `moment`, in UTC."""
    months = moment.year * 12 + moment.month - 1 + count
    return datetime(months // 12, months % 12 + 1, 1, tzinfo=UTC)


async def make_months(database: Database, *, since: datetime | None = None) -> int:
    """Make what is missing of this month and the next ones; how many partitions were made.

    With `since` a chain without rows, which has months already, gets those from then on as well.
    """
    if database.dialect == "sqlite":
        return 0
    try:
        async with database.writer.begin() as connection:
            await connection.execute(text(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}"))
            if since is not None:
                await _begin_at(connection, month_after(since, 0))
            if not await _is_due(connection):
                return 0
            # Held against another node at the same work, and against rows for the default one.
            await connection.execute(text(f"LOCK TABLE {DEFAULT} IN ACCESS EXCLUSIVE MODE"))
            return await _make(connection)
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != LOCK_NOT_FREE:
            raise
        return 0


async def _begin_at(connection: AsyncConnection, begin: datetime) -> None:
    """Leave nothing of an empty chain but its first partition, up to then, and the default one."""
    assert await connection.scalar(text('SELECT 1 FROM "transaction" LIMIT 1')) is None
    for name in list(await connection.scalars(NAMES)):
        if name == FIRST:
            await _run(connection, f'ALTER TABLE "transaction" DETACH PARTITION {FIRST}')
        elif name != DEFAULT:
            await _run(connection, f"DROP TABLE {name}")
    until = f"FOR VALUES FROM (MINVALUE) TO ('{begin}')"
    await _run(connection, f'ALTER TABLE "transaction" ATTACH PARTITION {FIRST} {until}')


async def _is_due(connection: AsyncConnection) -> bool:
    is_caught = await connection.scalar(NEWEST) is not None
    return is_caught or await _last_end(connection) < await _wanted_end(connection)


async def _last_end(connection: AsyncConnection) -> datetime:
    """Where the last month that there is ends; months follow each other without a gap."""
    found = [UNTIL.search(bounds) for bounds in await connection.scalars(BOUNDS)]
    return max(datetime.fromisoformat(each["end"]).astimezone(UTC) for each in found if each)


async def _wanted_end(connection: AsyncConnection) -> datetime:
    now = await connection.scalar(text("SELECT clock_timestamp()"))
    assert isinstance(now, datetime)
    return month_after(now.astimezone(UTC), MONTHS_AHEAD + 1)


async def _make(connection: AsyncConnection) -> int:
    made, begin = 0, await _last_end(connection)
    newest = await connection.scalar(NEWEST)
    if newest is not None:
        end = month_after(newest.astimezone(UTC))
        await _settle(connection, begin, end)
        made, begin = 1, end
    wanted = await _wanted_end(connection)
    while begin < wanted:
        end = month_after(begin)
        await _add(connection, _name(begin), _range(begin, end))
        made, begin = made + 1, end
    return made


async def _settle(connection: AsyncConnection, begin: datetime, end: datetime) -> None:
    """Make the default partition the one of the months it has caught, and a new one after it."""
    name = _name(begin)
    await _run(connection, f'ALTER TABLE "transaction" DETACH PARTITION {DEFAULT}')
    await _run(connection, f"ALTER TABLE {DEFAULT} RENAME TO {name}")
    for key in OWN_KEYS:
        await _run(connection, f"ALTER INDEX {key.format(DEFAULT)} RENAME TO {key.format(name)}")
    await _run(
        connection, f'ALTER TABLE "transaction" ATTACH PARTITION {name} {_range(begin, end)}'
    )
    await _add(connection, DEFAULT, "DEFAULT")


async def _add(connection: AsyncConnection, name: str, bounds: str) -> None:
    like = 'LIKE "transaction" INCLUDING DEFAULTS INCLUDING CONSTRAINTS'
    await _run(connection, f"CREATE TABLE {name} ({like})")
    for key, columns in OWN_KEYS.items():
        await _run(connection, f"ALTER TABLE {name} ADD CONSTRAINT {key.format(name)} {columns}")
    for trigger in TRIGGERS.values():
        await _run(connection, trigger.format(name))
    await _run(connection, f'ALTER TABLE "transaction" ATTACH PARTITION {name} {bounds}')


async def _run(connection: AsyncConnection, statement: str) -> None:
    await connection.exec_driver_sql(statement)


def _name(begin: datetime) -> str:
    return f"transaction_y{begin:%Ym%m}"


def _range(begin: datetime, end: datetime) -> str:
    return f"FOR VALUES FROM ('{begin}') TO ('{end}')"
