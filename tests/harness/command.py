"""The command line as its operator runs it: one process for each command."""

import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from demo.process import ROOT
from demo.servers import PATH
from tests.harness.nursery import Child

TIMEOUT_S = 30


def run(
    directory: Path, settings: Mapping[str, str], *arguments: str, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    """`routstr` with these settings and no others, in that directory."""
    directory.mkdir(exist_ok=True)
    env = environment(directory, settings)
    return run_module("routstr", arguments, env=env, cwd=directory, stdin=stdin)


def run_module(
    module: str,
    arguments: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    stdin: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """`python -m MODULE …`, and what it printed. Raises subprocess.TimeoutExpired."""
    with tempfile.TemporaryDirectory() as name:
        given, out, err = (Path(name) / each for each in ("stdin", "stdout", "stderr"))
        for path in (given, out, err):
            path.write_text((stdin or "") if path is given else "")
        child = Child(module, arguments, env=env, cwd=cwd, stdin=given, stdout=out, stderr=err)
        try:
            status = child.wait(TIMEOUT_S)
        finally:
            child.send_signal(signal.SIGKILL)
        return subprocess.CompletedProcess(arguments, status, out.read_text(), err.read_text())


def run_anew(
    directory: Path, settings: Mapping[str, str], *arguments: str
) -> subprocess.CompletedProcess[str]:
    """As `run`, by an interpreter that has loaded nothing yet."""
    directory.mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, "-m", "routstr", *arguments],
        env=environment(directory, settings),
        cwd=directory,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def environment(directory: Path, settings: Mapping[str, str]) -> Mapping[str, str]:
    """Nothing is inherited."""
    return {
        "PATH": PATH,
        "HOME": str(directory),
        "PYTHONPATH": str(ROOT),
        "DATA_DIR": str(directory / "data"),
        **settings,
    }
