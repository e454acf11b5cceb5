"""Counting what was abandoned for free with the other processes: the ration is the node's.

Each process counts what it sees, which costs nothing. Whenever it sees one more, it asks the audit
chain for those of all, so that a key gets its ration once, and one more for each other process.
"""

from datetime import timedelta

from routstr.errors import ServiceUnavailable
from routstr.flows.context import Context
from routstr.ledger.reads_early import early_leaves


async def count_with_others(
    ctx: Context, ration: str, *, key_id: str, spender_id: str | None
) -> None:
    """Put what all processes have seen of that key in the place of what this one has."""
    now, limits = ctx.clock.now(), ctx.limits
    try:
        async with ctx.database.reading() as connection:
            seen = await early_leaves(
                connection,
                key_id,
                spender_id=spender_id,
                since=now - timedelta(seconds=limits.early_leaves_window_s),
                limit=limits.early_leaves_max,
            )
    except ServiceUnavailable:
        return  # its own count stands
    ctx.early_leaves.put(ration, [(now - at).total_seconds() for at in seen])
