"""`/metrics`: what the node's processes counted and how it is, as Prometheus reads it.

Whichever worker is asked asks the others, so that one scrape has them all; then each sample of a
process says which one it is of, by the label `process`.

For the operator alone: an admin token, or a program on this machine. No label holds anything of a
user; the words are fixed, or names the operator gave.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, Protocol

import orjson
from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from routstr.core.breaker import State
from routstr.core.histogram import Histogram
from routstr.flows.context import Context
from routstr.flows.gauges import Gauges, ProcessGauges, gauges, process_gauges
from routstr.web.admin.guard import reading_admin
from routstr.web.admin.origin import is_local_name
from routstr.web.deps import Ctx

US_PER_S: Final = 1_000_000
FORMAT: Final = "text/plain; version=0.0.4; charset=utf-8"
FORWARDED: Final = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip")
BROWSER: Final = ("origin", "sec-fetch-site")  # of another site's page, maybe, in a browser here
LOOPBACK: Final = ("127.", "::1", "::ffff:127.")

router = APIRouter(tags=["node"])


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}, "description": "In Prometheus' text format"}},
)
async def metrics(request: Request, ctx: Ctx) -> Response:
    """Counters since the start, and gauges of this moment."""
    if not is_from_here(request, ctx):
        await reading_admin(request, ctx)
    own: Iterable[Metric] = of_process(ctx)
    others: Siblings | None = getattr(request.app.state, "siblings", None)
    if others is not None:
        own = together({**await others.ask(), others.number: said(ctx)})
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Given([*own, *measured(await gauges(ctx))]))
    return Response(generate_latest(registry), media_type=FORMAT)


# ── of several processes ──────────────────────────────────────────────────────────────────────


class Siblings(Protocol):
    """The other workers of this node."""

    @property
    def number(self) -> int:
        """Which one this is."""
        ...

    async def ask(self) -> Mapping[int, bytes]:
        """What each of the others has `said`; who does not answer is left out."""
        ...


def said(ctx: Context) -> bytes:
    """What this process has counted, for the others."""
    return orjson.dumps(
        [
            [each.name, each.documentation, each.type, [sample[:3] for sample in each.samples]]
            for each in of_process(ctx)
        ]
    )


def together(said: Mapping[int, bytes]) -> Iterator[Metric]:
    """What several have said, as one, each sample with its process; and who has said anything."""
    families: dict[str, Metric] = {}
    for process, text in sorted(said.items()):
        for name, told, kind, samples in orjson.loads(text):
            family = families.setdefault(name, Metric(name, told, kind))
            for sample, labels, value in samples:
                family.add_sample(sample, {**labels, "process": str(process)}, value)
    yield from families.values()
    yield _by(
        "process_up",
        "Which processes of this node have told what they counted",
        "process",
        ((str(process), 1.0) for process in sorted(said)),
    )


def of_process(ctx: Context) -> Iterator[Metric]:
    """What this process counted, how it is, and what it uses."""
    yield from counted(ctx)
    now = process_gauges(ctx)
    for name, told, value in (
        ("running_requests", "Paid requests under way here", now.running),
        ("one_shots_waiting", "Payments for one request whose hold is not made", now.one_shots),
        ("tasks", "Tasks that outlive their request", now.tasks),
        ("ledger_queue", "Commands that wait for the ledger", now.ledger_queued),
    ):
        yield GaugeMetricFamily(f"routstr_{name}", told, value=value)
    yield from _of_upstreams(now)
    yield from ProcessCollector(registry=None).collect()


def is_from_here(request: Request, ctx: Context) -> bool:
    """Whether a program on this machine calls, not a web page, and nobody through a proxy.

    Not every proxy says so: Tor passes on what a visitor sends, and others add nothing unless they
    are told to. So a node with a public address takes nobody's word for it.
    """
    host = "" if request.client is None else request.client.host
    if ctx.facts.http_url or ctx.facts.onion_url or not host.startswith(LOOPBACK):
        return False
    told = any(name in request.headers for name in (*FORWARDED, *BROWSER))
    return not told and is_local_name(request.headers.get("host", ""))


class _Given:
    """Families that were made already, as a registry wants them."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


# ── since the start ───────────────────────────────────────────────────────────────────────────


def counted(ctx: Context) -> Iterator[Metric]:
    """The counters and histograms of this process."""
    meters, ledger = ctx.meters, ctx.ledger
    requests = CounterMetricFamily(
        "routstr_requests", "Requests to buy something, by what became of them", labels=["outcome"]
    )
    for outcome, ended in sorted(meters.ended.items()):
        requests.add_metric([outcome], ended.requests)
    requests.add_metric(["refused"], sum(meters.refused.values()))
    requests.add_metric(["replayed"], meters.replayed)
    yield requests
    for name, told in (
        ("charged_msat", "What was charged"),
        ("absorbed_msat", "What it cost beyond that, at the operator's expense"),
        ("at_risk_msat", "What was held for requests that came to nothing"),
    ):
        family = CounterMetricFamily(f"routstr_{name}", told, labels=["outcome"])
        for outcome, ended in sorted(meters.ended.items()):
            family.add_metric([outcome], getattr(ended, name))
        yield family
    refusals = CounterMetricFamily(
        "routstr_refusals", "Requests that were refused before money was held", labels=["code"]
    )
    for code, count in sorted(meters.refused.items()):
        refusals.add_metric([code], count)
    yield refusals
    yield _seconds("routstr_request_seconds", "A request in all", meters.total_us)
    yield _seconds("routstr_first_byte_seconds", "A stream until its first byte", meters.first_us)
    yield _seconds("routstr_added_seconds", "What of that the node itself took", meters.added_us)
    yield _histogram("routstr_ledger_batch_size", "Commands in one commit", ledger.batch_sizes, 1)
    yield _seconds("routstr_ledger_commit_seconds", "A commit in all", ledger.commit_us)


def _seconds(name: str, told: str, histogram: Histogram) -> Metric:
    return _histogram(name, told, histogram, US_PER_S)


def _histogram(name: str, told: str, histogram: Histogram, per: int) -> Metric:
    buckets = [
        ("+Inf" if bound is None else f"{bound / per:g}", float(count))
        for bound, count in histogram.cumulative()
    ]
    family = HistogramMetricFamily(name, told)
    family.add_metric([], buckets, histogram.total / per)
    return family


# ── at this moment ────────────────────────────────────────────────────────────────────────────


def measured(now: Gauges) -> Iterator[Metric]:
    """How the node, its mints, jobs and books are: what all its processes see alike."""
    for name, told, value in (
        ("exposure_msat", "What all holds promise together", now.exposure_msat),
        ("exposure_msat_max", "The most they may", now.exposure_msat_max),
    ):
        yield GaugeMetricFamily(f"routstr_{name}", told, value=value)
    yield _by(
        "mint_operations", "Calls to mints not settled, by state", "state", now.operations.items()
    )
    silent = ((url, age_s) for url, age_s in now.mint_silent_s.items() if age_s is not None)
    yield _by("mint_silent_seconds", "Since the mint last answered", "mint", silent)
    yield _by("audit_breaches", "What the last audit found", "invariant", now.breaches.items())
    yield _by("paused", "Whether the operator paused it", "what", now.paused.items())
    done = [each for each in now.jobs if each.ok is not None and each.age_s is not None]
    yield _by("job_ok", "Whether its last run went well", "job", ((j.name, j.ok) for j in done))
    ages = ((each.name, each.age_s) for each in done)
    yield _by("job_age_seconds", "Since its last run", "job", ages)


def _of_upstreams(now: ProcessGauges) -> Iterator[Metric]:
    each = now.upstreams
    yield _by(
        "upstream_up",
        "Whether it is asked, 0 while it is left alone",
        "upstream",
        ((up.slug, up.state is not State.OPEN) for up in each),
    )
    yield _by(
        "upstream_failures",
        "Failures in a row",
        "upstream",
        ((up.slug, up.failures) for up in each),
    )
    yield _by(
        "upstream_running",
        "Requests under way there",
        "upstream",
        ((up.slug, up.running) for up in each),
    )
    yield _by(
        "upstream_latency_seconds",
        "To an answer's head, a moving average",
        "upstream",
        ((up.slug, up.latency_s) for up in each if up.latency_s is not None),
    )


def _by(
    name: str, told: str, label: str, values: Iterable[tuple[str, float | None]]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"routstr_{name}", told, labels=[label])
    for value_of, value in values:
        family.add_metric([value_of], float(value or 0))
    return family
