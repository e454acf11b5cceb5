"""Several processes of one node on one port: a parent that serves nothing and looks after them.

Laws
- The port is taken before anything else, and one socket is listened to by all: who connects while
  a worker dies or is replaced is taken by another one, or waits in the socket's queue.
- What is done once (the schema, the node's secrets, the first link to the dashboard) is done in a
  process of its own that has ended before the first worker starts. The parent opens no database,
  runs no event loop and no thread, so forking it is safe, and a new worker costs no imports.
- A worker that ends is replaced, at once if it was told to end, else later each time. When none
  serves and none comes to serve, the parent gives up and says so.
- Told to end, the parent tells its workers and waits for their graceful end; they end by
  themselves when the parent is gone, however that came.
"""

import asyncio
import gc
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NoReturn

import structlog
import typer

from routstr.cli.siblings import Siblings
from routstr.config import Settings
from routstr.errors import ConfigError, RoutstrError

log = structlog.get_logger()

SIGNALS: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGCHLD})
BACK_OFF_S: Final = 0.5
BACK_OFF_S_MAX: Final = 30.0
LIVED_S: Final = 30.0  # who served for so long has not failed to start
FAILURES_MAX: Final = 5  # in a row, while nobody serves
ENDED: Final = 0
FAILED: Final = 1
REFUSED: Final = 2


def check_workers(settings: Settings) -> Settings:
    """Raises ConfigError for more workers than the database lets write."""
    if settings.workers > 1 and settings.database_url.startswith("sqlite"):
        raise ConfigError(
            f"WORKERS: SQLite serves one process, not {settings.workers}; use PostgreSQL:"
            " ROUTSTR_DATABASE_URL=postgresql://user:password@host/name"
        )
    return settings


def told(run: Callable[[], None]) -> int:
    """Run it; the exit status. What is wrong is one line on stderr: settings 2, else 1."""
    try:
        run()
    except ConfigError as error:
        typer.echo(f"routstr: {error}", err=True)
        return REFUSED
    except RoutstrError as error:
        typer.echo(f"routstr: {error}", err=True)
        return FAILED
    return ENDED


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One process of several. `lifeline` reads as ended when the parent is gone."""

    number: int
    lifeline: int
    serving: int
    siblings: Siblings

    def note_serving(self) -> None:
        """Tell the parent that requests are taken."""
        os.write(self.serving, b"1")

    def watch_parent(self) -> None:
        """End in order, as if told to, when the parent is gone."""
        asyncio.get_running_loop().add_reader(self.lifeline, self._orphaned)

    def _orphaned(self) -> None:
        asyncio.get_running_loop().remove_reader(self.lifeline)
        signal.raise_signal(signal.SIGTERM)


@dataclass(slots=True)
class _Slot:
    """A worker's place. `has_served` reads a byte once it serves."""

    number: int
    pid: int | None = None
    has_served: int = -1
    is_serving: bool = False
    started_s: float = 0.0
    due_s: float = 0.0
    failures: int = 0


class Supervisor:
    """The parent. `prepare` and each `work` run in a process of their own."""

    def __init__(
        self, count: int, *, prepare: Callable[[], None], work: Callable[[Worker], None]
    ) -> None:
        """Nothing is started yet."""
        self._prepare = prepare
        self._work = work
        self._slots = [_Slot(number) for number in range(1, count + 1)]
        self._lifeline, self._life = os.pipe()
        self._is_stopping = False
        self._directory = Path()

    def run(self) -> int:
        """Serve until told to end; the exit status. Raises RoutstrError when none can serve."""
        with TemporaryDirectory(prefix="routstr-") as directory:  # of this user alone
            self._directory = Path(directory)
            return self._run()

    def _run(self) -> int:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        if (status := self._prepared()) != ENDED or self._is_stopping:
            return status
        gc.collect()
        gc.freeze()  # what the workers share is not copied by looking for garbage in it
        log.info("workers_start", count=len(self._slots))
        gave_up = False
        while not (self._is_stopping and all(slot.pid is None for slot in self._slots)):
            self._start_due()
            self._wait()
            gave_up = gave_up or self._must_give_up()
            if gave_up and not self._is_stopping:
                self._stop()
        log.info("workers_ended")
        if gave_up:
            raise RoutstrError("No worker can start; what it said is above.")
        return ENDED

    def _prepared(self) -> int:
        """What is done once; its exit status."""
        pid = self._forked(self._prepare)
        while True:
            number = signal.sigwait(SIGNALS)
            if number != signal.SIGCHLD:
                self._is_stopping = True
                os.kill(pid, signal.SIGTERM)
            for ended, status in _reaped():
                if ended == pid:
                    return ENDED if self._is_stopping else abs(status)

    # ── the workers ───────────────────────────────────────────────────────────────────────────

    def _start_due(self) -> None:
        if self._is_stopping:
            return
        now_s = time.monotonic()
        for slot in self._slots:
            if slot.pid is None and slot.due_s <= now_s:
                self._start(slot)

    def _start(self, slot: _Slot) -> None:
        reading, writing = os.pipe()
        worker = Worker(
            number=slot.number,
            lifeline=self._lifeline,
            serving=writing,
            siblings=Siblings(self._directory, number=slot.number, count=len(self._slots)),
        )

        def work() -> None:
            os.close(self._life)  # the parent's alone: it reads as ended when the parent has
            self._work(worker)

        slot.pid = self._forked(work)
        os.close(writing)
        os.set_blocking(reading, False)
        slot.has_served, slot.is_serving, slot.started_s = reading, False, time.monotonic()

    def _forked(self, run: Callable[[], None]) -> int:
        """A process that runs it and ends; its id."""
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            _become(run)
        return pid

    def _wait(self) -> None:
        """Until something happened: a signal, an end, or a worker's turn to start again."""
        due_s = [slot.due_s for slot in self._slots if slot.pid is None]
        wait_s = min(due_s, default=time.monotonic() + BACK_OFF_S_MAX) - time.monotonic()
        found = signal.sigtimedwait(SIGNALS, max(wait_s, 0.0))
        if found is not None and found.si_signo != signal.SIGCHLD:
            self._stop()
        for pid, status in _reaped():
            for slot in self._slots:
                if slot.pid == pid:
                    self._ended(slot, status)

    def _ended(self, slot: _Slot, status: int) -> None:
        served = self._looks_serving(slot)
        os.close(slot.has_served)
        slot.pid, slot.is_serving = None, False
        if self._is_stopping:
            return
        now_s = time.monotonic()
        if served and (status == ENDED or now_s - slot.started_s >= LIVED_S):
            slot.failures = 0
        if not (served and status == ENDED):
            is_hopeless = status == REFUSED and not served
            slot.failures = max(slot.failures + 1, FAILURES_MAX if is_hopeless else 0)
        slot.due_s = now_s + back_off_s(slot.failures)
        log.warning("worker_ended", worker=slot.number, status=status, attempts=slot.failures)

    def _looks_serving(self, slot: _Slot) -> bool:
        if slot.pid is not None and not slot.is_serving:
            try:
                slot.is_serving = bool(os.read(slot.has_served, 1))
            except BlockingIOError:
                return False
        return slot.is_serving

    def _must_give_up(self) -> bool:
        """Whether one cannot start, and no other one serves."""
        failed = max(slot.failures for slot in self._slots)
        return failed >= FAILURES_MAX and not any(
            slot.pid is not None and self._looks_serving(slot) for slot in self._slots
        )

    def _stop(self) -> None:
        self._is_stopping = True
        for slot in self._slots:
            if slot.pid is not None:
                os.kill(slot.pid, signal.SIGTERM)


def back_off_s(failures: int) -> float:
    """How long to wait after so many failures in a row, however many they are."""
    doublings = min(failures - 1, FAILURES_MAX * 2)
    return min(BACK_OFF_S * 2**doublings, BACK_OFF_S_MAX) if failures else 0.0


def _reaped() -> list[tuple[int, int]]:
    """The children that have ended, and their exit status, negative for a signal."""
    ended: list[tuple[int, int]] = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended.append((pid, os.waitstatus_to_exitcode(status)))


def _become(run: Callable[[], None]) -> NoReturn:
    """In the fork: do that, then end, without what the parent would do at its own end."""
    status = FAILED
    try:
        # A terminal's Ctrl-C reaches the whole group; the parent passes it on as SIGTERM.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        status = told(run)
    except BaseException:  # noqa: BLE001 - nothing may pass into what the parent would do next
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
