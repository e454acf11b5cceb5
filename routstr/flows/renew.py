"""Keeping the holds of running requests alive, and ending requests whose hold is lost.

Holds are leases: an owner that is silent for `hold_lease_s` loses them, so one that could not
renew for `hold_owner_silent_s` ends its requests while it can still settle them.
"""

import asyncio
from collections.abc import Mapping
from typing import Final

import structlog

from routstr.errors import ServiceUnavailable
from routstr.flows.context import Context
from routstr.ledger.holds import Renew

log = structlog.get_logger()

TOGETHER_MAX: Final = 1_000


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
    begun_s = ctx.monotonic_s()
    ctx.failpoint("renew.before")
    try:
        async with asyncio.timeout(limits.hold_renew_s):
            alive = await _renewed(ctx, holds)
    except (ServiceUnavailable, TimeoutError):
        if ctx.holds.renewed_at_s is None:  # it never worked: the silence counts from here
            ctx.holds.renewed_at_s = ctx.monotonic_s()
        silent_s = ctx.monotonic_s() - ctx.holds.renewed_at_s
        log.warning("holds_not_renewed", count=len(holds), elapsed_s=silent_s)
        if silent_s >= limits.hold_owner_silent_s:
            ctx.holds.stop(holds)  # those alone: the node itself goes on
        return
    ctx.failpoint("renew.after")
    ctx.holds.note_renewed(alive, at_s=begun_s, lease_s=limits.hold_lease_s)
    lost = (holds.keys() - alive) & ctx.holds.keys().keys()  # the others have ended meanwhile
    if lost:
        log.warning("holds_lost", count=len(lost))
        ctx.holds.stop(lost)


async def _renewed(ctx: Context, holds: Mapping[str, str]) -> set[str]:
    """Those that are alive. Of many some at a time: others' commands get their turn in between."""
    ids, alive = list(holds), set[str]()
    for start in range(0, len(ids), TOGETHER_MAX):
        some = {id_: holds[id_] for id_ in ids[start : start + TOGETHER_MAX]}
        command = Renew(holds=some, owner=ctx.owner, lease_s=ctx.limits.hold_lease_s)
        alive |= await ctx.ledger.submit(command)
    return alive
