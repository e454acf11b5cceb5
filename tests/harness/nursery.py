"""Programs of the project's own, started by a fork: the imports are most of what a start costs.

The first start of a test process starts the nursery too, which ends with that process.
"""

import atexit
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

from demo.process import ROOT, ServerProcess
from demo.servers import PATH

PROGRAM: Final = "tests.harness.nursery_server"
MODULES: Final = ("routstr.__main__", "aiosqlite", "asyncpg")
POLL_S: Final = 0.01


class Nursery:
    """The running server; safe for threads."""

    def __init__(self, modules: Sequence[str]) -> None:
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", PROGRAM, *modules],
            env={"PATH": PATH, "PYTHONPATH": str(ROOT)},
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        atexit.register(self.end)

    def ask(self, do: str, **more: Any) -> int | None:
        """One question, one answer."""
        with self._lock:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(json.dumps({"do": do, **more}) + "\n")
            self._process.stdin.flush()
            answer: int | None = json.loads(self._process.stdout.readline())
            return answer

    def end(self) -> None:
        """End it, and with it all that it started."""
        with self._lock:
            self._process.communicate()


@cache
def nursery() -> Nursery:
    """This test process's own."""
    return Nursery(MODULES)


class Child:
    """One program of the nursery's, as far as a `Popen` is used here."""

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        stdout: Path,
        stderr: Path,
        stdin: Path = Path("/dev/null"),
    ) -> None:
        self._nursery = nursery()
        pid = self._nursery.ask(
            "start",
            module=module,
            arguments=list(arguments),
            env=dict(env),
            cwd=str(cwd),
            stdin=str(stdin),
            stdout=str(stdout),
            stderr=str(stderr),
        )
        assert pid is not None
        self.pid = pid
        self.stdin = None

    def poll(self) -> int | None:
        """The exit status, negative for a signal, or None while it runs."""
        return self._nursery.ask("poll", pid=self.pid)

    def wait(self, timeout: float | None = None) -> int:
        """The exit status. Raises subprocess.TimeoutExpired."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (status := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            time.sleep(POLL_S)
        return status

    def send_signal(self, number: int) -> None:
        """To its group, as long as it runs."""
        self._nursery.ask("kill", pid=self.pid, number=number)


class NurseryProcess(ServerProcess):
    """A server of the nursery's: `python -m MODULE …` without the wait for its imports."""

    def start(self) -> None:
        """Start it, appending to the log."""
        assert not self.is_running, "it runs already"
        _, dash_m, module, *arguments = self._argv
        assert dash_m == "-m"
        self._log_path.touch()
        self._process = Child(  # type: ignore[assignment]  # what is used of a Popen, it has
            module,
            arguments,
            env=self._env,
            cwd=self._cwd,
            stdout=self._log_path,
            stderr=self._log_path,
        )

    def _sweep(self) -> None:
        """Kill the whole group, unless it has ended and its number may be another's."""
        self._started().send_signal(signal.SIGKILL)
