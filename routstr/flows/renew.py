"""Keeping the holds of running requests alive, and ending requests whose hold is lost.

Holds are leases: an owner that is silent for `hold_lease_s` loses them, so one that could not
renew for `hold_owner_silent_s` ends its requests while it can still settle them.
"""

import asyncio

import structlog

from routstr.errors import ServiceUnavailable
from routstr.flows.context import Context
from routstr.ledger.holds import Renew

log = structlog.get_logger()


async def renew(ctx: Context) -> None:
    """Renew every running hold at once; call it every `hold_renew_s`.

    A hold that is no longer alive stops its request, and so do all of them once renewing has
    failed for `hold_owner_silent_s`. Never raises for a database that is away.
    """
    limits = ctx.limits
    holds = ctx.holds.keys()
    if not holds:
        ctx.holds.note_renewed((), at_s=ctx.monotonic_s(), lease_s=limits.hold_lease_s)
        return
    command = Renew(holds=holds, owner=ctx.owner, lease_s=limits.hold_lease_s)
    ctx.failpoint("renew.before")
    try:
        async with asyncio.timeout(limits.hold_renew_s):
            alive = await ctx.ledger.submit(command)
    except (ServiceUnavailable, TimeoutError):
        if ctx.holds.renewed_at_s is None:  # it never worked: the silence counts from here
            ctx.holds.renewed_at_s = ctx.monotonic_s()
        silent_s = ctx.monotonic_s() - ctx.holds.renewed_at_s
        log.warning("holds_not_renewed", count=len(holds), elapsed_s=silent_s)
        if silent_s >= limits.hold_owner_silent_s:
            ctx.holds.stop(holds)  # those alone: the node itself goes on
        return
    ctx.failpoint("renew.after")
    ctx.holds.note_renewed(alive, at_s=ctx.monotonic_s(), lease_s=limits.hold_lease_s)
    lost = holds.keys() - alive
    if lost:
        log.warning("holds_lost", count=len(lost))
        ctx.holds.stop(lost)
