"""What was sold, summed up from the `usage` rows of the audit chain, and the command that keeps it.

Laws
- A sum is always made anew from its rows, whole: making it again changes nothing, and a row that
  was late is in it the next time.
- Nothing here is money. The chain is the truth; these tables can be emptied, and fill again.
- Summing reads; only the finished sums go through the executor, few at a time.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson
from sqlalchemy import Row, bindparam, delete, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from routstr.core.outcome import FAILURES
from routstr.core.quantiles import BOUNDS, Histogram
from routstr.ledger.changes import Columns, rows_as_table
from routstr.ledger.columns import UtcTime, time_text
from routstr.ledger.commands import RowCommand, Transaction
from routstr.ledger.engine import Dialect
from routstr.ledger.tables import table_of
from routstr.ledger.tables_admin import UsagePart, UsageSpan

SPAN = table_of(UsageSpan)
PART = table_of(UsagePart)

MINUTE_S: Final = 60
HOUR_S: Final = 3600
DAY_S: Final = 86_400
SPANS: Final = (MINUTE_S, HOUR_S, DAY_S)

TIMED: Final = ("ms", "first_ms", "added_us")
"""What a request may have been timed by: in all, to the first byte, and added by the node."""

Times = Mapping[str, Histogram]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """Requests and what they came to; amounts in msat.

    `margin_msat` is what was charged less what the use costs the operator, where that is known;
    `absorbed_msat` was used and not charged, `at_risk_msat` is the most that an upstream may want
    for what nobody could charge.
    """

    requests: int = 0
    charged_msat: int = 0
    margin_msat: int = 0
    absorbed_msat: int = 0
    at_risk_msat: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(
            requests=self.requests + other.requests,
            charged_msat=self.charged_msat + other.charged_msat,
            margin_msat=self.margin_msat + other.margin_msat,
            absorbed_msat=self.absorbed_msat + other.absorbed_msat,
            at_risk_msat=self.at_risk_msat + other.at_risk_msat,
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
        )


SUMS: Final = tuple(each.name for each in fields(Sums))


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one model of one upstream came to with one outcome; empty texts are unknown."""

    start_at: datetime
    model: str
    upstream: str
    outcome: str
    sums: Sums

    @property
    def failed(self) -> int:
        """How many of its requests the node or the upstream is to blame for."""
        return self.sums.requests if self.outcome in FAILURES else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """All that was sold in one minute, hour or day."""

    start_at: datetime
    failed: int
    sums: Sums
    times: Times = field(default_factory=dict)


def spans_of(parts: Iterable[Part], times: Mapping[datetime, Times]) -> list[Span]:
    """The parts of each span put together, in the order of time."""
    totals: dict[datetime, tuple[Sums, int]] = {}
    for part in parts:
        sums, failed = totals.get(part.start_at, (Sums(), 0))
        totals[part.start_at] = (sums + part.sums, failed + part.failed)
    return [
        Span(start_at=start_at, failed=failed, sums=sums, times=times.get(start_at, {}))
        for start_at, (sums, failed) in sorted(totals.items())
    ]


# ── summing up the chain ──────────────────────────────────────────────────────────────────────

# How much of a time names its span on SQLite, and what makes that a time again.
TEXT_STARTS: Final = {
    MINUTE_S: (16, ":00+00:00"),
    HOUR_S: (13, ":00:00+00:00"),
    DAY_S: (10, "T00:00:00+00:00"),
}
UNITS: Final = {MINUTE_S: "minute", HOUR_S: "hour", DAY_S: "day"}
ROWS: Final = "\"transaction\" WHERE type = 'usage' AND timestamp >= :since AND timestamp < :until"


async def sum_up(
    connection: AsyncConnection, dialect: Dialect, span_s: int, since: datetime, until: datetime
) -> tuple[list[Part], dict[datetime, Times]]:
    """What the chain's rows from `since` until before `until` come to, by spans of that length."""
    values = {"since": since, "until": until}
    rows = await connection.execute(_timed(_parts_sql(dialect, span_s)), values)
    parts = [
        Part(
            start_at=_start(row.start, span_s),
            model=row.model,
            upstream=row.upstream,
            outcome=row.outcome,
            sums=sums_of(row),
        )
        for row in rows
    ]
    times: dict[datetime, dict[str, dict[int, int]]] = {}
    for row in await connection.execute(_timed(_times_sql(dialect, span_s)), values):
        of_span = times.setdefault(_start(row.start, span_s), {})
        of_span.setdefault(row.timed, {})[int(row.bucket)] = int(row.n)
    return parts, dict(times)


def sums_of(row: Row[Any]) -> Sums:
    """The sums of a row that names them; PostgreSQL sums up to numerics."""
    return Sums(**{name: int(getattr(row, name)) for name in SUMS})


def _timed(sql: str) -> Any:
    times = [bindparam(name, type_=UtcTime()) for name in ("since", "until")]
    return text(sql).bindparams(*times)


def _parts_sql(dialect: Dialect, span_s: int) -> str:
    upstream_msat = _whole(dialect, "upstream_msat", absent="NULL")
    formulas = {
        "charged_msat": "-amount",
        "margin_msat": f"coalesce(-amount - {upstream_msat}, 0)",
        "absorbed_msat": _whole(dialect, "absorbed_msat"),
        "at_risk_msat": _whole(dialect, "at_risk_msat"),
        "input_tokens": _whole(dialect, "input_tokens", within="usage"),
        "output_tokens": _whole(dialect, "output_tokens", within="usage"),
    }
    sums = ", ".join(f"sum({formula}) AS {name}" for name, formula in formulas.items())
    said = ", ".join(
        f"coalesce(request_data ->> '{name}', '') AS {name}"
        for name in ("model", "upstream", "outcome")
    )
    return (
        f"SELECT {_start_sql(dialect, span_s)} AS start, {said}, count(*) AS requests, {sums}"
        f" FROM {ROWS} GROUP BY 1, 2, 3, 4"
    )


def _times_sql(dialect: Dialect, span_s: int) -> str:
    start = _start_sql(dialect, span_s)
    each = " UNION ALL ".join(
        f"SELECT start, '{name}' AS timed, {_bucket_sql(name)} AS bucket FROM timed"
        f" WHERE {name} IS NOT NULL"
        for name in TIMED
    )
    picks = ", ".join(f"{_whole(dialect, name, absent='NULL')} AS {name}" for name in TIMED)
    return (
        f"WITH timed AS (SELECT {start} AS start, {picks} FROM {ROWS})"
        f" SELECT start, timed, bucket, count(*) AS n FROM ({each}) AS each GROUP BY 1, 2, 3"
    )


def _start_sql(dialect: Dialect, span_s: int) -> str:
    if dialect == "sqlite":
        return f"substr(timestamp, 1, {TEXT_STARTS[span_s][0]})"
    return f"date_trunc('{UNITS[span_s]}', timestamp)"


def _start(value: object, span_s: int) -> datetime:
    if isinstance(value, datetime):
        return value.astimezone(UTC)
    return datetime.fromisoformat(f"{value}{TEXT_STARTS[span_s][1]}")


def _whole(dialect: Dialect, name: str, *, within: str | None = None, absent: str = "0") -> str:
    """A number of `request_data`, whole; most are absent from some rows."""
    if dialect == "sqlite":
        path = name if within is None else f"$.{within}.{name}"
        found = f"CAST(request_data ->> '{path}' AS integer)"
    else:
        path = f"{{{name}}}" if within is None else f"{{{within},{name}}}"
        found = f"CAST(trunc(CAST(request_data #>> '{path}' AS numeric)) AS bigint)"
    return found if absent == "NULL" else f"coalesce({found}, {absent})"


def _bucket_sql(value: str, first: int = 0, last: int = len(BOUNDS)) -> str:
    """Which bucket a value is in, by halves: six comparisons instead of forty."""
    if first == last:
        return str(first)
    middle = (first + last) // 2
    below, above = _bucket_sql(value, first, middle), _bucket_sql(value, middle + 1, last)
    return f"CASE WHEN {value} < {BOUNDS[middle]} THEN {below} ELSE {above} END"


# ── keeping the sums ──────────────────────────────────────────────────────────────────────────

SPAN_COLUMNS: Final[Columns] = {
    "start_at": "timestamptz",
    "failed": "bigint",
    **dict.fromkeys(SUMS, "bigint"),
    "times": "jsonb",
}
PART_COLUMNS: Final[Columns] = {
    "start_at": "timestamptz",
    "model": "text",
    "upstream": "text",
    "outcome": "text",
    **dict.fromkeys(SUMS, "bigint"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveUsage(RowCommand[None]):
    """Put these sums in the place of all there are from `since` until before `until`."""

    span_s: int
    since: datetime
    until: datetime
    spans: Sequence[Span]
    parts: Sequence[Part]

    async def run(self, transaction: Transaction) -> None:
        """Delete and insert, in one commit."""
        await save_usage(transaction.connection, transaction.dialect, self)


async def save_usage(connection: Any, dialect: Dialect, new: SaveUsage) -> None:
    """What `SaveUsage` does, for a database that no node runs on."""
    for table in (SPAN, PART):
        await connection.execute(
            delete(table).where(
                table.c.span_s == new.span_s,
                table.c.start_at >= new.since,
                table.c.start_at < new.until,
            )
        )
    spans = [
        (time_text(each.start_at), each.failed, *_values(each.sums), _times_json(each.times))
        for each in new.spans
    ]
    parts = [
        (time_text(each.start_at), each.model, each.upstream, each.outcome, *_values(each.sums))
        for each in new.parts
    ]
    for name, columns, rows in (
        ("usage_span", SPAN_COLUMNS, spans),
        ("usage_part", PART_COLUMNS, parts),
    ):
        if rows:
            names = ", ".join(columns)
            statement = text(
                f"INSERT INTO {name} (span_s, {names}) SELECT {new.span_s}, {names}"
                f" FROM {rows_as_table(dialect, columns)}"
            )
            await connection.execute(statement, {"rows": orjson.dumps(rows).decode()})


def _values(sums: Sums) -> tuple[int, ...]:
    return tuple(getattr(sums, name) for name in SUMS)


def _times_json(times: Times) -> dict[str, dict[str, int]]:
    return {
        name: {str(bucket): count for bucket, count in sorted(buckets.items())}
        for name, buckets in sorted(times.items())
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneUsage(RowCommand[None]):
    """Drop the minutes from before then, at most `hours_max` hours of them at once."""

    before: datetime
    hours_max: int = 2

    async def run(self, transaction: Transaction) -> None:
        """Delete the oldest."""
        connection = transaction.connection
        oldest = await connection.scalar(
            select(SPAN.c.start_at)
            .where(SPAN.c.span_s == MINUTE_S)
            .order_by(SPAN.c.start_at)
            .limit(1)
        )
        if oldest is None or oldest >= self.before:
            return
        until = min(self.before, oldest + timedelta(hours=self.hours_max))
        for table in (SPAN, PART):
            await connection.execute(
                delete(table).where(table.c.span_s == MINUTE_S, table.c.start_at < until)
            )
