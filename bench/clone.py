"""A newcomer: a clean clone of the newest commit, no environment, and what make does there.

Packages come from wherever pip is configured to get them, its cache included.
"""

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from bench.finding import Finding
from demo.process import ROOT

DEMO_FIRST_S_MAX: Final = 180
DEMO_AGAIN_S_MAX: Final = 30
TEST_S_MAX: Final = 600
TIMEOUT_S: Final = 1_800
TAIL_LINES: Final = 15

# What the shell of whoever runs this must not lend to the newcomer.
NOT_PASSED_ON: Final = ("MAKE", "MFLAGS", "PYTHON", "VIRTUAL_ENV", "ROUTSTR_", "KEEP", "COLUMNS")


def prove() -> Iterator[Finding]:
    """The demo twice, then lint, types and all tests."""
    with tempfile.TemporaryDirectory(prefix="routstr-clone-") as directory:
        clone = Path(directory) / "routstr"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        yield _make(clone, "demo", "demo_first_s", DEMO_FIRST_S_MAX, note=", set-up included")
        yield _make(clone, "demo", "demo_again_s", DEMO_AGAIN_S_MAX, note=" again")
        yield _make(clone, "lint", "lint_s", None)
        yield _make(clone, "type", "type_s", None)
        yield _make(clone, "test", "test_s", TEST_S_MAX)


def _make(clone: Path, target: str, name: str, seconds_max: int | None, note: str = "") -> Finding:
    started_s = time.monotonic()
    try:
        done = subprocess.run(
            ["make", target],
            cwd=clone,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
        )
        status, output = done.returncode, done.stdout
    except subprocess.TimeoutExpired:
        status, output = -1, f"still running after {TIMEOUT_S} s"
    seconds = time.monotonic() - started_s
    tail = "\n".join(output.splitlines()[-TAIL_LINES:])
    return Finding(
        what=f"clean clone: make {target}{note}",
        found=f"exit {status} in {seconds:.1f} s",
        must="exit 0" if seconds_max is None else f"exit 0 in {seconds_max} s",
        ok=status == 0 and (seconds_max is None or seconds <= seconds_max),
        figures={name: f"{seconds:.1f}"},
        complaints=() if status == 0 else (tail,),
    )


def _environment() -> Mapping[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(NOT_PASSED_ON)}
