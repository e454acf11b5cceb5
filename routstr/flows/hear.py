"""Hearing at once what another process of this node changed, and telling the others.

What was heard only says where to look; who hears nothing looks by himself, every `FOLLOW_S`, and
every `HEARD_LOOK_S` while notices arrive: a process that dies between its commit and its notice
tells nobody.
"""

from typing import Final

import structlog

from routstr.errors import ServiceUnavailable
from routstr.flows.context import Context
from routstr.flows.house import settings
from routstr.flows.refresh import follow as follow_catalog
from routstr.ledger.notices import CATALOG, SETTINGS, TOPICS, Notice

log = structlog.get_logger()

HEARD_LOOK_S: Final = 10.0
PAUSE_S: Final = 0.05  # what comes in a flood is looked at together


async def hear(ctx: Context) -> None:
    """Look at what others say has changed, until cancelled; at once and for nothing on SQLite."""
    if ctx.notices is None:
        return
    while True:
        notices = await ctx.notices.heard()
        try:
            await _look(ctx, notices)
        except ServiceUnavailable:
            log.warning("notices_not_followed", count=len(notices))  # the regular look comes
        except Exception:  # broad: one bad look must not end all the later ones
            log.exception("notices_not_followed", count=len(notices))
        ctx.herald.wake()
        await ctx.clock.sleep(PAUSE_S)


async def _look(ctx: Context, notices: frozenset[Notice]) -> None:
    for notice in notices:
        if notice.topic == SETTINGS and notice.version != ctx.live.now.version:
            await settings.follow(ctx)
        elif notice.topic == CATALOG:
            await follow_catalog(ctx, tells=False)


async def follow(ctx: Context) -> bool:
    """The regular look at the settings; whether anything had changed."""
    notices, now_s = ctx.notices, ctx.monotonic_s()
    if notices is not None:
        last_s = notices.looked_at_s
        if notices.is_heard and last_s is not None and now_s - last_s < HEARD_LOOK_S:
            return False
        notices.looked_at_s = now_s
    return await settings.follow(ctx)


async def tell_all(ctx: Context) -> None:
    """A program that acted beside the node ends: whoever hears it looks at everything."""
    if ctx.notices is not None:
        for topic in TOPICS:
            ctx.notices.tell(topic)
        await ctx.notices.flush()
