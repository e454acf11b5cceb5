"""What `make bench` makes of what others tell it: no load, no timing, no server."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from bench.throughput import machine, page, wrk
from bench.throughput.compare import compared
from bench.throughput.figures import Answer, Found, Question, together
from bench.throughput.nginx import EVENTS, events
from bench.throughput.profile import without_places
from bench.throughput.targets import TARGETS, last_line, reached, stream, whole
from bench.throughput.usage import TICK_US, parse_cpu_us
from demo.process import ROOT, ServerDied

TOLD: Final = (
    "Running 4s test @ http://127.0.0.1:1/v1\nRequests/sec: 2500.00\n"
    "figures requests=10000 duration_us=4000000 p50_us=800 p99_us=2500 status=1 connect=2 read=3"
    " write=4 timeout=5\n"
)
QUESTION: Final = Question(
    part="whole", who="node", database="sqlite", connections=64, keys=64, body="small"
)
NODE: Final = whole("node", 64, "sqlite")
MOUNTS: Final = "/dev/vda / ext4 rw 0 0\ntmpfs /mnt tmpfs rw 0 0\n/dev/vdb /mnt/disk xfs rw 0 0\n"


def best() -> Found:
    """A run in which every target is reached exactly, aims too."""
    return {
        NODE: {"cpu_us": 300, "per_second": 6000, "p99_ms": 20},
        whole("nginx", 64): {"cpu_us": 20},
        whole("portkey", 64): {"per_second": 1000},
        whole("litellm", 64): {"per_second": 60},
        whole("litellm", 16): {"per_second": 100},
        whole("node", 16, "sqlite"): {"per_second": 6000},
        whole("node", 64, "postgresql"): {"per_second": 5400},
        whole("node", 1, "sqlite"): {"p50_ms": 1.25},
        whole("direct", 1): {"p50_ms": 0.25},
        stream("node", 1, "sqlite"): {"first_ms": 3.25},
        stream("direct", 1): {"first_ms": 0.25},
        stream("node", 64, "sqlite"): {"first_p99_ms": 25, "chunk_us": 35},
        stream("portkey", 64): {"chunk_us": 100},
        "memory node": {"idle_mib": 100, "grown_mib": 10},
        "instant node": {"cpu_ms": 2.5},
        "books": {"failed": 0, "reserved_msat": 0},
    }


def test_all_that_is_no_200_counts_as_failed() -> None:
    load = wrk.parse(TOLD)
    assert (load.requests, load.failed, load.per_second) == (10_000, 15, 2_500)
    with pytest.raises(ServerDied, match="unable to connect"):
        wrk.parse("", "unable to connect")


def test_the_time_of_a_process_is_read_behind_its_name() -> None:
    fields = ["S", *("0" for _ in range(10)), "7", "5", "99", "99"]
    assert parse_cpu_us(f"1 (a) b) c) {' '.join(fields)}") == 12 * TICK_US


def test_rounds_are_medians_and_failures_add_up() -> None:
    rounds = [
        Answer(question=QUESTION, figures={"per_second": rate, "failed": 1})
        for rate in (5.0, 1.0, 9.0)
    ]
    other = Answer(question=replace(QUESTION, connections=1), figures={"failed": 0})
    assert together([*rounds, other])[NODE] == {"per_second": 5, "failed": 3}
    assert QUESTION.name == NODE


def test_a_run_that_reaches_everything_says_so() -> None:
    rows = reached(best())
    assert [row.target.what for row in rows if not row.aim] == []
    assert (
        last_line(rows) == f"must={len(TARGETS)}/{len(TARGETS)} aim={len(TARGETS)}/{len(TARGETS)}"
    )


def test_what_falls_short_of_an_aim_or_a_must_is_told() -> None:
    run = best()
    run[NODE] |= {"cpu_us": 500, "p99_ms": 41}  # 25 times nginx: beyond the aim, within the must
    run["books"] = {"failed": 1, "reserved_msat": 0}
    found = {row.target.what: (row.must, row.aim) for row in reached(run)}
    assert found["CPU per paid request against nginx's plain proxying, 64 concurrent"] == (
        True,
        False,
    )
    assert found["p99 at 64 concurrent"] == (False, False)
    assert found["failed requests, of all those above"] == (False, False)


def test_what_was_not_measured_is_not_counted() -> None:
    run = {name: each for name, each in best().items() if not re.search("portkey|litellm", name)}
    measured = len(TARGETS) - 4
    assert last_line(reached(run)) == f"must={measured}/{measured} aim={measured}/{measured}"


def test_two_runs_are_compared_by_what_both_measured() -> None:
    before: Found = {NODE: {"per_second": 100.0, "failed": 0}, "only before": {"cpu_us": 1}}
    after: Found = {
        NODE: {"per_second": 250.0, "cpu_us": 3, "failed": 0},
        "only after": {"cpu_us": 1},
    }
    assert compared(before, after) == {NODE: {"per_second": 2.5}}


def test_another_commit_is_no_other_machine() -> None:
    one: dict[str, object] = {"cpu": "A", "cores": 2, "commit": "1"}
    assert machine.differences(one, one | {"commit": "2"}) == []
    assert machine.differences(one, one | {"cores": 4}) == ["cores"]


@pytest.mark.parametrize(
    ("directory", "kind"), [("/var/x", "ext4"), ("/mnt/x", "tmpfs"), ("/mnt/disk/x", "xfs")]
)
def test_the_nearest_mount_names_the_file_system(directory: str, kind: str) -> None:
    assert machine.file_system(Path(directory), MOUNTS) == kind


def test_the_page_takes_the_results_of_a_run() -> None:
    about = {
        "cpu": "A", "cores": 2, "memory_mib": 1, "kernel": "6", "file_system": "ext4",
        "python": "3", "nginx": "1", "wrk": "4", "libraries": {"uvloop": "1"}, "commit": "c" * 40,
        "dirty": False, "postgresql": "shares the core of load and upstream",
    }  # fmt: skip
    old = f"before\n{page.BEGIN}\nold\n{page.END}\nbehind\n"
    new = page.with_results(old, page.results({"machine": about, "figures": best()}))
    assert new.startswith(f"before\n{page.BEGIN}")
    assert new.endswith(f"{page.END}\nbehind\n")
    assert "old" not in new
    assert "| CPU per paid request against nginx's plain proxying, 64 concurrent | 15 x |" in new


def test_the_page_of_the_docs_has_a_place_for_results() -> None:
    text = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    assert page.BEGIN in page.with_results(text, "new")


def test_a_flame_graph_names_no_machine() -> None:
    svg = (
        '<text id="title" x="1">py-spy record --pid 7 --output /tmp/here/x</text>'
        "<title>run (/home/me/.venv/lib/python3.11/site-packages/uvloop/loop.py:1)</title>"
        "<title>_worker (/usr/lib/python3.11/threading.py:1)</title>"
        "<title>serve (/srv/it/routstr/app.py:2)</title>"
    )
    told = without_places(svg, "/srv/it")
    assert "(uvloop/loop.py:1)" in told
    assert "(threading.py:1)" in told
    assert "(routstr/app.py:2)" in told
    assert re.search(r"/(home|srv|usr|tmp)/", told) is None


def test_a_stream_has_all_its_events() -> None:
    assert len(events()) == EVENTS
    assert events()[-1] == "data: [DONE]"
