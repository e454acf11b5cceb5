"""The stage of a run: upstream, yardsticks and peers that are there all the time, and nodes.

What serves is on one core. The harness itself, and so whatever it starts without saying where, is
on the other one.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from bench.throughput.figures import Answer, Figures, Found, together
from bench.throughput.machine import Cores, on_core
from bench.throughput.measures import Contender
from bench.throughput.nginx import MockUpstream, PlainProxy
from bench.throughput.node import BenchNode
from bench.throughput.peers import peers
from tests.harness.postgres import EmbeddedPostgres

KEYS: Final = 64
SQLITE: Final = "sqlite"
POSTGRES: Final = "postgresql"


@dataclass(slots=True, kw_only=True)
class Stage:
    """Everybody but the nodes, running; and what must be 0 over all of it."""

    home: Path
    cores: Cores
    upstream: MockUpstream
    proxy: PlainProxy
    peers: list[Contender] = field(default_factory=list)
    books: Figures = field(default_factory=lambda: {"failed": 0, "reserved_msat": 0})
    nodes: int = 0

    @classmethod
    @contextmanager
    def open(cls, home: Path, cores: Cores, *, with_peers: bool) -> Iterator[Self]:
        """All of them, till the block ends. Raises NotReady when peers are not installed."""
        with ExitStack() as running:
            running.enter_context(on_core(cores.loading))
            upstream = running.enter_context(MockUpstream(home / "upstream"))
            proxy = PlainProxy(home / "proxy", upstream, core=cores.serving)
            running.enter_context(proxy)
            stage = cls(home=home, cores=cores, upstream=upstream, proxy=proxy)
            if with_peers:
                stage.peers = running.enter_context(peers(home, upstream, core=cores.serving))
            yield stage

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
        self, settings: Mapping[str, str] | None = None, *, keys: int = KEYS
    ) -> Iterator[BenchNode]:
        """A node with funded keys, running, before the upstream's whole answers unless the settings
        say otherwise."""
        self.nodes += 1
        node = BenchNode(
            self.home / f"node-{self.nodes}",
            core=self.cores.serving,
            settings={"UPSTREAM_BASE_URL": self.upstream.api_url, **(settings or {})},
        )
        if keys:
            node.fund(keys)
        with node:
            yield node

    @contextmanager
    def postgres_node(
        self, settings: Mapping[str, str] | None = None, *, keys: int = KEYS
    ) -> Iterator[BenchNode]:
        """The same on a PostgreSQL of its own, which keeps the durable defaults."""
        with on_core(self.cores.database):
            server = EmbeddedPostgres()
            try:
                url = server.start().create_database()
            except BaseException:
                server.remove()
                raise
        try:
            with self.node({**(settings or {}), "DATABASE_URL": url}, keys=keys) as node:
                yield node
        finally:
            server.remove()

    def found(self, answers: Iterable[Answer]) -> Found:
        """The rounds as one, with what each adds to direct; the nodes' failures are counted."""
        found = together(answers)
        direct = next((each for name, each in found.items() if " direct " in name), {})
        for name, figures in found.items():
            for figure in ("p50_ms", "first_ms"):
                if figure in direct and " direct " not in name:
                    figures["added_ms"] = figures[figure] - direct[figure]
            if " node " in name:
                self.books["failed"] += figures["failed"]
        return found

    def close_books(self, node: BenchNode) -> None:
        """Audit them in full, and add what is still reserved. Raises FellShort if not clean."""
        self.books["reserved_msat"] += node.audit()


def contender(node: BenchNode, database: str = SQLITE) -> Contender:
    """A node as somebody to measure."""
    return Contender(
        name="node",
        url=node.api_url,
        pid=node.process.pid,
        database=database,
        keys_file=node.keys_file,
        commits=node.commits,
    )
