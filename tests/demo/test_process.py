"""Servers under the guard: they end with whoever started them, and nothing of them is left."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # its stubs are one package more
import pytest

from demo.process import ROOT, ServerDied, ServerProcess, free_port
from demo.servers import DemoUpstream

STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""
ORPHAN = """
import os, signal, sys
from pathlib import Path
from demo.servers import DemoUpstream
upstream = DemoUpstream(Path(sys.argv[1])).start()
print(upstream.process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
GONE_TIMEOUT_S = 10


def program(tmp_path: Path, text: str, *arguments: str) -> ServerProcess:
    return ServerProcess(
        [sys.executable, "-c", text, *arguments],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        log_path=tmp_path / "log",
    )


def group_of(pid: int) -> list[psutil.Process]:
    """Everybody in the process group that `pid` leads or led."""
    return [each for each in psutil.process_iter() if is_in_group(each, pid)]


def is_in_group(process: psutil.Process, group: int) -> bool:
    try:
        return os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE
    except (ProcessLookupError, psutil.NoSuchProcess):
        return False


def wait_until_empty(group: int) -> None:
    deadline = time.monotonic() + GONE_TIMEOUT_S
    while group_of(group):
        assert time.monotonic() < deadline, "something of the group is left"
        time.sleep(0.02)


def first_line(process: ServerProcess) -> str:
    deadline = time.monotonic() + GONE_TIMEOUT_S
    while "\n" not in process.log:
        assert time.monotonic() < deadline, "nothing was printed"
        time.sleep(0.02)
    return process.log.splitlines()[0]


def test_an_exit_status_is_the_programs_own(tmp_path: Path) -> None:
    process = program(tmp_path, "import sys; print('done'); sys.exit(3)")
    process.start()
    assert process.wait_exit(GONE_TIMEOUT_S) == 3
    assert process.log == "done\n"
    wait_until_empty(process.pid)


def test_a_program_killed_from_within_is_seen_as_killed(tmp_path: Path) -> None:
    process = program(tmp_path, "import os; os.kill(os.getpid(), 9)")
    process.start()
    assert process.wait_exit(GONE_TIMEOUT_S) == -signal.SIGKILL


def test_a_stubborn_program_and_its_children_end_all_the_same(tmp_path: Path) -> None:
    process = program(tmp_path, STUBBORN)
    process.start()
    child = int(first_line(process))
    assert child in {each.pid for each in group_of(process.pid)}
    process.stop(timeout_s=0.1)
    wait_until_empty(process.pid)
    assert not process.is_running


def test_a_server_ends_when_its_starter_is_killed(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ORPHAN, str(tmp_path / "upstream")],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    wait_until_empty(int(done.stdout))


def test_a_server_that_ends_at_once_is_reported_with_its_log(tmp_path: Path) -> None:
    process = program(tmp_path, "raise SystemExit('no such mint')")
    process.start()
    with pytest.raises(ServerDied, match="no such mint"):
        process.wait_until_ready(f"http://127.0.0.1:{free_port()}", timeout_s=GONE_TIMEOUT_S)


def test_a_server_keeps_its_address_over_a_restart(tmp_path: Path) -> None:
    with DemoUpstream(tmp_path) as upstream:
        url, pid = upstream.url, upstream.process.pid
        upstream.restart()
        assert upstream.url == url
        assert upstream.process.pid != pid
    wait_until_empty(pid)
    wait_until_empty(upstream.process.pid)
