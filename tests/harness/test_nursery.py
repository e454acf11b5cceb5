"""The nursery starts programs that are as if started anew, and leaves none behind."""

import os
import signal
from pathlib import Path

import pytest

from tests.harness.command import run_module
from tests.harness.nursery import Nursery

ENV = {"PATH": "/usr/bin:/bin", "ONLY": "this"}
SHOW = """
import os, sys
print(sorted(os.environ), os.getcwd(), sys.argv[1:], sys.stdin.read(), __name__)
sys.exit(7)
"""


def test_a_program_has_its_own_world_and_status(tmp_path: Path) -> None:
    (tmp_path / "show.py").write_text(SHOW)
    env = {**ENV, "HOME": str(tmp_path)}
    done = run_module("show", ["--so"], env=env, cwd=tmp_path, stdin="given")
    assert (done.returncode, done.stderr) == (7, "")
    assert done.stdout == f"['HOME', 'ONLY', 'PATH'] {tmp_path} ['--so'] given __main__\n"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_what_a_signal_ends_says_so(tmp_path: Path, number: int) -> None:
    nursery = Nursery(())
    try:
        pid = start_server(nursery, tmp_path)
        nursery.ask("kill", pid=pid, number=number)
        while (status := nursery.ask("poll", pid=pid)) is None:
            pass
        assert status == -number
        nursery.ask("kill", pid=pid, number=number)  # its number may be another's by now
    finally:
        nursery.end()


def test_none_outlives_whoever_started_it(tmp_path: Path) -> None:
    nursery = Nursery(())
    pid = start_server(nursery, tmp_path)
    os.kill(pid, 0)
    nursery.end()  # closes the pipe, which the death of this process would do too
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def start_server(nursery: Nursery, directory: Path) -> int:
    pid = nursery.ask(
        "start",
        module="http.server",
        arguments=["0", "--bind", "127.0.0.1"],
        env=ENV,
        cwd=str(directory),
        stdin=os.devnull,
        stdout=os.devnull,
        stderr=os.devnull,
    )
    assert pid is not None
    return pid
