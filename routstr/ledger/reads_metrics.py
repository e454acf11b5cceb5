"""The few numbers of `/metrics` that only the database knows; each query finds a few rows."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select

from routstr.ledger.engine import ReadConnection
from routstr.ledger.reads import JobView
from routstr.ledger.reads_house import last_jobs
from routstr.ledger.sagas import IS_OPEN, MINT, OPEN_STATES, OPERATION


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredGauges:
    """Open operations by state, when each mint last answered, and how each job last went."""

    operations: dict[str, int]
    mints_answered_at: dict[str, datetime | None]
    jobs: tuple[JobView, ...]


async def stored_gauges(connection: ReadConnection) -> StoredGauges:
    """All of them, as they are now."""
    open_ones = (
        select(OPERATION.c.state, func.count().label("n"))
        .where(IS_OPEN)
        .group_by(OPERATION.c.state)
    )
    counted = {row.state: int(row.n) for row in await connection.execute(open_ones)}
    mints = await connection.execute(select(MINT.c.url, MINT.c.answered_at).order_by(MINT.c.url))
    return StoredGauges(
        operations={str(state): counted.get(str(state), 0) for state in OPEN_STATES},
        mints_answered_at={row.url: row.answered_at for row in mints},
        jobs=tuple((await last_jobs(connection)).values()),
    )
