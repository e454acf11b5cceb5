"""A whole run, part by part: who is there, what they are asked, what was found of it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.throughput.figures import Answer, Figures, Found, together
from bench.throughput.machine import Cores, on_core
from bench.throughput.measures import Contender, Plan, streamed, whole
from bench.throughput.nginx import MockUpstream, PlainProxy
from bench.throughput.node import BenchNode
from bench.throughput.usage import rss_kib

KEYS: Final = 64
MANY_KEYS: Final = 10_000
SOAK_REQUESTS: Final = 100_000
SOAK_STEP_S: Final = 10
SECONDS: Final = 4
ROUNDS: Final = 3
CONNECTIONS: Final = (64, 16, 1)
Part = tuple[str, Found]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What of it all."""

    peers: bool = False
    full: bool = False


@dataclass(slots=True, kw_only=True)
class Scene:
    """The upstream and the yardstick, running; nodes are made beside them."""

    home: Path
    cores: Cores
    upstream: MockUpstream
    proxy: PlainProxy
    nodes: int = 0

    @property
    def yardsticks(self) -> list[Contender]:
        """Nobody in between, and nginx."""
        direct = Contender(
            name="direct", url=self.upstream.api_url, stream_url=self.upstream.stream_url
        )
        nginx = Contender(
            name="nginx",
            url=f"{self.proxy.url}/v1",
            stream_url=self.proxy.stream_url,
            pid=self.proxy.process.pid,
        )
        return [direct, nginx]

    @contextmanager
    def node(
        self, upstream_url: str, *, keys: int = KEYS, database_url: str = ""
    ) -> Iterator[BenchNode]:
        """A node with funded keys, running, in front of that upstream."""
        self.nodes += 1
        settings = {"UPSTREAM_BASE_URL": upstream_url}
        if database_url:
            settings["DATABASE_URL"] = database_url
        home = self.home / f"node-{self.nodes}"
        node = BenchNode(home, core=self.cores.serving, settings=settings)
        node.fund(keys)
        with node:
            yield node


def contender(node: BenchNode, database: str = "sqlite") -> Contender:
    """A node as somebody to measure."""
    return Contender(
        name="node",
        url=node.api_url,
        stream_url=node.api_url,
        pid=node.process.pid,
        database=database,
        keys_file=node.keys_file,
        commits=node.commits,
    )


def measure(wanted: Wanted, home: Path, cores: Cores) -> Iterator[Part]:
    """Every part that is wanted, as soon as it is found."""
    books: Figures = {"failed": 0, "reserved_msat": 0}
    with ExitStack() as running:
        running.enter_context(on_core(cores.loading))
        upstream = running.enter_context(MockUpstream(home / "upstream"))
        proxy = _Pinned(home / "proxy", upstream, core=cores.serving)
        running.enter_context(proxy)
        scene = Scene(home=home, cores=cores, upstream=upstream, proxy=proxy)
        yield from _parts(scene, wanted, books)
    yield "books", {"books": books}


class _Pinned(PlainProxy):
    """The plain proxy on the core that serves."""

    def __init__(self, directory: Path, upstream: MockUpstream, *, core: int) -> None:
        super().__init__(directory, upstream)
        self._core = core

    def argv(self) -> list[str]:
        return ["taskset", "-c", str(self._core), *super().argv()]


def _parts(scene: Scene, wanted: Wanted, books: Figures) -> Iterator[Part]:
    with scene.node(scene.upstream.api_url) as node:
        idle_mib = rss_kib(node.process.pid) / 1024
        node_ = contender(node)
        asked = 0.0
        for connections in CONNECTIONS:
            plan = Plan(connections=connections, seconds=SECONDS, rounds=ROUNDS)
            found = _found(list(whole([*scene.yardsticks, node_], plan, scene.home)), books)
            asked += sum(each.get("requests", 0) for each in found.values())
            yield "whole", found
        yield "memory", {"memory node": _soaked(node, node_, scene.home, idle_mib, books)}
        books["reserved_msat"] += node.audit()
    with scene.node(scene.upstream.stream_url) as node:
        for connections in (64, 1):
            plan = Plan(connections=connections, seconds=SECONDS, rounds=ROUNDS)
            yield (
                "stream",
                _found(list(streamed([*scene.yardsticks, contender(node)], plan)), books),
            )
        books["reserved_msat"] += node.audit()


def _found(answers: list[Answer], books: Figures) -> Found:
    """The rounds as one, with what each adds to direct, and the node's failures counted."""
    found = together(answers)
    direct = {name: figures for name, figures in found.items() if " direct " in name}
    for name, figures in found.items():
        for before in direct.values():
            for figure in ("p50_ms", "first_ms"):
                if name not in direct and figure in figures:
                    figures["added_ms"] = figures[figure] - before[figure]
        if " node " in name:
            books["failed"] += figures["failed"]
    return found


def _soaked(
    node: BenchNode, who: Contender, home: Path, idle_mib: float, books: Figures
) -> Figures:
    """Its memory after a hundred thousand requests, those before this included."""
    plan = Plan(connections=KEYS, seconds=SOAK_STEP_S, rounds=1)
    done = 0.0
    while done < SOAK_REQUESTS:
        (answer,) = whole([who], plan, home)
        done += answer.figures["requests"]
        books["failed"] += answer.figures["failed"]
    return {
        "idle_mib": idle_mib,
        "grown_mib": rss_kib(node.process.pid) / 1024 - idle_mib,
        "requests": done,
    }
