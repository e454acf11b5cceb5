"""Settings that the operator changed while the node runs, each with its history.

A value is a row of its own, by whom and when; the highest version of a name is in force. A row
without a value takes the change back. Who looks for the newest row sees every row before it: the
processes that write here do so one after the other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Row, func, insert, select, text

from routstr.ledger.commands import RowCommand, Transaction
from routstr.ledger.engine import ReadConnection
from routstr.ledger.reads import SETTING
from routstr.ledger.sagas import MINT

LOCK: Final = text("SELECT pg_advisory_xact_lock(7235412)")
VALUE: Final = "value"


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingVersion:
    """One change of a setting; `value` is JSON, and without `has_value` the change was taken back.

    `id` counts over all settings, so a higher one is later.
    """

    id: int
    name: str
    version: int
    value: object = field(repr=False)
    has_value: bool
    changed_by: str
    changed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeSettings(RowCommand[tuple[str, ...]]):
    """Write new values, as JSON, and take changes back; yields the names that are changed by it.

    What is in force already writes no row, so a repeat changes nothing.
    """

    values: Mapping[str, object] = field(repr=False)
    resets: Sequence[str] = ()
    changed_by: str

    async def run(self, transaction: Transaction) -> tuple[str, ...]:
        """One row each."""
        connection = transaction.connection
        if transaction.dialect == "postgresql":
            await connection.execute(LOCK)
        wanted: dict[str, dict[str, object]] = {
            name: {VALUE: value} for name, value in self.values.items()
        }
        wanted |= {name: {} for name in self.resets}
        changed = []
        for name, value in sorted(wanted.items()):
            newest = (
                await connection.execute(
                    select(SETTING.c.version, SETTING.c.value)
                    .where(SETTING.c.name == name)
                    .order_by(SETTING.c.version.desc())
                    .limit(1)
                )
            ).one_or_none()
            if (newest.value or {} if newest else {}) == value:
                continue
            await connection.execute(
                insert(SETTING).values(
                    name=name,
                    version=1 if newest is None else newest.version + 1,
                    value=value,
                    changed_by=self.changed_by,
                    created_at=transaction.book.now,
                )
            )
            changed.append(name)
        return tuple(changed)


async def newest_change(connection: ReadConnection, names: Sequence[str]) -> int:
    """The id of the newest row of those settings; 0 if none was ever changed."""
    newest = await connection.scalar(
        select(func.max(SETTING.c.id)).where(SETTING.c.name.in_(names))
    )
    return int(newest or 0)


async def changes_in_force(
    connection: ReadConnection, names: Sequence[str]
) -> dict[str, SettingVersion]:
    """The last change of each of those settings that has one, taken back or not."""
    newest = (
        select(SETTING.c.name, func.max(SETTING.c.version).label("version"))
        .where(SETTING.c.name.in_(names))
        .group_by(SETTING.c.name)
        .subquery()
    )
    same = (SETTING.c.name == newest.c.name) & (SETTING.c.version == newest.c.version)
    rows = await connection.execute(select(SETTING).join(newest, same).order_by(SETTING.c.id))
    return {row.name: _version(row) for row in rows}


async def versions_of(
    connection: ReadConnection, name: str, *, limit: int, before: int | None = None
) -> list[SettingVersion]:
    """The changes of a setting, the newest first, from below the version `before`."""
    wanted = select(SETTING).where(SETTING.c.name == name)
    if before is not None:
        wanted = wanted.where(SETTING.c.version < before)
    rows = await connection.execute(wanted.order_by(SETTING.c.version.desc()).limit(limit))
    return [_version(row) for row in rows]


async def every_mint(connection: ReadConnection) -> list[str]:
    """The URL of every mint this node ever dealt with."""
    return list((await connection.execute(select(MINT.c.url).order_by(MINT.c.url))).scalars())


def _version(row: Row[Any]) -> SettingVersion:
    value: Mapping[str, object] = row.value or {}
    return SettingVersion(
        id=row.id,
        name=row.name,
        version=row.version,
        value=value.get(VALUE),
        has_value=VALUE in value,
        changed_by=row.changed_by,
        changed_at=row.created_at,
    )
