"""The targets: what must be reached, what is aimed at, and what a run found of each.

Every one is a ratio inside one run, or a figure of the node itself; what a run did not measure
(without PEERS=1 nobody else is there) is not counted.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bench.throughput.figures import Figures, at

Found = Mapping[str, Figures]
Measure = Callable[[Found], float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One row of the table; `is_floor`: at least that much, else at most."""

    what: str
    unit: str
    must: float
    aim: float
    measure: Measure
    is_floor: bool = False

    def reaches(self, found: float, limit: float) -> bool:
        """Whether that is enough."""
        return found >= limit if self.is_floor else found <= limit

    def told(self, value: float) -> str:
        """A figure with its unit."""
        return f"{value:.3g} {self.unit}".strip() if value < 1000 else f"{value:.0f} {self.unit}"

    def limit(self, value: float) -> str:
        """A limit with its sign and unit."""
        return f"{'≥' if self.is_floor else '≤'} {self.told(value)}" if value else "0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """A target and what was found of it."""

    target: Target
    found: float | None

    @property
    def must(self) -> bool:
        """Whether it is what it must be."""
        return self.found is not None and self.target.reaches(self.found, self.target.must)

    @property
    def aim(self) -> bool:
        """Whether it is what we aim at."""
        return self.found is not None and self.target.reaches(self.found, self.target.aim)


def whole(who: str, connections: int, database: str = "") -> str:
    """The name of the question about whole answers that targets are of."""
    kept = f" {database}" if database else ""
    return f"whole {who}{kept} {connections} connections 64 keys small"


def stream(who: str, connections: int, database: str = "") -> str:
    """The same of streams."""
    return whole(who, connections, database).replace("whole", "stream", 1)


def _ratio(one: tuple[str, str], other: tuple[str, str]) -> Measure:
    def measure(found: Found) -> float | None:
        above, below = at(found, *one), at(found, *other)
        return above / below if above is not None and below else None

    return measure


def _added(one: tuple[str, str], other: tuple[str, str]) -> Measure:
    def measure(found: Found) -> float | None:
        after, before = at(found, *one), at(found, *other)
        return None if after is None or before is None else max(0.0, after - before)

    return measure


def _figure(name: str, figure: str) -> Measure:
    return lambda found: at(found, name, figure)


NODE: Final = "node"
LITE: Final = "sqlite"

TARGETS: Final[Sequence[Target]] = (
    Target(
        what="CPU per paid request against nginx's plain proxying, 64 concurrent",
        unit="x", must=28, aim=15,
        measure=_ratio((whole(NODE, 64, LITE), "cpu_us"), (whole("nginx", 64), "cpu_us")),
    ),
    Target(
        what="paid requests/s against Portkey, which charges nothing, 64 concurrent",
        unit="x", must=3, aim=6, is_floor=True,
        measure=_ratio((whole(NODE, 64, LITE), "per_second"), (whole("portkey", 64), "per_second")),
    ),
    Target(
        what="paid requests/s against LiteLLM, one key and no database, 64 concurrent",
        unit="x", must=50, aim=100, is_floor=True,
        measure=_ratio((whole(NODE, 64, LITE), "per_second"), (whole("litellm", 64), "per_second")),
    ),
    Target(
        what="… 16 concurrent",
        unit="x", must=35, aim=60, is_floor=True,
        measure=_ratio((whole(NODE, 16, LITE), "per_second"), (whole("litellm", 16), "per_second")),
    ),
    Target(
        what="added p50 at 1 concurrent",
        unit="ms", must=2.5, aim=1.2,
        measure=_added((whole(NODE, 1, LITE), "p50_ms"), (whole("direct", 1), "p50_ms")),
    ),
    Target(
        what="p99 at 64 concurrent",
        unit="ms", must=40, aim=20,
        measure=_figure(whole(NODE, 64, LITE), "p99_ms"),
    ),
    Target(
        what="time to first token added at 1 concurrent stream, p50",
        unit="ms", must=5, aim=3,
        measure=_added((stream(NODE, 1, LITE), "first_ms"), (stream("direct", 1), "first_ms")),
    ),
    Target(
        what="time to first token at 64 concurrent streams, p99",
        unit="ms", must=40, aim=25,
        measure=_figure(stream(NODE, 64, LITE), "first_p99_ms"),
    ),
    Target(
        what="CPU per streamed chunk against Portkey, 64 concurrent",
        unit="x", must=0.6, aim=0.35,
        measure=_ratio((stream(NODE, 64, LITE), "chunk_us"), (stream("portkey", 64), "chunk_us")),
    ),
    Target(
        what="resident memory, idle",
        unit="MiB", must=130, aim=100,
        measure=_figure("memory node", "idle_mib"),
    ),
    Target(
        what="… grown after 100,000 requests",
        unit="MiB", must=30, aim=10,
        measure=_figure("memory node", "grown_mib"),
    ),
    Target(
        what="requests/s on PostgreSQL against SQLite, 64 concurrent",
        unit="x", must=0.5, aim=0.9, is_floor=True,
        measure=_ratio(
            (whole(NODE, 64, "postgresql"), "per_second"), (whole(NODE, 64, LITE), "per_second")
        ),
    ),
    Target(
        what="instant payment by 6 locked proofs with DLEQ, CPU per request",
        unit="ms", must=6, aim=2.5,
        measure=_figure("instant node", "cpu_ms"),
    ),
    Target(
        what="failed requests, of all those above",
        unit="", must=0, aim=0,
        measure=_figure("books", "failed"),
    ),
    Target(
        what="msat still reserved after the load, the audit being clean",
        unit="", must=0, aim=0,
        measure=_figure("books", "reserved_msat"),
    ),
)  # fmt: skip


def reached(found: Found) -> list[Reached]:
    """Every target beside what was found of it."""
    return [Reached(target=target, found=target.measure(found)) for target in TARGETS]


def last_line(rows: Sequence[Reached]) -> str:
    """How many of those that were measured are reached."""
    measured = [row for row in rows if row.found is not None]
    must, aim = (sum(each) for each in ([row.must for row in measured], [r.aim for r in measured]))
    return f"must={must}/{len(measured)} aim={aim}/{len(measured)}"
