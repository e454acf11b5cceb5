"""`make profile`: where the node's time goes under load, as a flame graph for docs/flame.svg.

py-spy looks at the node 200 times a second while 64 connections ask it; only threads that hold
the interpreter count. Paths of this machine are cut off, so that the picture tells of the program
alone.
"""

import os
import re
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Final

from bench.finding import STUMBLES, FellShort
from bench.throughput import machine
from bench.throughput.measures import Contender, Plan, whole
from bench.throughput.stage import KEYS, Stage, contender
from demo.process import ROOT

PROGRAM: Final = ROOT / ".bench" / "py-spy" / "bin" / "py-spy"
OUT: Final = "docs/flame.svg"
SECONDS: Final = 12
RATE: Final = 200
PACKAGES: Final = re.compile(r"/[^\s\"&<>();]*/(?:site-packages|python3\.\d+)/")
TITLE: Final = re.compile(r'(<text id="title"[^>]*>)[^<]*')


def without_places(svg: str, root: str) -> str:
    """The picture without the paths of the machine it was made on."""
    named = TITLE.sub(r"\g<1>Routstr under load", svg)
    return PACKAGES.sub("", named.replace(f"{root}/", ""))


def record(pid: int, path: Path, load: Contender, home: Path) -> None:
    """A flame graph of that process, under that load. Raises FellShort if py-spy cannot."""
    warm = Plan(connections=KEYS, seconds=1, rounds=1)
    list(whole([load], warm, home))
    command = [str(PROGRAM), "record", "--gil", "--rate", str(RATE), "--duration", str(SECONDS)]
    command += ["--format", "flamegraph", "--output", str(path), "--pid", str(pid)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as spy:
        list(whole([load], Plan(connections=KEYS, seconds=SECONDS, rounds=1), home))
        told, _ = spy.communicate(timeout=SECONDS * 4)
    if spy.returncode:
        raise FellShort(f"py-spy: {told.decode()}")


def main() -> int:
    """Record it and write the picture; the exit status."""
    out = ROOT / (os.environ.get("OUT") or OUT)
    try:
        machine.check_tools()
        with tempfile.TemporaryDirectory(prefix="routstr-profile-") as directory:
            home = Path(directory)
            with (
                Stage.open(home, machine.cores(), with_peers=False) as stage,
                stage.node() as node,
            ):
                load = replace(contender(node), commits=None)  # nobody asks for them meanwhile
                record(node.process.pid, home / "flame.svg", load, home)
            svg = (home / "flame.svg").read_text(encoding="utf-8")
    except machine.NotReady as missing:
        print(missing, file=sys.stderr)
        return 2
    except STUMBLES as error:
        print(error, file=sys.stderr)
        return 1
    out.write_text(without_places(svg, str(ROOT)), encoding="utf-8")
    print(f"{out.name}: {len(svg) // 1024} KiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
