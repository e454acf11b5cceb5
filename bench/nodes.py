"""Several processes and nodes on one PostgreSQL: shared load, notices, limits, deaths, restarts.

Every node is `routstr serve` as an operator has it; the balancer is Caddy with the tree's own
Caddyfile, the mint and the upstream are the demo's.
"""

import asyncio
import signal
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from bench.buyers import Crowd
from bench.finding import Finding, stumbled
from demo.mint import RealMint
from demo.servers import DemoUpstream
from routstr.cli.shared import acting
from routstr.flows.hear import HEARD_LOOK_S
from routstr.flows.house.settings import FOLLOW_S, change_settings
from routstr.log import configure
from tests.fakes.pooler import Pooler
from tests.harness.cluster import Balancer, ClusterNode
from tests.harness.databases import run_migrations
from tests.harness.postgres import EmbeddedPostgres, Postgres, installed_programs

CLIENTS: Final = 16
WORKERS: Final = 2
SHARED_REQUESTS: Final = 600
SHARE_MAX: Final = 0.75
CHANGES: Final = 20
HEARD_MS_MAX: Final = 500
FOLLOWED_MS_MAX: Final = 2 * 1000 * FOLLOW_S
JOBS_S: Final = 8.0
PER_MINUTE: Final = 100
KILL_AFTER_S: Final = 4.0
RESOLVED_S_MAX: Final = 15.0
LOAD_S: Final = 3.0
DRAIN_S: Final = 3
FUNDS_SAT: Final = 20_000
START_S: Final = 30.0
POLL_S: Final = 0.002

WATCH_JOBS: Final = """
CREATE TABLE seen_job (name text, owner text, at timestamptz, due timestamptz, until timestamptz);
CREATE FUNCTION see_job() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF NEW.started_at IS DISTINCT FROM OLD.started_at THEN INSERT INTO seen_job VALUES
    (NEW.name, NEW.lease_owner, NEW.started_at, OLD.next_run_at, OLD.lease_until);
  END IF; RETURN NEW; END $$;
CREATE TRIGGER see_job AFTER UPDATE ON job_run FOR EACH ROW EXECUTE FUNCTION see_job();
"""
HELD_A_MINUTE: Final = """
SELECT max(count) FROM (
  SELECT count(*) FROM reservation GROUP BY date_trunc('minute', created_at)) per_minute
"""


@dataclass(slots=True, kw_only=True)
class Place:
    """A server of databases, a mint and an upstream; each proof makes its own nodes."""

    home: Path
    postgres: EmbeddedPostgres
    mint: RealMint
    upstream: DemoUpstream
    stack: ExitStack
    nodes: int = 0
    url: str = field(default="", repr=False)

    def new_database(self) -> Postgres:
        """A new node's, migrated; what asks it beside the nodes."""
        self.url = self.postgres.create_database()
        run_migrations(self.url)
        return Postgres(self.url, installed_programs())

    async def node(self, *, url: str = "", workers: int = 1, **settings: str) -> ClusterNode:
        """One more node on it, serving."""
        self.nodes += 1
        node = ClusterNode(
            self.home / f"node-{self.nodes}",
            database_url=url or self.url,
            mint_url=self.mint.url,
            upstream_url=self.upstream.api_url,
            workers=workers,
            **settings,
        )
        self.stack.callback(node.stop)
        return await asyncio.to_thread(node.start)


def prove() -> Iterator[Finding]:
    """One finding after the other, each on a database of its own."""
    configure("CRITICAL", json=False)
    with ExitStack() as running:
        home = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="routstr-nodes-")))
        postgres = EmbeddedPostgres()
        running.callback(postgres.remove)
        postgres.start()
        mint = running.enter_context(RealMint(home / "mint"))
        slow = ["--chunk-delay-ms", "20", "--answer-words", "60"]
        upstream = running.enter_context(DemoUpstream(home / "upstream", options=slow))
        for what, part in PARTS.items():
            with stumbled(what) as failed, ExitStack() as stack:
                place = Place(
                    home=home, postgres=postgres, mint=mint, upstream=upstream, stack=stack
                )
                yield asyncio.run(part(place))
            yield from failed


# ── the proofs ────────────────────────────────────────────────────────────────────────────────


async def workers_share(place: Place) -> Finding:
    """Two processes on one port: how the requests of many connections fall to them."""
    place.new_database()
    node = await place.node(workers=WORKERS)
    await _until(lambda: node.log.count("Started server process") == WORKERS, "both serve")
    async with crowd(place, node) as people:
        key = await people.key(FUNDS_SAT)
        before = [_cpu_ticks(pid) for pid in node.worker_pids]
        await people.whole(key, node.url, SHARED_REQUESTS, at_once=64)
        spent = [
            _cpu_ticks(pid) - ticks for pid, ticks in zip(node.worker_pids, before, strict=True)
        ]
    share = max(spent) / sum(spent)
    served = people.statuses == {httpx.codes.OK: SHARED_REQUESTS}
    return Finding(
        what=f"{SHARED_REQUESTS} requests over 64 connections to {WORKERS} workers",
        found=f"the busier one has {share:.0%} of the work",
        must=f"all served, at most {SHARE_MAX:.0%}",
        ok=served and share <= SHARE_MAX,
        figures={"busiest_worker": f"{share:.0%}"},
    )


async def changes_are_heard(place: Place) -> Finding:
    """A setting changed in one process, until it is in force in both others."""
    place.new_database()
    took_ms = await _changes(place, place.url)
    return Finding(
        what=f"{CHANGES} changes of a setting, until in force in two other nodes",
        found=f"{statistics.median(took_ms):.0f} ms, at most {max(took_ms):.0f} ms",
        must=f"at most {HEARD_MS_MAX} ms (who hears nothing looks every {HEARD_LOOK_S:.0f} s)",
        ok=max(took_ms) <= HEARD_MS_MAX,
        figures={"heard_ms": round(max(took_ms))},
    )


async def changes_are_found(place: Place) -> Finding:
    """The same through a pooler that swallows notices: by looking."""
    place.new_database()
    async with Pooler("127.0.0.1", place.postgres.port) as pooler:
        url = place.url.replace(f":{place.postgres.port}/", f":{pooler.port}/") + "?ssl=disable"
        took_ms = await _changes(place, url)
        swallowed = pooler.swallowed
    return Finding(
        what="the same through a pooler that swallows notices",
        found=f"{statistics.median(took_ms):.0f} ms, at most {max(took_ms):.0f} ms",
        must=f"at most {FOLLOWED_MS_MAX:.0f} ms, by looking every {FOLLOW_S:.0f} s",
        ok=max(took_ms) <= FOLLOWED_MS_MAX and swallowed > 0,
        figures={"looked_ms": round(max(took_ms))},
    )


async def jobs_once(place: Place) -> Finding:
    """Every start of a shared job, as the database saw it."""
    database = place.new_database()
    database.execute(WATCH_JOBS)
    for _ in range(2):
        await place.node(EXPIRE_EVERY_S="0.2", REDEEM_EVERY_S="0.2", REFILL_EVERY_S="0.3")
    await asyncio.sleep(JOBS_S)
    runs = int(database.execute("SELECT count(*) FROM seen_job"))
    owners = int(database.execute("SELECT count(DISTINCT owner) FROM seen_job"))
    twice = int(database.execute("SELECT count(*) FROM seen_job WHERE at < due OR at <= until"))
    return Finding(
        what=f"jobs of two nodes in {JOBS_S:.0f} s",
        found=f"{runs} runs by {owners}, {twice} of them too early or beside another",
        must="0",
        ok=twice == 0 and runs > 0,
        figures={"jobs_twice": twice},
    )


async def limits_together(place: Place) -> Finding:
    """A key that may ask so often in a minute asks two nodes at once."""
    database = place.new_database()
    nodes = [await place.node(KEY_REQUESTS_PER_MINUTE=str(PER_MINUTE)) for _ in range(2)]
    async with crowd(place, nodes[0]) as people:
        key = await people.key(FUNDS_SAT)
        await asyncio.gather(
            *(people.whole(key, node.url, PER_MINUTE, at_once=CLIENTS) for node in nodes)
        )
        held = int(database.execute(HELD_A_MINUTE))
    return Finding(
        what=f"{2 * PER_MINUTE} requests to two nodes with {PER_MINUTE} a minute",
        found=f"{held} in the fullest minute of the clock",
        must=f"{PER_MINUTE}",
        ok=held == PER_MINUTE and set(people.statuses) <= {200, 429},
        figures={"rate_limit_exact": held == PER_MINUTE},
    )


async def a_node_dies(place: Place) -> Finding:
    """Kill -9 of one of two in the middle of streams and whole answers."""
    database = place.new_database()
    nodes = [await place.node() for _ in range(2)]
    async with crowd(place, nodes[1]) as people:
        keys = [await people.key(FUNDS_SAT // CLIENTS) for _ in range(CLIENTS)]
        loads = [
            asyncio.create_task(people.load(key, nodes[number % 2].url))
            for number, key in enumerate(keys)
        ]
        await asyncio.sleep(KILL_AFTER_S)
        nodes[0].kill()
        began_s = time.monotonic()
        then = database.execute("SELECT now()")
        left = f"SELECT count(*) FROM reservation WHERE state = 'held' AND created_at <= '{then}'"  # noqa: S608 - the database's own time
        held = int(database.execute(left))
        await _until(lambda: database.execute(left) == "0", "no hold of then is left")
        resolved_s = time.monotonic() - began_s
        people.end()
        await asyncio.gather(*loads)
        lost_msat = sum([await people.lost_msat(key, nodes[1].url) for key in keys])
        breaches = await nodes[1].breaches()
    return Finding(
        what=f"kill -9 of one of two nodes, {held} requests under way",
        found=f"{lost_msat} msat lost, all holds over in {resolved_s:.1f} s",
        must=f"0 msat, audit clean, within {RESOLVED_S_MAX:.0f} s",
        ok=lost_msat == 0 and not breaches and resolved_s <= RESOLVED_S_MAX and held > 0,
        figures={"lost_msat": lost_msat, "resolved_s": round(resolved_s, 1)},
        complaints=tuple(map(str, breaches)),
    )


async def nodes_are_replaced(place: Place) -> Finding:
    """Both nodes told to stop and started again, one after the other, behind Caddy."""
    place.new_database()
    nodes = [await place.node(SHUTDOWN_DRAIN_S=str(DRAIN_S)) for _ in range(2)]
    balancer = Balancer(place.home / "caddy", nodes=nodes)
    place.stack.callback(balancer.stop)
    await asyncio.to_thread(balancer.start)
    async with crowd(place, nodes[0]) as people:
        keys = [await people.key(FUNDS_SAT // CLIENTS) for _ in range(CLIENTS)]
        loads = [asyncio.create_task(people.load(key, balancer.url)) for key in keys]
        for node in nodes:
            await asyncio.sleep(LOAD_S)
            node.process.send(signal.SIGTERM)
            status = await asyncio.to_thread(node.process.wait_exit, START_S)
            await asyncio.to_thread(node.start)
        await asyncio.sleep(LOAD_S)
        people.end()
        await asyncio.gather(*loads)
        lost_msat = sum([await people.lost_msat(key, nodes[0].url) for key in keys])
        breaches = await nodes[0].breaches()
    asked = people.asked
    return Finding(
        what=f"both of two nodes replaced behind Caddy, {CLIENTS} clients, half of it streams",
        found=f"{people.failed} of {asked} requests failed, {lost_msat} msat lost",
        must="0 failed, 0 msat, audit clean",
        ok=people.failed == 0 and asked > 0 and lost_msat == 0 and not breaches and status == 0,
        figures={"restart_failed": f"{people.failed}/{asked}"},
        complaints=(*map(str, breaches), *people.complaints[:3]),
    )


PARTS: Final[dict[str, Callable[[Place], Coroutine[None, None, Finding]]]] = {
    "workers share the load": workers_share,
    "changes are heard": changes_are_heard,
    "changes are found": changes_are_found,
    "jobs run once": jobs_once,
    "limits hold together": limits_together,
    "a node dies": a_node_dies,
    "nodes are replaced": nodes_are_replaced,
}


# ── what they need ────────────────────────────────────────────────────────────────────────────


async def _changes(place: Place, url: str) -> list[float]:
    """How long each of some changes took to be in force in two nodes on that URL, in ms."""
    nodes = [await place.node(url=url) for _ in range(2)]
    settings = nodes[0].checked_settings()
    took_ms = []
    async with acting(settings) as ctx, httpx.AsyncClient(trust_env=False) as http:
        assert ctx.notices is not None
        telling = asyncio.create_task(ctx.notices.run())
        await asyncio.sleep(1)
        for number in range(CHANGES):
            wanted = number % 2 == 1
            await change_settings(ctx, {"spending": wanted}, changed_by="bench")
            began_s = time.monotonic()
            await asyncio.gather(*(_in_force(http, node, wanted) for node in nodes))
            took_ms.append((time.monotonic() - began_s) * 1000)
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)
    return took_ms


async def _in_force(http: httpx.AsyncClient, node: ClusterNode, spending: bool) -> None:
    async with asyncio.timeout(START_S):
        while True:
            checks: dict[str, Any] = (await http.get(f"{node.url}/ready")).json()["checks"]
            if ("spending" in checks.get("paused", "")) is not spending:
                return
            await asyncio.sleep(POLL_S)


@asynccontextmanager
async def crowd(place: Place, node: ClusterNode) -> AsyncIterator[Crowd]:
    """Customers with money of the mint's."""
    async with Crowd.opened(place.mint, node.url) as people:
        yield people


async def _until(is_so: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + START_S
    while not await asyncio.to_thread(is_so):
        assert time.monotonic() < deadline_s, what
        await asyncio.sleep(0.05)


def _cpu_ticks(pid: int) -> int:
    """What a process has used, in the kernel's ticks."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
