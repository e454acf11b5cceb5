"""A program that has loaded what others need and becomes them, one fork each.

`python -m tests.harness.nursery_server MODULE…` loads the modules, then takes one JSON object a
line: `start` a program, `poll` or `kill` one by its process id; the answer is a line too. A program
is what it would be if it were started anew, with its own environment, directory, output and process
group; only its imports are there already. When the input ends, however that comes, so do they all.
"""

import gc
import importlib
import json
import os
import runpy
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

GRACE_S = 1


def become(given: Mapping[str, Any]) -> None:
    """In the fork: be that program, to its end."""
    os.setpgid(0, 0)
    for number, (path, flags) in enumerate(
        (
            (given["stdin"], os.O_RDONLY),
            (given["stdout"], os.O_WRONLY | os.O_APPEND),
            (given["stderr"], os.O_WRONLY | os.O_APPEND),
        )
    ):
        file = os.open(path, flags)
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(given["env"])
    os.chdir(given["cwd"])
    sys.path[0] = given["cwd"]  # as `-m` has it
    sys.argv[1:] = given["arguments"]
    sys.modules.pop(f"{given['module']}.__main__", None)  # it runs now, whoever loaded it before
    runpy.run_module(given["module"], run_name="__main__", alter_sys=True)


class Nursery:
    """The programs that run, and the exit status of those that ended."""

    def __init__(self) -> None:
        self.running: set[int] = set()
        self.ended: dict[int, int] = {}

    def poll(self, pid: int) -> int | None:
        if pid in self.running:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                self.running.remove(pid)
                self.ended[pid] = os.waitstatus_to_exitcode(status)
        return self.ended.get(pid)

    def kill(self, pid: int, number: int) -> None:
        """The whole group, as long as its number is its own."""
        if self.poll(pid) is None:
            os.killpg(pid, number)

    def end(self) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in list(self.running):
                self.kill(pid, number)
            deadline = time.monotonic() + GRACE_S
            while self.running and time.monotonic() < deadline:
                for pid in list(self.running):
                    self.poll(pid)
                time.sleep(0.01)


def main() -> None:
    for name in sys.argv[1:]:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    nursery = Nursery()
    while line := sys.stdin.readline():
        asked = json.loads(line)
        answer: int | None = None
        if asked["do"] == "start":
            answer = os.fork()
            if answer == 0:
                become(asked)
                return
            with suppress(PermissionError, ProcessLookupError):  # it did so itself, and is beyond
                os.setpgid(answer, answer)
            nursery.running.add(answer)
        elif asked["do"] == "poll":
            answer = nursery.poll(asked["pid"])
        else:
            nursery.kill(asked["pid"], asked["number"])
        print(json.dumps(answer), flush=True)
    nursery.end()


if __name__ == "__main__":
    main()
