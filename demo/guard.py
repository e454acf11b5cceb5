"""Run a program that must not outlive the one that started it, however that one ends.

`python guard.py PROGRAM ARGUMENT…`, with a pipe as standard input and leading a process group of
its own. A watcher stays behind in the group and this process becomes PROGRAM, so its pid, its
signals and its exit status are the program's own. When the pipe's other end closes, which even
`kill -9` of its holder does, the watcher ends the group: first politely, then for certain.
"""

import os
import signal
import sys
import time

GRACE_S = 1


def watch(group: int) -> None:
    """Block until the pipe's other end is closed, then end every process of `group`."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the group's signals are for the program
    quiet = os.open(os.devnull, os.O_RDWR)
    os.dup2(quiet, 1)  # a reader of the program's output must see its end when the program ends
    os.dup2(quiet, 2)
    while os.read(0, 4096):
        pass
    os.killpg(group, signal.SIGTERM)
    time.sleep(GRACE_S)
    os.killpg(group, signal.SIGKILL)


def main() -> None:
    group = os.getpid()
    if os.fork() == 0:
        if os.fork() == 0:  # twice, so that the program has no child it does not know
            watch(group)
        os._exit(0)
    os.wait()
    quiet = os.open(os.devnull, os.O_RDONLY)
    os.dup2(quiet, 0)
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 - becoming the program is the point


if __name__ == "__main__":
    main()
