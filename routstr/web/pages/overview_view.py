"""What the overview says, made of what the flows know: charts, health in a word, what needs you."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from routstr.core.breaker import State
from routstr.core.money import MSAT_PER_SAT
from routstr.flows.house.overview import Overview, why_failed
from routstr.flows.house.usage import Point, Usage
from routstr.web.pages.words import ago, grouped, lasting, sats

MINUTE_S: Final = 60
LEAST: Final = 0.01
WHOLE_SATS: Final = 1_000  # from so many on a figure says whole sats
HOURS: Final[Mapping[str, int]] = {"1h": 1, "24h": 24, "30d": 720}
SPAN: Final = "24h"
NOTHING: Final = "\u2013"
BANNERS: Final = frozenset({"invariant_broken", "switch_off"})
PARTS: Final = ("warnings", "money", "figures", "upstreams", "mints", "needs")

Kind = Literal["ok", "bad", "busy", "wait", "off"]
Value = Callable[[Point, float], float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A figure: what it says now, where its rows are, and the data that charts.js draws."""

    name: str
    title: str
    now: str
    href: str
    data: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The charts of one span of time."""

    span: str
    charts: tuple[Chart, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """An upstream or a mint: its state is a word and a colour."""

    name: str
    href: str
    says: str
    kind: Kind
    word: str
    held_msat: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Something to see to, and where."""

    kind: Kind
    title: str
    says: str
    href: str
    act: str = "Show"


def shown(seen: Overview, span: str) -> dict[str, Any]:
    """The values of the overview's templates."""
    return {
        "warnings": [
            Need(
                kind="bad" if each.kind == "invariant_broken" else "wait",
                title=each.text,
                says="",
                href=each.link,
                act="Look at it",
            )
            for each in seen.needs
            if each.kind in BANNERS
        ],
        "money": seen.money,
        "figures": figures(seen.usage, span),
        "upstreams": upstreams(seen),
        "mints": mints(seen),
        "needs": [
            Need(
                kind="bad" if each.urgency == "now" else "wait",
                title=each.text,
                says="",
                href=each.link,
            )
            for each in seen.needs
            if each.kind not in BANNERS
        ],
    }


def upstreams(seen: Overview) -> list[Health]:
    """Each upstream's state, as its last requests left it."""
    found = []
    for each in seen.upstreams:
        kind: Kind = "ok"
        word = "answering"
        says = [] if each.latency_s is None else [f"answers in {_ms(each.latency_s)}"]
        if each.state is State.OPEN:
            kind, word = "bad", f"paused for {lasting(int(each.open_for_s) + 1)}"
        elif each.state is State.HALF_OPEN:
            kind, word = "busy", "being tried"
        elif each.latency_s is None:
            kind, word = "off", "not asked yet"
        elif each.failures:
            kind, word = "wait", "failing"
        if each.last_failure and each.last_failure_age_s is not None:
            age = lasting(int(each.last_failure_age_s))
            says.append(f"{why_failed(each.last_failure)} {age} ago")
        if each.paused_models:
            says.append(f"{len(each.paused_models)} models paused")
        if each.running:
            says.append(f"{each.running} running")
        found.append(
            Health(
                name=each.slug,
                href="/admin/usage?by=upstream",
                says=", ".join(says) or "No request has gone there since the start",
                kind=kind,
                word=word,
            )
        )
    return found


def mints(seen: Overview) -> list[Health]:
    """Each mint's state, and what is held there."""
    found = []
    for each in seen.mints:
        kind: Kind = "bad" if each.is_silent else "ok"
        word = "silent" if each.is_silent else "answering"
        says = []
        if each.answered_at is None:
            kind, word = "wait", "never answered yet"
        else:
            says.append(f"answered {ago(each.answered_at, seen.now)}")
        if not each.is_allowed:
            kind, word = "off", "not accepted"
        if each.open_operations:
            says.append(f"{grouped(each.open_operations)} under way")
        found.append(
            Health(
                name=each.url.partition("://")[2] or each.url,
                href="/admin/mints",
                says=", ".join(says),
                kind=kind,
                word=word,
                held_msat=each.held_msat,
            )
        )
    return found


def figures(usage: Usage, span: str) -> Figures:
    """The four charts of a span."""
    total = usage.total
    rows = f"/admin/usage?span={span}"
    elapsed_s = max(MINUTE_S, (usage.until - usage.since).total_seconds())
    rate = total.sums.requests * MINUTE_S / elapsed_s
    return Figures(
        span=span,
        charts=(
            Chart(
                name="requests",
                title="Requests per minute",
                now=_brief(rate),
                href=rows,
                data=_data(usage, "/min", {"Requests": _rate}),
            ),
            Chart(
                name="revenue",
                title="Revenue",
                now=_said_sats(total.sums.charged_msat),
                href=f"{rows}&by=model",
                data=_data(usage, "sat", {"Revenue": _revenue}),
            ),
            Chart(
                name="added",
                title="Added by the node",
                now=" / ".join(_said_ms(each) for each in (total.added_us_p50, total.added_us_p99)),
                href=f"{rows}&by=upstream",
                data=_data(
                    usage,
                    "ms",
                    {
                        "p50": lambda point, _: _in_ms(point.added_us_p50),
                        "p99": lambda point, _: _in_ms(point.added_us_p99),
                    },
                ),
            ),
            Chart(
                name="errors",
                title="Failed requests",
                now=_said_share(total),
                href=f"{rows}&by=outcome",
                data=_data(usage, "%", {"Failed": lambda point, _: _share(point)}),
            ),
        ),
    )


def _data(usage: Usage, unit: str, values: Mapping[str, Value]) -> dict[str, object]:
    """The points of a chart; none at all where nothing was asked for."""
    points = usage.points if usage.total.sums.requests else ()
    return {
        "at": [int(point.at.timestamp()) for point in points],
        "unit": unit,
        "series": [
            {"name": name, "values": [value(each, _length_s(usage, each.at)) for each in points]}
            for name, value in values.items()
        ],
    }


def _length_s(usage: Usage, at: datetime) -> float:
    """How long that step has lasted; the last one still goes on."""
    return min(float(usage.step_s), (usage.until - at).total_seconds())


def _rate(point: Point, length_s: float) -> float | None:
    if length_s < MINUTE_S:
        return None
    return round(point.sums.requests * MINUTE_S / length_s, 2)


def _revenue(point: Point, _: float) -> float:
    return round(point.sums.charged_msat / MSAT_PER_SAT, 3)


def _said_sats(amount_msat: int) -> str:
    """As the tables have it; without the msat where they no longer matter, or fit."""
    is_large = amount_msat >= WHOLE_SATS * MSAT_PER_SAT
    return sats(amount_msat // MSAT_PER_SAT * MSAT_PER_SAT if is_large else amount_msat)


def _share(point: Point) -> float | None:
    return round(point.failed * 100 / point.sums.requests, 2) if point.sums.requests else None


def _said_share(point: Point) -> str:
    share = _share(point)
    return NOTHING if share is None else f"{share:g}"


def _in_ms(microseconds: int | None) -> float | None:
    return None if microseconds is None else round(microseconds / 1000, 2)


def _said_ms(microseconds: int | None) -> str:
    found = _in_ms(microseconds)
    return NOTHING if found is None else _brief(found)


def _ms(seconds: float) -> str:
    return f"{grouped(round(seconds * 1000))} ms"


def _brief(number: float) -> str:
    """Two digits that count: `0.42`, `3.1`, `42`, `1 234`; never nothing for something."""
    if 0 < number < LEAST:
        return f"< {LEAST}"
    if number >= 10 or number == 0:
        return grouped(round(number))
    return f"{number:.1f}" if number >= 1 else f"{number:.2f}"
