"""`routstr serve --workers`: one port, several processes, a parent that looks after them."""

import asyncio
import os
import re
import signal
from pathlib import Path

import httpx

from demo.process import free_port
from routstr.cli.workers import BACK_OFF_S_MAX, back_off_s
from tests.fakes.mint import FakeMint
from tests.harness.cluster import ClusterNode
from tests.harness.command import run
from tests.nodes.conftest import WAIT_S, StartNode, funded, told

ORDER = {
    "model": "demo/small",
    "messages": [{"role": "user", "content": "Hello"}],
    "max_tokens": 16,
}


async def serving(node: ClusterNode, count: int, *, but: frozenset[int] = frozenset()) -> list[int]:
    """The workers, once so many others have said that they serve."""
    await told(node, "Started server process", count + len(but))
    return [pid for pid in node.worker_pids if pid not in but]


async def test_a_worker_that_dies_is_replaced_and_all_end_together(
    start: StartNode, mint: FakeMint, http: httpx.AsyncClient
) -> None:
    node = start(workers=2)
    first, second = await serving(node, 2)
    assert node.log.count("Set up the dashboard, once: ") == 1
    key = await funded(http, node, mint, 1_000)
    for _ in range(2):  # whichever is asked, it tells of both
        metrics = (await http.get(f"{node.url}/metrics", headers={"connection": "close"})).text
        assert re.findall(r'routstr_process_up{process="(\d)"} 1', metrics) == ["1", "2"]
        assert metrics.count("# TYPE process_resident_memory_bytes gauge") == 1
        assert len(re.findall(r'process_resident_memory_bytes{process="\d"}', metrics)) == 2
        assert len(re.findall(r"^routstr_exposure_msat ", metrics, re.MULTILINE)) == 1
    os.kill(first, signal.SIGKILL)
    answers = await asyncio.gather(  # on new connections: all of them find somebody
        *(
            http.post(
                f"{node.api_url}/chat/completions",
                json=ORDER,
                headers={"authorization": f"Bearer {key}", "connection": "close"},
            )
            for _ in range(8)
        )
    )
    assert {each.status_code for each in answers} == {httpx.codes.OK}
    others = await serving(node, 2, but=frozenset({first}))
    assert second in others
    node.process.send(signal.SIGTERM)
    assert await asyncio.to_thread(node.process.wait_exit, WAIT_S) == 0
    assert node.log.count("node_stopped") == 2
    assert node.log.count("Set up the dashboard, once: ") == 1
    assert await node.breaches() == []


async def test_workers_end_when_their_parent_is_gone(start: StartNode) -> None:
    node = start(workers=2)
    await serving(node, 2)
    os.kill(node.process.pid, signal.SIGKILL)
    await told(node, "node_stopped", 2)


def test_sqlite_refuses_and_says_what_to_do(tmp_path: Path) -> None:
    settings = {"CASHU_MINTS": "https://mint.example.com", "PORT": str(free_port())}
    for arguments, more in ((("serve", "--workers", "2"), {}), (("serve",), {"WORKERS": "2"})):
        done = run(tmp_path / str(len(arguments)), {**settings, **more}, *arguments)
        assert done.returncode == 2, done.stdout
        assert done.stderr.startswith("routstr: WORKERS: SQLite serves one process")
        assert "ROUTSTR_DATABASE_URL=postgresql://" in done.stderr


def test_what_no_worker_can_start_with_is_told_once(tmp_path: Path) -> None:
    settings = {
        "CASHU_MINTS": "https://mint.example.com",
        "DATABASE_URL": f"postgresql://nobody@127.0.0.1:{free_port()}/nothing",
        "PORT": str(free_port()),
    }
    done = run(tmp_path / "node", settings, "serve", "--workers", "2")
    assert (done.returncode, done.stderr.count("routstr: ")) == (2, 1), done.stderr
    assert "the database cannot be used" in done.stderr


def test_one_that_never_starts_is_tried_for_ever() -> None:
    waits_s = [back_off_s(failures) for failures in range(2_000)]  # a day and more of them
    assert waits_s[:8] == [0, 0.5, 1, 2, 4, 8, 16, BACK_OFF_S_MAX]
    assert set(waits_s[7:]) == {BACK_OFF_S_MAX}
