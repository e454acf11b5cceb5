"""What was sold in the last hours: for charts, tables and the contract's `/usage/…` answers.

Everything comes from the ledger's own `usage` rows, summed up by the job `rollup`; logs say nothing
here. A window begins at a full minute (up to two hours), at a full hour, or, shown by days, at
midnight. What the job has not summed up yet is added from the rows, unless it is too much; `until`
says how far the figures go.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from routstr.core.quantiles import quantile
from routstr.errors import InvalidParameter
from routstr.flows.context import Context
from routstr.flows.house.rollup import MINUTES_KEPT, floor_to, times_of
from routstr.ledger.engine import ReadConnection
from routstr.ledger.reads_usage import (
    Failure,
    failed_spans,
    failures,
    fresh,
    kept_parts,
    kept_spans,
    rolled_until,
)
from routstr.ledger.usage import DAY_S, HOUR_S, MINUTE_S, Part, Span, Sums

HOURS_MAX: Final = 24 * 366
STEPS_MAX: Final = 1500
BY_MINUTE_HOURS_MAX: Final = 2
FRESH_ROWS_MAX: Final = 10_000
FAILURES_MAX: Final = 200
LOOKED_AT_MAX: Final = 20_000

# (hours up to, minutes a step): what a chart shows unless it is asked for another interval.
STEPS: Final = ((2, 1), (6, 5), (47, 15), (24 * 8, 60), (24 * 31, 360), (HOURS_MAX, 1440))


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """From when to now, and in which steps a chart shows it; `span_s` is that of the sums read."""

    since: datetime
    until: datetime
    span_s: int
    step_s: int


def window_of(now: datetime, hours: int, interval_min: int | None = None) -> Window:
    """The last so many hours. Raises InvalidParameter for hours or an interval out of bounds."""
    if not 1 <= hours <= HOURS_MAX:
        raise InvalidParameter(f"From 1 to {HOURS_MAX}.", param="hours")
    usual = next(minutes for hours_max, minutes in STEPS if hours <= hours_max)
    step_s = (usual if interval_min is None else interval_min) * MINUTE_S
    has_minutes = timedelta(hours=hours) < MINUTES_KEPT  # their oldest hour may be going
    span_s = MINUTE_S if has_minutes and step_s % HOUR_S else HOUR_S
    if step_s % DAY_S == 0:
        span_s = DAY_S
    if step_s < span_s or step_s % span_s or hours * HOUR_S > STEPS_MAX * step_s:
        raise InvalidParameter(
            f"At most {STEPS_MAX} steps, of whole hours beyond two days.", param="interval"
        )
    begin_s = MINUTE_S if hours <= BY_MINUTE_HOURS_MAX else max(HOUR_S, span_s)
    since = floor_to(now - timedelta(hours=hours), begin_s)
    return Window(since=since, until=now, span_s=span_s, step_s=step_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One step of a chart. Times are None where nothing was timed; `at` is the step's start."""

    at: datetime
    failed: int
    sums: Sums
    ms_p50: int | None
    ms_p99: int | None
    first_ms_p50: int | None
    first_ms_p99: int | None
    added_us_p50: int | None
    added_us_p99: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What a model, an upstream or an outcome has of it; an empty name is unknown."""

    name: str
    failed: int
    sums: Sums


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What was sold in a window: in all, step by step without gaps, and by three names.

    Shares come in the order of what was charged, then of requests.
    """

    since: datetime
    until: datetime
    step_s: int
    total: Point
    points: tuple[Point, ...]
    by_model: tuple[Share, ...]
    by_upstream: tuple[Share, ...]
    by_outcome: tuple[Share, ...]


async def usage(ctx: Context, *, hours: int, interval_min: int | None = None) -> Usage:
    """What was sold in the last hours. Raises InvalidParameter."""
    window = window_of(ctx.clock.now(), hours, interval_min)
    async with ctx.database.reading() as connection:
        rolled = await rolled_until(connection)
        live_from = window.since if rolled is None else max(rolled, window.since)
        spans = await kept_spans(connection, window.span_s, window.since, live_from)
        parts = await _parts(connection, window, live_from)
        more = await fresh(
            connection,
            ctx.database.dialect,
            live_from,
            window.until,
            rows_max=FRESH_ROWS_MAX,
        )
    until = window.until
    if more is None:
        until = live_from
    else:
        spans, parts = [*spans, *more[0]], [*parts, *more[1]]
    steps = _steps(window, spans)
    return Usage(
        since=window.since,
        until=until,
        step_s=window.step_s,
        total=_point(_together(window.since, steps)),
        points=tuple(_point(step) for step in steps),
        by_model=_shares(parts, lambda part: part.model),
        by_upstream=_shares(parts, lambda part: part.upstream),
        by_outcome=_shares(parts, lambda part: part.outcome),
    )


async def _parts(connection: ReadConnection, window: Window, until: datetime) -> list[Part]:
    """The sums by name, from spans as long as the window's edges allow."""
    if window.until - window.since <= timedelta(hours=BY_MINUTE_HOURS_MAX, minutes=1):
        return await kept_parts(connection, MINUTE_S, window.since, until)
    midnight = floor_to(window.since + timedelta(seconds=DAY_S - 1), DAY_S)
    if window.until - window.since < MINUTES_KEPT or midnight >= until:
        return await kept_parts(connection, HOUR_S, window.since, until)
    first = await kept_parts(connection, HOUR_S, window.since, midnight)
    return [*first, *await kept_parts(connection, DAY_S, midnight, until)]


def _steps(window: Window, spans: Iterable[Span]) -> list[Span]:
    """A span for every step, the last one still going on."""
    by_step: dict[datetime, list[Span]] = {}
    for span in spans:
        by_step.setdefault(floor_to(span.start_at, window.step_s), []).append(span)
    at, steps = floor_to(window.since, window.step_s), []
    while at < window.until:
        steps.append(_together(at, by_step.get(at, [])))
        at += timedelta(seconds=window.step_s)
    return steps


def _together(at: datetime, spans: Sequence[Span]) -> Span:
    return Span(
        start_at=at,
        failed=sum(span.failed for span in spans),
        sums=sum((span.sums for span in spans), Sums()),
        times=times_of(spans),
    )


def _point(step: Span) -> Point:
    ms, first_ms, added_us = (step.times.get(name, {}) for name in ("ms", "first_ms", "added_us"))
    return Point(
        at=step.start_at,
        failed=step.failed,
        sums=step.sums,
        ms_p50=quantile(ms, 500),
        ms_p99=quantile(ms, 990),
        first_ms_p50=quantile(first_ms, 500),
        first_ms_p99=quantile(first_ms, 990),
        added_us_p50=quantile(added_us, 500),
        added_us_p99=quantile(added_us, 990),
    )


def _shares(parts: Iterable[Part], name_of: Callable[[Part], str]) -> tuple[Share, ...]:
    totals: dict[str, tuple[Sums, int]] = {}
    for part in parts:
        sums, failed = totals.get(name_of(part), (Sums(), 0))
        totals[name_of(part)] = (sums + part.sums, failed + part.failed)
    shares = [Share(name=name, failed=failed, sums=sums) for name, (sums, failed) in totals.items()]
    shares.sort(key=lambda each: (-each.sums.charged_msat, -each.sums.requests, each.name))
    return tuple(shares)


# ── single failures ───────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureList:
    """The newest failures of a window, and how many it had by outcome.

    `looked_since` is how far back single rows were looked at: with hardly a failure among many
    requests, not all the way.
    """

    failures: tuple[Failure, ...]
    by_outcome: Mapping[str, int]
    looked_since: datetime


async def error_details(ctx: Context, *, hours: int, limit: int = 100) -> FailureList:
    """Requests that the node or an upstream is to blame for, newest first.

    The sums say in which minutes or hours there are any, so only those are read. Raises
    InvalidParameter.
    """
    if not 1 <= limit <= FAILURES_MAX:
        raise InvalidParameter(f"From 1 to {FAILURES_MAX}.", param="limit")
    window = window_of(ctx.clock.now(), hours)
    span_s = MINUTE_S if timedelta(hours=hours) < MINUTES_KEPT else HOUR_S
    found: list[Failure] = []
    async with ctx.database.reading() as connection:
        rolled = await rolled_until(connection)
        live_from = window.since if rolled is None else max(rolled, window.since)
        parts = await _parts(connection, window, live_from)
        live = await fresh(
            connection, ctx.database.dialect, live_from, window.until, rows_max=FRESH_ROWS_MAX
        )
        if live is not None:
            parts += live[1]
            found += await failures(connection, live_from, window.until, limit=limit)
        looked_since, looked_at = live_from, 0
        spans = await failed_spans(connection, span_s, window.since, live_from, limit=limit)
        for span in spans:
            if len(found) >= limit or looked_at + span.requests > LOOKED_AT_MAX:
                break
            end = min(span.start_at + timedelta(seconds=span_s), live_from)
            found += await failures(connection, span.start_at, end, limit=limit - len(found))
            looked_since, looked_at = span.start_at, looked_at + span.requests
        else:
            looked_since = window.since
    failed = _shares([part for part in parts if part.failed], lambda part: part.outcome)
    return FailureList(
        failures=tuple(found[:limit]),
        by_outcome={share.name: share.failed for share in failed},
        looked_since=looked_since,
    )
