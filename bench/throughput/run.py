"""A whole run, part by part: who is asked what, and what was found of it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Final

from bench.finding import STUMBLES, FellShort, complaint
from bench.throughput import instant
from bench.throughput.figures import Found, at
from bench.throughput.machine import Cores
from bench.throughput.measures import Contender, Plan, streamed, whole
from bench.throughput.node import BenchNode
from bench.throughput.stage import KEYS, POSTGRES, Stage, contender
from bench.throughput.usage import rss_kib
from demo.mint import RealMint

CONNECTIONS: Final = (64, 16, 1)
STREAMS: Final = (64, 1)
SECONDS: Final = 4
ROUNDS: Final = 3

SOAK_REQUESTS: Final = 100_000
SOAK_STEP_S: Final = 10

# Of the whole matrix, each asked once.
ALL_CONNECTIONS: Final = (1, 16, 64, 512)
MANY_KEYS: Final = 10_000
SIZES: Final = ("small", "large")

Part = tuple[str, Found]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What of it all."""

    peers: bool = False
    full: bool = False


def measure(wanted: Wanted, home: Path, cores: Cores) -> Iterator[Part]:
    """Every part that is wanted, as soon as it is found.

    Raises FellShort at the end if one of them could not be finished.
    """
    parts = [_whole_answers, _streams, _instant, *([_matrix] if wanted.full else [])]
    complaints: list[str] = []
    with Stage.open(home, cores, with_peers=wanted.peers) as stage:
        for part in parts:
            try:
                yield from part(stage)
            except STUMBLES as error:
                complaints.append(complaint(error))
        yield "books", {"books": stage.books}
    if complaints:
        raise FellShort("; ".join(complaints))


def _whole_answers(stage: Stage) -> Iterator[Part]:
    """By turns with everybody, and then what all the requests left in memory."""
    with stage.node() as node:
        lite, idle_mib, asked = contender(node), rss_kib(node.process.pid) / 1024, 0.0
        with stage.postgres_node() as other:
            for connections in CONNECTIONS:
                all_ = [*stage.yardsticks, lite, contender(other, POSTGRES)]
                all_ += stage.peers if connections > 1 else []
                plan = Plan(connections=connections, seconds=SECONDS, rounds=ROUNDS)
                found = stage.found(whole(all_, plan, stage.home))
                asked += _asked(found)
                yield "whole", found
            stage.close_books(other)
        plan = Plan(connections=KEYS, seconds=SOAK_STEP_S, rounds=1)
        while asked < SOAK_REQUESTS:
            asked += _asked(stage.found(whole([lite], plan, stage.home)))
        grown_mib = rss_kib(node.process.pid) / 1024 - idle_mib
        memory = {"idle_mib": idle_mib, "grown_mib": grown_mib, "requests": asked}
        yield "memory", {"memory node": memory}
        stage.close_books(node)


def _asked(found: Found) -> float:
    """How many requests the node on SQLite answered."""
    lite = [name for name in found if " node sqlite " in name]
    return sum(at(found, name, "requests") or 0 for name in lite)


def _streams(stage: Stage) -> Iterator[Part]:
    with stage.node({"UPSTREAM_BASE_URL": stage.upstream.stream_url}) as node:
        for connections in STREAMS:
            all_ = [*stage.yardsticks, contender(node), *stage.peers]
            plan = Plan(connections=connections, seconds=SECONDS, rounds=ROUNDS)
            yield "stream", stage.found(streamed(all_, plan))
        stage.close_books(node)


def _instant(stage: Stage) -> Iterator[Part]:
    with (
        RealMint(stage.home / "mint") as mint,
        stage.node({**instant.SETTINGS, "CASHU_MINTS": mint.url}, keys=0) as node,
    ):
        figures = instant.pay(node, mint)
        stage.books["failed"] += figures["failed"]
        yield "instant", {"instant node": figures}
        stage.close_books(node)


def _matrix(stage: Stage) -> Iterator[Part]:
    """Everything against everything, once: connections, keys, database, size of the body."""
    urls = {"whole": stage.upstream.api_url, "stream": stage.upstream.stream_url}
    for part, url in urls.items():
        base = {"UPSTREAM_BASE_URL": url}
        with (
            stage.node(base, keys=MANY_KEYS) as lite,
            stage.postgres_node(base, keys=MANY_KEYS) as other,
        ):
            for size, keys, connections in product(SIZES, (1, MANY_KEYS), ALL_CONNECTIONS):
                plan = Plan(
                    connections=connections, seconds=SECONDS, rounds=1, keys=keys, body=size
                )
                all_ = [*stage.yardsticks, _with(lite, keys), _with(other, keys, POSTGRES)]
                answers = whole(all_, plan, stage.home) if part == "whole" else streamed(all_, plan)
                yield part, stage.found(answers)
            stage.close_books(lite)
            stage.close_books(other)


def _with(node: BenchNode, keys: int, database: str = "sqlite") -> Contender:
    """The node, asked with one hot key or with all of them."""
    made = contender(node, database)
    return replace(made, keys_file=node.one_key_file) if keys == 1 else made
