"""A server as a real process: started on a free port, waited for, and surely ended.

Everything is synchronous: starting a server is what a test or the demo waits for anyway.
"""

import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import httpx

ROOT: Final = Path(__file__).parent.parent
GUARD: Final = Path(__file__).with_name("guard.py")

# Nobody's certificates: the servers here speak plain HTTP, and loading them takes its time.
NO_TLS: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

POLL_S: Final = 0.03
LOG_TAIL_CHARACTERS: Final = 4_000


class ServerDied(Exception):
    """A server ended, or did not answer in time; the message holds the end of its log."""


def free_port() -> int:
    """A TCP port of 127.0.0.1 that was free just now; whoever takes it may still come second."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class ServerProcess:
    """One program under the guard, in its own process group, writing one log file."""

    def __init__(
        self, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, log_path: Path
    ) -> None:
        self._argv = list(argv)
        self._env = dict(env)
        self._cwd = cwd
        self._log_path = log_path
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The program's own process id. Raises ServerDied when it was never started."""
        return self._started().pid

    @property
    def is_running(self) -> bool:
        """Whether the program was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """Everything it has printed so far, over all its starts."""
        return self._log_path.read_text(errors="replace") if self._log_path.exists() else ""

    def start(self) -> None:
        """Start it, appending to the log; `wait_until_ready` says when it serves."""
        assert not self.is_running, "it runs already"
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(GUARD), *self._argv],
                env=self._env,
                cwd=self._cwd,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_until_ready(self, url: str, timeout_s: float) -> None:
        """Return once `url` answers 200. Raises ServerDied if it ended or the time is over."""
        deadline = time.monotonic() + timeout_s
        with httpx.Client(verify=NO_TLS, trust_env=False, timeout=1) as client:
            while time.monotonic() < deadline:
                if not self.is_running:
                    self.kill()
                    raise ServerDied(f"{self._argv[0]} ended at once\n{self._log_tail()}")
                try:
                    if client.get(url).status_code == httpx.codes.OK:
                        return
                except httpx.TransportError:
                    pass  # not listening yet
                time.sleep(POLL_S)
        raise ServerDied(f"{url} did not answer within {timeout_s} s\n{self._log_tail()}")

    def wait_exit(self, timeout_s: float) -> int:
        """The exit status, negative for a signal. Raises ServerDied if it runs on."""
        try:
            status = self._started().wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise ServerDied(f"still running after {timeout_s} s\n{self._log_tail()}") from None
        self._sweep()
        return status

    def send(self, number: int) -> None:
        """Send a signal to the program alone: SIGSTOP and SIGCONT pause and resume it."""
        self._started().send_signal(number)

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self._process is not None:
            self._sweep()
            self._process.wait()

    def stop(self, *, timeout_s: float = 10, number: int = signal.SIGTERM) -> None:
        """Ask it to end, and after `timeout_s` make it. Nothing of its group is left."""
        if self.is_running:
            self.send(signal.SIGCONT)  # a paused program could not hear the request
            self.send(number)
            with suppress(subprocess.TimeoutExpired):
                self._started().wait(timeout_s)
        self.kill()

    def _started(self) -> "subprocess.Popen[bytes]":
        if self._process is None:
            raise ServerDied("it was never started")
        return self._process

    def _sweep(self) -> None:
        """Kill the whole group, the watcher included; it holds the group's number until then."""
        process = self._started()
        with suppress(ProcessLookupError):  # swept before
            os.killpg(process.pid, signal.SIGKILL)
        if process.stdin is not None:
            process.stdin.close()

    def _log_tail(self) -> str:
        return self.log[-LOG_TAIL_CHARACTERS:]


class Server(ABC):
    """A server that keeps its address over restarts. Subclasses say what runs and when it is up."""

    process_type: type[ServerProcess] = ServerProcess
    ready_path: str = "/"
    start_timeout_s: float = 30
    attempts_max: int = 3

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.port = 0
        self._process: ServerProcess | None = None

    @abstractmethod
    def argv(self) -> Sequence[str]:
        """The command; `self.port` is chosen by then."""

    @abstractmethod
    def environment(self) -> Mapping[str, str]:
        """The whole environment, nothing inherited; `self.port` is chosen by then."""

    @property
    def url(self) -> str:
        """The base URL, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def process(self) -> ServerProcess:
        """The process of the latest start."""
        assert self._process is not None, "start it first"
        return self._process

    @property
    def log(self) -> str:
        """What it printed, over all its starts."""
        return self.process.log

    def start(self) -> Self:
        """Start and wait until it answers; on a first start another port is tried if one is taken.

        Raises ServerDied with the end of the log.
        """
        attempts = 1 if self.port else self.attempts_max
        for attempt in range(1, attempts + 1):
            if attempts > 1:
                self.port = free_port()
            try:
                return self._start_once()
            except ServerDied:
                self.process.kill()
                if attempt == attempts:
                    raise
        raise AssertionError("the loop returns or raises")

    def _start_once(self) -> Self:
        self._process = self.process_type(
            self.argv(),
            env=self.environment(),
            cwd=self.directory,
            log_path=self.directory / "log",
        )
        self._process.start()
        self._process.wait_until_ready(self.url + self.ready_path, self.start_timeout_s)
        return self

    def stop(self) -> None:
        """Stop it in an orderly way, or for certain after ten seconds."""
        if self._process is not None:
            self._process.stop()

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()

    def restart(self) -> Self:
        """Stop, then start on the same directory and the same port."""
        self.stop()
        return self.start()

    def pause(self) -> None:
        """Freeze it: connections are accepted by the kernel and nothing is answered."""
        self.process.send(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server go on."""
        self.process.send(signal.SIGCONT)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
