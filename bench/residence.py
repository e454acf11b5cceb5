"""What a node keeps of the machine, as the system counts it."""

from pathlib import Path
from typing import Final

from demo.process import ServerProcess
from tests.harness.process import NodeProcess

KIB_PER_MIB: Final = 1_024


class LoneNode(NodeProcess):
    """A node as an operator starts it, which shares its memory with nobody."""

    process_type = ServerProcess


def mib_of(pid: int) -> float:
    """The memory that is resident (Linux, proc(5): VmRSS)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / KIB_PER_MIB
    raise ProcessLookupError(f"process {pid} has ended")
