"""The command line as its operator runs it: one process for each command."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from demo.process import ROOT
from demo.servers import PATH


def run(
    directory: Path, settings: Mapping[str, str], *arguments: str, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    """`routstr` with these settings and no others, in that directory."""
    directory.mkdir(exist_ok=True)
    environment = {"DATA_DIR": str(directory / "data"), **settings}
    return subprocess.run(
        [sys.executable, "-m", "routstr", *arguments],
        env={"PATH": PATH, "HOME": str(directory), "PYTHONPATH": str(ROOT), **environment},
        cwd=directory,
        capture_output=True,
        input=stdin or "",
        text=True,
        timeout=30,
        check=False,
    )
