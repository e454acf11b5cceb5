"""Ecash to and from a wallet that is not ours: what `make test-interop` says."""

import re
import subprocess
import time
from collections.abc import Iterator
from typing import Final

from bench.finding import Finding
from demo.process import ROOT

WHAT: Final = "ecash to and from cashu-ts"
TIMEOUT_S: Final = 600
TOLD_CHARS_MAX: Final = 600
SUMMARY: Final = re.compile(r"\d+ (?:passed|failed)[^\n=]*")


def prove() -> Iterator[Finding]:
    """One finding."""
    started_s = time.monotonic()
    try:
        done = subprocess.run(
            ["make", "test-interop"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        status, told = done.returncode, done.stdout + done.stderr
    except (OSError, subprocess.TimeoutExpired) as error:
        status, told = -1, str(error)
    took_s = time.monotonic() - started_s
    summaries = SUMMARY.findall(told)
    yield Finding(
        what=WHAT,
        found=f"exit {status}, {summaries[-1] if summaries else f'{took_s:.0f} s'}",
        must="exit 0",
        ok=status == 0,
        figures={"interop_exit": status, "interop_s": round(took_s)},
        complaints=() if status == 0 else (told[-TOLD_CHARS_MAX:],),
    )
