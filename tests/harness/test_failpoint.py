"""An armed failpoint kills at its own name and its own hit, and nowhere else."""

import signal
import subprocess
import sys

from demo.process import ROOT

WALK = """
import sys
from tests.harness.failpoint import armed
reach = armed(sys.argv[1])
for name in ["deposit.begun", "deposit.sent", "deposit.sent"]:
    reach(name)
    print(name, flush=True)
"""


def walk(failpoint: str) -> tuple[int, list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", WALK, failpoint],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout.split()


def test_it_kills_when_its_point_is_reached() -> None:
    assert walk("deposit.sent") == (-signal.SIGKILL, ["deposit.begun"])


def test_it_counts_hits() -> None:
    assert walk("deposit.sent:2") == (-signal.SIGKILL, ["deposit.begun", "deposit.sent"])


def test_another_points_name_passes() -> None:
    status, reached = walk("deposit")
    assert (status, len(reached)) == (0, 3)
