"""How many files and connections the system lets this process have open at a time."""

import resource
from typing import Final

import structlog

log = structlog.get_logger()

FEW: Final = 8_192  # four thousand requests: each has a connection to its client and one upstream
KEPT_BACK: Final = 256  # for the database, mints, jobs, and clients that are refused
UNDER_WAY_MAX: Final = 1_000_000


def raise_descriptors() -> None:
    """Allow as many as the system lets us have (RLIMIT_NOFILE).

    What a shell begins with is meant for other programs: five hundred streams use 1,024 up.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):  # macOS says "infinite", and means less
        hard = soft
    if hard != resource.RLIM_INFINITY and hard < FEW:
        log.warning("few_descriptors", count=hard)


def under_way_max() -> int:
    """How many paid requests may run at once before the next client could not connect."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return UNDER_WAY_MAX
    return max(1, (soft - KEPT_BACK) // 2)
