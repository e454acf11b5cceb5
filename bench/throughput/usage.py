"""What a process uses, as the kernel counts it: processor time of all its threads, and memory."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TICK_US: Final = 1_000_000 // os.sysconf("SC_CLK_TCK")
US_PLACE: Final = 11  # of utime, and stime after it, behind the program's name in parentheses


@dataclass(slots=True)
class Watched:
    """A process whose processor time counts from now on."""

    pid: int
    since_us: int = 0

    def __post_init__(self) -> None:
        self.since_us = cpu_us(self.pid)

    def used_us(self) -> int:
        """Microseconds since it was made, of user and system together."""
        return cpu_us(self.pid) - self.since_us


def cpu_us(pid: int) -> int:
    """Microseconds that all its threads have used, dead ones too."""
    return parse_cpu_us(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8"))


def parse_cpu_us(stat: str) -> int:
    """utime + stime of a line of /proc/PID/stat; a program's name may hold anything."""
    fields = stat.rpartition(")")[2].split()
    return (int(fields[US_PLACE]) + int(fields[US_PLACE + 1])) * TICK_US


def rss_kib(pid: int) -> int:
    """Resident memory, of it and of all its descendants."""
    total = 0
    for each in [pid, *descendants(pid)]:
        for line in Path(f"/proc/{each}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmRSS:"):
                total += int(line.split()[1])
    return total


def descendants(pid: int) -> list[int]:
    """The processes that it started, and those that they did."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text(encoding="utf-8").split():
            found += [int(child), *descendants(int(child))]
    return found
