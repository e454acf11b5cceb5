"""A change to many rows of one table, as each engine takes it.

SQLite runs one prepared statement for every row. PostgreSQL gets all rows at once, a column as an
array, and all changes of a batch in one statement: each is a part of it, and counts its rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

from routstr.ledger.engine import Dialect

Kind = Literal["text", "bigint", "timestamptz", "jsonb"]
Columns = Mapping[str, Kind]

# asyncpg has no JSON of its own: it travels as text.
TRAVELS_AS: Final[Mapping[Kind, Kind]] = {"jsonb": "text"}
STATEMENTS_MAX: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A statement whose rows are tuples in the order of `columns`.

    `statement` names them `?1`, `?2` … on SQLite; on PostgreSQL they are the columns of a table
    `v`, which is put in for `{v}`. A guarded one must change every row it is given.
    """

    statement: str
    columns: tuple[tuple[str, Kind], ...]
    is_guarded: bool = True


def insertion(dialect: Dialect, table: str, columns: Columns) -> Change:
    """Rows to be added to `table`."""
    names, kinds = ", ".join(columns), tuple(columns.items())
    if dialect == "sqlite":
        values = ", ".join(f"?{n}" for n in range(1, len(kinds) + 1))
        return Change(statement=f"INSERT INTO {table} ({names}) VALUES ({values})", columns=kinds)
    picks = ", ".join(_value("postgresql", columns, name) for name in columns)
    statement = f"INSERT INTO {table} ({names}) SELECT {picks} FROM {{v}}"
    return Change(statement=statement, columns=kinds)


def updating(
    dialect: Dialect,
    table: str,
    columns: Columns,
    *,
    sets: Mapping[str, str],
    where: Mapping[str, str],
    only: str = "",
    is_guarded: bool = True,
) -> Change:
    """Rows to be changed: `sets` and `where` say which of `columns` each column of the table gets.

    `only` is one more condition, of constants.
    """
    changed = ", ".join(f"{name} = {_value(dialect, columns, v)}" for name, v in sets.items())
    found = " AND ".join(
        f"{table}.{name} = {_value(dialect, columns, v)}" for name, v in where.items()
    )
    source = "" if dialect == "sqlite" else " FROM {v}"
    extra = f" AND {only}" if only else ""
    return Change(
        statement=f"UPDATE {table} SET {changed}{source} WHERE {found}{extra}",
        columns=tuple(columns.items()),
        is_guarded=is_guarded,
    )


def _value(dialect: Dialect, columns: Columns, name: str) -> str:
    if dialect == "sqlite":
        return f"?{list(columns).index(name) + 1}"
    return f"CAST(v.{name} AS jsonb)" if columns[name] == "jsonb" else f"v.{name}"


@lru_cache(maxsize=STATEMENTS_MAX)
def together(changes: tuple[Change, ...]) -> str:
    """One PostgreSQL statement that makes them all and yields how many rows each has changed."""
    parts, first = [], 1
    for n, change in enumerate(changes):
        names = ", ".join(name for name, _ in change.columns)
        arrays = ", ".join(
            f"${first + i}::{TRAVELS_AS.get(kind, kind)}[]"
            for i, (_, kind) in enumerate(change.columns)
        )
        first += len(change.columns)
        statement = change.statement.replace("{v}", f"unnest({arrays}) AS v({names})")
        parts.append(f"c{n} AS ({statement} RETURNING 1)")
    counts = ", ".join(f"(SELECT count(*) FROM c{n})" for n in range(len(changes)))
    return f"WITH {', '.join(parts)} SELECT {counts}"


def rows_as_table(dialect: Dialect, columns: Columns, parameter: str = ":rows") -> str:
    """A FROM item named `v` with those columns, made from one JSON parameter, an array of arrays.

    For rows to be looked for, and where SQLAlchemy runs the statement.
    """
    if dialect == "sqlite":
        picks = ", ".join(f"json_extract(value, '$[{n}]') AS {c}" for n, c in enumerate(columns))
        return f"(SELECT {picks} FROM json_each({parameter})) AS v"
    picks = ", ".join(
        f"CAST(value ->> {n} AS {kind}) AS {c}" for n, (c, kind) in enumerate(columns.items())
    )
    return f"(SELECT {picks} FROM json_array_elements(CAST({parameter} AS json))) AS v"
