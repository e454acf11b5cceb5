"""What this process has logged lately, and all that is known of one request.

Lines are as they were written: redacted, fields of the allow-list only, nothing of content. They
live in memory, so those of another process or of an earlier start are not among them; what the
ledger says of a request is there whoever served it.
"""

from dataclasses import dataclass

from routstr.errors import InvalidParameter, NotFound
from routstr.flows.context import Context
from routstr.ledger.reads_house_lists import ChainRow, ChainSearch, chain_rows
from routstr.ledger.reads_requests import ReservationView, find_reservation
from routstr.log import LEVELS, KeptLine, kept_lines

LINES_MAX = 1_000
ROWS_MAX = 20

__all__ = ["KeptLine", "RequestLog", "of_request", "recent"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestLog:
    """A request: its lines, its hold, and the rows of the ledger that it ended in."""

    request_id: str
    lines: tuple[KeptLine, ...]
    reservation: ReservationView | None
    rows: tuple[ChainRow, ...]


def recent(
    ctx: Context,
    *,
    level: str = "debug",
    search: str = "",
    limit: int = 200,
    before: int | None = None,
) -> tuple[KeptLine, ...]:
    """The newest lines first, of that level or worse, with the text in them, below that number.

    Raises InvalidParameter.
    """
    if level not in LEVELS:
        raise InvalidParameter(f"One of {', '.join(LEVELS)}.", param="level")
    if not 1 <= limit <= LINES_MAX:
        raise InvalidParameter(f"From 1 to {LINES_MAX}.", param="limit")
    return kept_lines(level=level, search=search, limit=limit, before=before)


async def of_request(ctx: Context, request_id: str) -> RequestLog:
    """All of one request. Raises NotFound when nothing is known of it."""
    lines = kept_lines(request_id=request_id, limit=LINES_MAX)
    async with ctx.database.reading() as connection:
        reservation = await find_reservation(connection, request_id)
        search = ChainSearch(operation_id=f"end:{request_id}")
        rows = await chain_rows(connection, search, limit=ROWS_MAX)
    if not lines and reservation is None and not rows:
        raise NotFound("Nothing is known of that request here.", param="request_id")
    return RequestLog(request_id=request_id, lines=lines, reservation=reservation, rows=tuple(rows))
