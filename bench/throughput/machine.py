"""The machine of a run: what it is, what it has installed, and which core does what.

One core serves: the node, or whoever stands in its place. Another one has all the rest: the load,
the upstream, and PostgreSQL too, unless a third one is there for it.
"""

import importlib.metadata
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from demo.process import ROOT

ECHO_MODULE: Final = Path("/usr/lib/nginx/modules/ngx_http_echo_module.so")
IN_MEMORY: Final = frozenset({"tmpfs", "ramfs"})
LIBRARIES: Final = ("aiohttp", "asyncpg", "fastapi", "orjson", "sqlalchemy", "uvicorn", "uvloop")
CORES_MIN: Final = 2


class NotReady(Exception):
    """The machine cannot run this; the message says what to do, in a sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cores:
    """The numbers of the cores, by what they are for."""

    serving: int
    loading: int
    database: int

    @property
    def database_place(self) -> str:
        """Where PostgreSQL runs, for people."""
        shared = self.database == self.loading
        return "shares the core of load and upstream" if shared else "has a core of its own"


def cores() -> Cores:
    """The first cores that we may use. Raises NotReady with fewer than two."""
    numbers = sorted(os.sched_getaffinity(0))
    if len(numbers) < CORES_MIN:
        raise NotReady("The benchmark needs two cores: one that serves and one for the load.")
    return (
        Cores(serving=numbers[0], loading=numbers[1], database=numbers[2:3][0])
        if (len(numbers) > CORES_MIN)
        else Cores(serving=numbers[0], loading=numbers[1], database=numbers[1])
    )


@contextmanager
def on_core(number: int) -> Iterator[None]:
    """What is started in the block runs on that core, for ever."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {number})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def check_tools() -> None:
    """Raises NotReady with one sentence about what to install."""
    needed = {
        "nginx-light": shutil.which("nginx") or Path("/usr/sbin/nginx").exists(),
        "libnginx-mod-http-echo": ECHO_MODULE.exists(),
        "wrk": shutil.which("wrk"),
        "util-linux": shutil.which("taskset"),
    }
    missing = [package for package, found in needed.items() if not found]
    if missing:
        raise NotReady(
            f"The benchmark needs the system packages {' '.join(missing)}:"
            f" install them with apt-get install {' '.join(missing)}."
        )


def check_disk(directory: Path) -> str:
    """The kind of file system. Raises NotReady for one in memory: there a commit costs nothing."""
    kind = file_system(directory, Path("/proc/self/mounts").read_text(encoding="utf-8"))
    if kind in IN_MEMORY:
        raise NotReady(
            f"{directory} is in memory, where durable commits cost nothing:"
            " set TMPDIR to a directory on a disk."
        )
    return kind


def file_system(directory: Path, mounts: str) -> str:
    """The type of the mount that a directory is on, by the text of /proc/self/mounts."""
    best, kind = "", "unknown"
    for line in mounts.splitlines():
        _, point, type_, *_ = line.split()
        if directory.is_relative_to(point) and len(point) >= len(best):
            best, kind = point, type_
    return kind


def describe(disk: str) -> dict[str, object]:
    """The machine and what runs on it, as JSON."""
    status = _said("git", "-C", str(ROOT), "status", "--porcelain")
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_mib": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20,
        "kernel": platform.release(),
        "file_system": disk,
        "python": platform.python_version(),
        "nginx": _said("nginx", "-v").rpartition("/")[2],
        "wrk": _said("wrk", "--version").partition(" [")[0].removeprefix("wrk "),
        "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
        "commit": _said("git", "-C", str(ROOT), "rev-parse", "HEAD"),
        "dirty": bool(status),
    }


def differences(one: Mapping[str, object], other: Mapping[str, object]) -> list[str]:
    """The names of what makes two machines two."""
    names = ("cpu", "cores", "kernel", "file_system", "python")
    return [name for name in names if one.get(name) != other.get(name)]


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _said(*command: str) -> str:
    """What a program says of itself, on either of its outputs; nothing if it is not there."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    lines: Sequence[str] = (done.stdout + done.stderr).strip().splitlines()
    return lines[0] if lines else ""
