"""Two nodes on one database: what one may not, both may not; what one leaves, the other ends."""

import asyncio
import json
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx
import pytest

from demo.servers import DemoUpstream
from tests.fakes.mint import FakeMint
from tests.harness.cluster import Balancer, ClusterNode
from tests.harness.postgres import Postgres, installed_programs
from tests.nodes.conftest import WAIT_S, StartNode, funded, until

OK = httpx.codes.OK
FUNDS_SAT = 5_000
DRAIN_S = 2
PER_MINUTE = 10
TOO_MANY = httpx.codes.TOO_MANY_REQUESTS
WRONG = {"password": "not the password", "totp": "000000"}
HELD_A_MINUTE = """
SELECT max(count) FROM (
  SELECT count(*) FROM reservation GROUP BY date_trunc('minute', created_at)) per_minute
"""
TRIES = 4
# Every start of a shared job, with what the database said of the run before it.
WATCH_JOBS = """
CREATE TABLE seen_job (name text, owner text, at timestamptz, due timestamptz, until timestamptz);
CREATE FUNCTION see_job() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF NEW.started_at IS DISTINCT FROM OLD.started_at THEN INSERT INTO seen_job VALUES
    (NEW.name, NEW.lease_owner, NEW.started_at, OLD.next_run_at, OLD.lease_until);
  END IF; RETURN NEW; END $$;
CREATE TRIGGER see_job AFTER UPDATE ON job_run FOR EACH ROW EXECUTE FUNCTION see_job();
"""
RUNS = "SELECT count(*) FROM seen_job WHERE name = 'expire'"
TOO_EARLY = "SELECT count(*) FROM seen_job WHERE at < due OR at <= until"


@dataclass(slots=True)
class Streamed:
    """What a client has of a stream."""

    lines: list[str] = field(default_factory=list)
    is_whole: bool = False
    status: int = 0

    @property
    def cost_msat(self) -> int:
        told = [json.loads(line[10:]) for line in self.lines if line.startswith(": routstr ")]
        return int(told[-1]["cost"]["total_msats"]) if told else 0


def order(*, stream: bool = False, tokens: int = 16) -> Mapping[str, object]:
    message = {"role": "user", "content": "Say it slowly, please."}
    return {"model": "demo/small", "messages": [message], "max_tokens": tokens, "stream": stream}


async def stream(http: httpx.AsyncClient, url: str, key: str, seen: Streamed, tokens: int) -> None:
    """Read one to its end, or to where it breaks off."""
    headers = {"authorization": f"Bearer {key}"}
    body = order(stream=True, tokens=tokens)
    try:
        async with http.stream(
            "POST", f"{url}/v1/chat/completions", json=body, headers=headers
        ) as got:
            seen.status = got.status_code
            async for line in got.aiter_lines():
                seen.lines.append(line)
                seen.is_whole = seen.is_whole or line == "data: [DONE]"
    except httpx.TransportError:
        pass


def have_begun(streams: Sequence[Streamed]) -> bool:
    return all(len(each.lines) > 4 for each in streams)


async def reserved(http: httpx.AsyncClient, node: ClusterNode, key: str) -> tuple[int, int]:
    """The key's balance and what of it is held, in msat."""
    headers = {"authorization": f"Bearer {key}"}
    info = (await http.get(f"{node.url}/v1/balance/info", headers=headers)).json()
    return int(info["balance"]), int(info["reserved"])


async def settled(http: httpx.AsyncClient, node: ClusterNode, key: str) -> int:
    """The key's balance, once nothing is held of it."""
    async with asyncio.timeout(WAIT_S):
        while True:
            balance_msat, held_msat = await reserved(http, node, key)
            if held_msat == 0:
                return balance_msat
            await asyncio.sleep(0.05)


async def leaving(http: httpx.AsyncClient, node: ClusterNode) -> None:
    """Return once it says so, and gives connections up."""
    async with asyncio.timeout(WAIT_S):
        while (answer := await http.get(f"{node.url}/health")).headers.get("connection") != "close":
            pass
    assert (answer.status_code, answer.json()) == (503, {"status": "stopping"})


@pytest.fixture
def slow_upstream(tmp_path: Path) -> Iterator[DemoUpstream]:
    options = ["--chunk-delay-ms", "50", "--answer-words", "400"]
    with DemoUpstream(tmp_path / "slow", options=options) as upstream:
        yield upstream


async def test_the_other_one_resolves_what_a_dead_or_frozen_one_held(
    start: StartNode, slow_upstream: DemoUpstream, mint: FakeMint, http: httpx.AsyncClient
) -> None:
    frozen, other = (start(upstream_url=slow_upstream.api_url) for _ in range(2))
    key = await funded(http, other, mint, FUNDS_SAT)
    left_msat = FUNDS_SAT * 1000
    for number in (signal.SIGSTOP, signal.SIGKILL):
        *theirs, ours = seen = [Streamed() for _ in range(4)]
        tasks = [asyncio.create_task(stream(http, frozen.url, key, each, 300)) for each in theirs]
        tasks.append(asyncio.create_task(stream(http, other.url, key, ours, 20)))
        await until(partial(have_begun, seen), "all stream")
        frozen.process.send(number)
        await tasks[-1]
        assert ours.is_whole, ours.lines
        left_msat -= ours.cost_msat
        assert await settled(http, other, key) == left_msat  # their holds are free, uncharged
        if number == signal.SIGSTOP:
            frozen.resume()  # it wakes up late, and may neither charge nor go on
        await asyncio.gather(*tasks)
        assert not any(each.is_whole for each in theirs)
        assert await settled(http, other, key) == left_msat
    assert await other.breaches() == []


async def test_limits_hold_for_both_together_and_jobs_run_once(
    start: StartNode, mint: FakeMint, http: httpx.AsyncClient, postgres_url: str
) -> None:
    database = Postgres(postgres_url, installed_programs())
    database.execute(WATCH_JOBS)
    nodes = [start(KEY_REQUESTS_PER_MINUTE=str(PER_MINUTE), EXPIRE_EVERY_S="0.2") for _ in range(2)]
    key = await funded(http, nodes[0], mint, FUNDS_SAT)

    async def ask(number: int) -> int:
        answer = await http.post(
            f"{nodes[number % 2].api_url}/chat/completions",
            json=order(),
            headers={"authorization": f"Bearer {key}"},
        )
        return answer.status_code

    statuses = await asyncio.gather(*map(ask, range(2 * PER_MINUTE)))
    assert database.execute(HELD_A_MINUTE) == str(PER_MINUTE)  # the clock's, which may have turned
    assert set(statuses) == {OK, TOO_MANY} or statuses.count(OK) > PER_MINUTE

    tries = [
        (await http.post(f"{nodes[number % 2].url}/admin/api/login", json=WRONG)).status_code
        for number in range(TRIES)
    ]
    counted = database.execute("SELECT DISTINCT failures FROM login_throttle")
    assert int(counted) == tries.count(httpx.codes.UNAUTHORIZED)  # of both, in one place
    assert set(tries) <= {httpx.codes.UNAUTHORIZED, TOO_MANY}

    await until(lambda: int(database.execute(RUNS)) >= 10, "the job runs again and again")
    assert database.execute(TOO_EARLY) == "0"


async def test_a_node_is_replaced_without_a_failed_request(
    start: StartNode, tmp_path: Path, mint: FakeMint, http: httpx.AsyncClient
) -> None:
    nodes = [start(SHUTDOWN_DRAIN_S=str(DRAIN_S)) for _ in range(2)]
    with Balancer(tmp_path / "caddy", nodes=nodes) as balancer:
        key = await funded(http, nodes[0], mint, FUNDS_SAT)
        is_over, whole, streams = asyncio.Event(), [], []

        async def client() -> None:
            headers = {"authorization": f"Bearer {key}"}
            while not is_over.is_set():
                url = f"{balancer.url}/v1/chat/completions"
                answer = await http.post(url, json=order(), headers=headers)
                whole.append(answer.status_code)
                streams.append(Streamed())
                await stream(http, balancer.url, key, streams[-1], 16)

        clients = [asyncio.create_task(client()) for _ in range(4)]
        await until(lambda: len(streams) > 8, "requests are served")
        nodes[0].process.send(signal.SIGTERM)
        await leaving(http, nodes[0])
        assert await asyncio.to_thread(nodes[0].process.wait_exit, 20) == 0
        await asyncio.to_thread(nodes[0].start)
        served = len(whole)
        await until(lambda: len(whole) > served + 8, "and go on")
        is_over.set()
        await asyncio.gather(*clients)
    assert set(whole) == {OK}
    assert all(each.is_whole for each in streams)
    assert await settled(http, nodes[1], key) > 0
    assert await nodes[1].breaches() == []
    for node in nodes:
        node.kill()  # their drain was seen
