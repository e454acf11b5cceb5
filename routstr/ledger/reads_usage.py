"""Reading what was sold: the sums that are kept, what is not in them yet, and single failures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import func, select

from routstr.core.outcome import FAILURES
from routstr.ledger.engine import Dialect, ReadConnection
from routstr.ledger.reads import TRANSACTION
from routstr.ledger.usage import (
    HOUR_S,
    MINUTE_S,
    PART,
    SPAN,
    SUMS,
    Part,
    Span,
    Times,
    spans_of,
    sum_up,
    sums_of,
)

PARTS_BY: Final = ("model", "upstream", "outcome")


async def rolled_until(connection: ReadConnection) -> datetime | None:
    """The end of the newest minute, else hour, that is summed up; None if nothing is."""
    for span_s in (MINUTE_S, HOUR_S):
        newest = (
            select(SPAN.c.start_at)
            .where(SPAN.c.span_s == span_s)
            .order_by(SPAN.c.start_at.desc())
            .limit(1)
        )
        start_at = await connection.scalar(newest)
        if isinstance(start_at, datetime):
            return start_at + timedelta(seconds=span_s)
    return None


async def first_row_from(connection: ReadConnection, since: datetime | None) -> datetime | None:
    """When the first row from then on was posted."""
    wanted = select(TRANSACTION.c.timestamp).order_by(TRANSACTION.c.timestamp).limit(1)
    if since is not None:
        wanted = wanted.where(TRANSACTION.c.timestamp >= since)
    found: datetime | None = await connection.scalar(wanted)
    return found


async def row_after(
    connection: ReadConnection, since: datetime, until: datetime, rows: int
) -> datetime | None:
    """When the row was posted that comes after so many from `since`; None if there are fewer."""
    wanted = (
        select(TRANSACTION.c.timestamp)
        .where(TRANSACTION.c.timestamp >= since, TRANSACTION.c.timestamp < until)
        .order_by(TRANSACTION.c.timestamp)
        .offset(rows)
        .limit(1)
    )
    found: datetime | None = await connection.scalar(wanted)
    return found


async def kept_spans(
    connection: ReadConnection, span_s: int, since: datetime, until: datetime
) -> list[Span]:
    """The sums of each span that begins in that time, in order; empty ones are not kept."""
    rows = await connection.execute(
        select(SPAN)
        .where(SPAN.c.span_s == span_s, SPAN.c.start_at >= since, SPAN.c.start_at < until)
        .order_by(SPAN.c.start_at)
    )
    return [
        Span(
            start_at=row.start_at,
            failed=row.failed,
            sums=sums_of(row),
            times=_times(row.times),
        )
        for row in rows
    ]


def _times(stored: Mapping[str, Mapping[str, int]]) -> Times:
    return {
        name: {int(bucket): count for bucket, count in buckets.items()}
        for name, buckets in stored.items()
    }


async def kept_parts(
    connection: ReadConnection, span_s: int, since: datetime, until: datetime
) -> list[Part]:
    """What each model of each upstream came to with each outcome in that time, in one part each."""
    sums = [func.sum(PART.c[name]).label(name) for name in SUMS]
    names = [PART.c[name] for name in PARTS_BY]
    rows = await connection.execute(
        select(*names, *sums)
        .where(PART.c.span_s == span_s, PART.c.start_at >= since, PART.c.start_at < until)
        .group_by(*names)
    )
    return [
        Part(
            start_at=since,
            model=row.model,
            upstream=row.upstream,
            outcome=row.outcome,
            sums=sums_of(row),
        )
        for row in rows
    ]


async def fresh(
    connection: ReadConnection, dialect: Dialect, since: datetime, until: datetime, *, rows_max: int
) -> tuple[list[Span], list[Part]] | None:
    """The same from the rows themselves, minute by minute; None if there are more than that."""
    if await row_after(connection, since, until, rows_max) is not None:
        return None
    parts, times = await sum_up(connection, dialect, MINUTE_S, since, until)
    return spans_of(parts, times), parts


# ── single failures ───────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedSpan:
    """A span in which requests failed, and how many requests it had in all."""

    start_at: datetime
    requests: int
    failed: int


async def failed_spans(
    connection: ReadConnection, span_s: int, since: datetime, until: datetime, *, limit: int
) -> list[FailedSpan]:
    """The newest spans in which any request failed."""
    rows = await connection.execute(
        select(SPAN.c.start_at, SPAN.c.requests, SPAN.c.failed)
        .where(
            SPAN.c.span_s == span_s,
            SPAN.c.start_at >= since,
            SPAN.c.start_at < until,
            SPAN.c.failed > 0,
        )
        .order_by(SPAN.c.start_at.desc())
        .limit(limit)
    )
    return [
        FailedSpan(start_at=row.start_at, requests=row.requests, failed=row.failed) for row in rows
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A request that the node or its upstream is to blame for; `request_id` is its reservation's.

    `at_risk_msat` is what the upstream may want for it, `charged_msat` what its key paid.
    """

    request_id: str
    key_id: str
    model: str
    upstream: str
    outcome: str
    charged_msat: int
    at_risk_msat: int
    created_at: datetime


async def failures(
    connection: ReadConnection, since: datetime, until: datetime, *, limit: int
) -> Sequence[Failure]:
    """The newest of that time, which must be short: every row of it is looked at."""
    said = TRANSACTION.c.request_data
    rows = await connection.execute(
        select(TRANSACTION)
        .where(
            TRANSACTION.c.timestamp >= since,
            TRANSACTION.c.timestamp < until,
            TRANSACTION.c.type == "usage",
            said["outcome"].as_string().in_(sorted(FAILURES)),
        )
        .order_by(TRANSACTION.c.timestamp.desc(), TRANSACTION.c.id.desc())
        .limit(limit)
    )
    return [
        Failure(
            request_id=row.operation_id.removeprefix("end:"),
            key_id=row.api_key_id,
            model=str(row.request_data.get("model") or ""),
            upstream=str(row.request_data.get("upstream") or ""),
            outcome=str(row.request_data.get("outcome")),
            charged_msat=-row.amount,
            at_risk_msat=int(row.request_data.get("at_risk_msat") or 0),
            created_at=row.timestamp,
        )
        for row in rows
    ]
