"""The measuring itself: one question put to one contender for some seconds.

A contender is whoever stands between load and upstream: nobody, nginx, the node, a peer. Rounds go
over all contenders by turns, so that what slows the machine for a minute slows them all.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.throughput import streams, wrk
from bench.throughput.figures import Answer, Figures, Question
from bench.throughput.node import Commits
from bench.throughput.usage import Watched

WARM_UP_S: Final = 2
MODEL: Final = "demo/small"
PROMPT: Final = "Say hello to everybody in this room, please."
LARGE_BYTES: Final = 400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """Somebody to measure. `pid` is of the process whose time counts; `seconds` is its minimum.

    `stream_url` is `url` unless it says otherwise. `headers` go with each request, `stream_headers`
    with each stream; `keys_file` has its credentials, one a line.
    """

    name: str
    url: str
    stream_url: str = ""
    pid: int | None = None
    database: str = ""
    keys_file: Path | None = None
    headers: tuple[str, ...] = ()
    stream_headers: tuple[str, ...] = ()
    seconds: int = 0
    stream_model: str = MODEL
    commits: Callable[[], Commits] | None = None

    def target(self, *, is_stream: bool = False) -> wrk.Target:
        """Where its load goes."""
        base = (self.stream_url or self.url) if is_stream else self.url
        return wrk.Target(
            url=f"{base}/chat/completions",
            keys_file=self.keys_file,
            headers=self.stream_headers if is_stream else self.headers,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One question for all: how many at once, for how long, how often."""

    connections: int
    seconds: int
    rounds: int = 3
    keys: int = 64
    body: str = "small"


def body(kind: str, *, model: str = MODEL, is_stream: bool = False) -> bytes:
    """A request's body: small, or of 400 kB."""
    prompt = PROMPT if kind == "small" else PROMPT * (LARGE_BYTES // len(PROMPT))
    asked: dict[str, object] = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": 64,
    }
    if is_stream:
        asked |= {"stream": True, "stream_options": {"include_usage": True}}
    return json.dumps(asked, separators=(",", ":")).encode()


def whole(contenders: Sequence[Contender], plan: Plan, home: Path) -> Iterator[Answer]:
    """Whole answers, by turns; what the first seconds find is thrown away."""
    for number in range(plan.rounds):
        for each in contenders:
            if number == 0:
                _whole_once(each, plan, home, seconds=WARM_UP_S)
            yield _whole_once(each, plan, home, seconds=max(plan.seconds, each.seconds))


def streamed(contenders: Sequence[Contender], plan: Plan) -> Iterator[Answer]:
    """Streams, by turns, after one second of them that is thrown away."""
    for number in range(plan.rounds):
        for each in contenders:
            if number == 0:
                _streams_once(each, plan, seconds=1)
            yield _streams_once(each, plan, seconds=max(plan.seconds, each.seconds))


def _whole_once(who: Contender, plan: Plan, home: Path, *, seconds: int) -> Answer:
    body_file = home / f"body-{who.name}-{plan.body}"
    body_file.write_bytes(body(plan.body))
    commits = None if who.commits is None else who.commits()
    watched = None if who.pid is None else Watched(who.pid)
    load = wrk.run(who.target(), body_file, connections=plan.connections, seconds=seconds)
    figures: Figures = {
        "per_second": load.per_second,
        "p50_ms": load.p50_us / 1000,
        "p99_ms": load.p99_us / 1000,
        "requests": load.requests,
        "failed": load.failed,
    }
    if watched is not None and load.requests:
        figures["cpu_us"] = watched.used_us() / load.requests
    if commits is not None and who.commits is not None:
        figures["commands_per_commit"] = who.commits().since(commits)
    return Answer(question=_question("whole", who, plan), figures=figures)


def _streams_once(who: Contender, plan: Plan, *, seconds: int) -> Answer:
    watched = None if who.pid is None else Watched(who.pid)
    asked = body(plan.body, model=who.stream_model, is_stream=True)
    load = streams.run(
        who.target(is_stream=True), asked, connections=plan.connections, seconds=seconds
    )
    figures: Figures = {
        "first_ms": load.percentile(load.first_ms, 50),
        "first_p99_ms": load.percentile(load.first_ms, 99),
        "total_ms": load.percentile(load.total_ms, 50),
        "streams": load.streams,
        "failed": load.failed,
    }
    if watched is not None and load.events:
        figures["chunk_us"] = watched.used_us() / load.events
    return Answer(question=_question("stream", who, plan), figures=figures)


def _question(part: str, who: Contender, plan: Plan) -> Question:
    return Question(
        part=part,
        who=who.name,
        database=who.database,
        connections=plan.connections,
        keys=plan.keys,
        body=plan.body,
    )
