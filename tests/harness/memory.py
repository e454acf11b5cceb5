"""What a run of the tests owns: its files lie in memory, and what is loaded is never collected.

No test learns anything from a disk: a killed process loses nothing that it wrote, on either. But a
database made anew for every test costs a disk more than the test itself costs.
"""

import gc
import shutil
import tempfile
from pathlib import Path
from typing import Final

import pytest

IN_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - only where; what lies there has random names
FREE_BYTES_MIN: Final = 3 * 1024**3  # what a whole run needs, twice

# Looked through less often, as a test run leaves little behind and knows much.
COLLECT_AFTER: Final = (20_000, 20, 20)


@pytest.hookimpl(tryfirst=True)  # before pytest chooses where temporary directories are made
def pytest_configure() -> None:
    """Let every temporary file and directory lie in memory, where there is enough of it."""
    if IN_MEMORY.is_dir() and shutil.disk_usage(IN_MEMORY).free >= FREE_BYTES_MIN:
        tempfile.tempdir = str(IN_MEMORY)


def pytest_collection_finish() -> None:
    """Keep the modules and the tests themselves out of every later search for garbage."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)
