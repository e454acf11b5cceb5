"""The job that sums up what was sold, so that no page ever adds up the audit chain.

Whole minutes, 30 s after they end, so that a commit that took long is in them; the last few are
summed up again each time all the same. Hours are made of their minutes and days of their hours.
Minutes are kept for two days, hours and days for ever; what is older than that when it is first
seen (a long stop, a node that was just upgraded) is summed up by the hour at once.

Reading never holds the ledger up; what is written goes through it in small commands. If the
process dies anywhere in between, the next run begins where the sums end.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from routstr.core.quantiles import added
from routstr.flows.context import Context
from routstr.ledger.engine import ReadConnection
from routstr.ledger.reads_usage import (
    first_row_from,
    kept_parts,
    kept_spans,
    rolled_until,
    row_after,
)
from routstr.ledger.usage import (
    DAY_S,
    HOUR_S,
    MINUTE_S,
    Part,
    PruneUsage,
    SaveUsage,
    Span,
    Times,
    spans_of,
    sum_up,
)

ROLLUP_EVERY_S: Final = 30.0
SETTLED_AFTER_S: Final = 30
AGAIN_S: Final = 120
MINUTES_KEPT: Final = timedelta(hours=48)
SLACK: Final = timedelta(hours=1)  # an hour whose minutes are still summed up keeps them all
ROWS_PER_PASS: Final = 20_000
PASSES_MAX: Final = 100
ROWS_PER_COMMAND: Final = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """What to sum up next, in spans of one length; `has_more`: there are rows after it."""

    span_s: int
    since: datetime
    until: datetime
    has_more: bool


async def rollup(ctx: Context) -> tuple[bool, Mapping[str, object]]:
    """Sum up what has ended since the last time, and drop old minutes; how much it was."""
    rolled = 0
    until: datetime | None = None
    for _ in range(PASSES_MAX):
        async with ctx.database.reading() as connection:
            stretch = await _next_stretch(connection, ctx.clock.now(), until)
        if stretch is None:
            break
        rolled += await _roll(ctx, stretch)
        until = stretch.until
        if not stretch.has_more:
            break
    await ctx.ledger.submit(PruneUsage(before=_oldest_minute(ctx.clock.now()) - SLACK))
    return True, {"requests": rolled}


async def _next_stretch(
    connection: ReadConnection, now: datetime, done_until: datetime | None
) -> Stretch | None:
    """At least one span, and no more than about `ROWS_PER_PASS` rows."""
    end = floor_to(now - timedelta(seconds=SETTLED_AFTER_S), MINUTE_S)
    since = done_until
    if since is None:
        since = await rolled_until(connection)
        since = None if since is None else since - timedelta(seconds=AGAIN_S + MINUTE_S)
    first = await first_row_from(connection, since)
    if first is None or first >= end:
        return None
    oldest_minute = _oldest_minute(now)
    span_s = HOUR_S if first < oldest_minute else MINUTE_S
    since = floor_to(first, span_s)
    limit = oldest_minute if span_s == HOUR_S else end
    after = await row_after(connection, since, limit, ROWS_PER_PASS)
    until = limit
    if after is not None:
        until = max(floor_to(after, span_s), since + timedelta(seconds=span_s))
    return Stretch(span_s=span_s, since=since, until=until, has_more=until < end)


def _oldest_minute(now: datetime) -> datetime:
    return floor_to(now - MINUTES_KEPT, HOUR_S)


async def _roll(ctx: Context, stretch: Stretch) -> int:
    """Sum up one stretch and all that is made of it; yields its requests."""
    async with ctx.database.reading() as connection:
        parts, times = await sum_up(
            connection, ctx.database.dialect, stretch.span_s, stretch.since, stretch.until
        )
    spans = spans_of(parts, times)
    ctx.failpoint("rollup.read")
    await _save(ctx, stretch.span_s, stretch.since, stretch.until, spans, parts)
    for span_s, from_s in ((HOUR_S, MINUTE_S), (DAY_S, HOUR_S)):
        if span_s > stretch.span_s:
            await _derive(ctx, span_s, from_s, stretch)
    return sum(span.sums.requests for span in spans)


async def _derive(ctx: Context, span_s: int, from_s: int, stretch: Stretch) -> None:
    """Make the longer spans that the stretch touches, of the shorter ones they consist of."""
    since, until = floor_to(stretch.since, span_s), stretch.until
    while since < until:
        end = since + timedelta(seconds=span_s)
        async with ctx.database.reading() as connection:
            within = await kept_spans(connection, from_s, since, end)
            parts = await kept_parts(connection, from_s, since, end)
        spans = spans_of(parts, {since: times_of(within)})
        await _save(ctx, span_s, since, end, spans, parts)
        since = end


async def _save(
    ctx: Context,
    span_s: int,
    since: datetime,
    until: datetime,
    spans: Sequence[Span],
    parts: Sequence[Part],
) -> None:
    """In commands of whole spans, each small enough that nobody waits for it."""
    by_start: dict[datetime, list[Part]] = {}
    for part in parts:
        by_start.setdefault(part.start_at, []).append(part)
    batch: list[Span] = []
    begun, rows = since, 0
    for span in spans:
        more = len(by_start[span.start_at])
        if batch and rows + more > ROWS_PER_COMMAND:
            await ctx.ledger.submit(_saving(span_s, begun, span.start_at, batch, by_start))
            begun, batch, rows = span.start_at, [], 0
        batch.append(span)
        rows += more
    await ctx.ledger.submit(_saving(span_s, begun, until, batch, by_start))
    ctx.failpoint("rollup.saved")


def _saving(
    span_s: int,
    since: datetime,
    until: datetime,
    spans: Sequence[Span],
    by_start: Mapping[datetime, Sequence[Part]],
) -> SaveUsage:
    parts = [part for span in spans for part in by_start[span.start_at]]
    return SaveUsage(span_s=span_s, since=since, until=until, spans=spans, parts=parts)


def times_of(spans: Sequence[Span]) -> Times:
    """The histograms of spans put together."""
    names = {name for span in spans for name in span.times}
    return {name: added(span.times.get(name, {}) for span in spans) for name in names}


def floor_to(moment: datetime, span_s: int) -> datetime:
    """When the span began that the moment lies in; spans begin as days do, at midnight UTC."""
    seconds = int(moment.timestamp())
    return datetime.fromtimestamp(seconds - seconds % span_s, UTC)
