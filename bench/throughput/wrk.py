"""Whole answers under load, by wrk: as many connections as asked, each always with a request open.

wrk does not correct for coordinated omission: a connection that waits sends nothing meanwhile, so
its p99 is a lower bound of what clients that come at their own pace would see.
"""

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from demo.process import ServerDied

SCRIPT: Final = Path(__file__).with_name("post.lua")
FIGURE: Final = re.compile(r"(\w+)=(\d+)")
ANSWER_TIMEOUT_S: Final = 60
WAIT_S: Final = 30  # longer than asked, at the end
FAILURES: Final = ("status", "connect", "read", "write", "timeout")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a load goes, and what it shows there."""

    url: str
    keys_file: Path | None = None
    headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What wrk saw: answers, whatever was no 200, and how long they took."""

    requests: int
    failed: int
    duration_us: int
    p50_us: int
    p99_us: int

    @property
    def per_second(self) -> float:
        """Answers a second."""
        return self.requests * 1_000_000 / self.duration_us


def run(target: Target, body_file: Path, *, connections: int, seconds: int) -> Load:
    """Load it for so long, from the core we are on. Raises ServerDied when wrk cannot."""
    keys = "-" if target.keys_file is None else str(target.keys_file)
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", f"--timeout={ANSWER_TIMEOUT_S}s"]
    command += ["--script", str(SCRIPT), target.url, "--", str(body_file), keys, *target.headers]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=seconds + ANSWER_TIMEOUT_S + WAIT_S,
        check=False,
    )
    return parse(done.stdout, done.stderr)


def parse(told: str, complaints: str = "") -> Load:
    """The figures of the script's last line. Raises ServerDied without such a line."""
    lines: Sequence[str] = [line for line in told.splitlines() if line.startswith("figures ")]
    if not lines:
        raise ServerDied(f"wrk told no figures\n{told}{complaints}")
    figures = {name: int(value) for name, value in FIGURE.findall(lines[-1])}
    return Load(
        requests=figures["requests"],
        failed=sum(figures[name] for name in FAILURES),
        duration_us=figures["duration_us"],
        p50_us=figures["p50_us"],
        p99_us=figures["p99_us"],
    )
