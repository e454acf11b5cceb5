"""Whether an upstream can be reached with the key kept for it: a question that costs nothing.

It is asked for its models, which every kind lists for free and none without its key; an answer that
takes longer than `TRY_S` is none. What it says is told in words of ours, never with the key.
"""

import asyncio
from dataclasses import dataclass
from typing import Final

from routstr.errors import NotFound
from routstr.flows.context import Context
from routstr.flows.refresh import config_of
from routstr.gateways.listing_http import NoListing
from routstr.ledger.reads_catalog import stored_upstreams

TRY_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What came of it: `models` it lists, after `ms`; `why` if it could not be used."""

    ok: bool
    base_url: str
    ms: int
    models: tuple[str, ...] = ()
    why: str | None = None


async def try_upstream(ctx: Context, ref: str) -> Tried:
    """Ask the upstream of that name or id for its models. Raises NotFound."""
    async with ctx.database.reading() as connection:
        rows = await stored_upstreams(connection)
    row = next((each for each in rows if ref in (each.slug, each.id)), None)
    if row is None:
        raise NotFound("There is no upstream of that name.", param="ref")
    config = config_of(ctx, row)
    if config is None or ctx.lists is None:
        cause = "Its key does not open." if config is None else "This node asks no upstream."
        return Tried(ok=False, base_url=row.base_url, ms=0, why=cause)
    began_s = ctx.monotonic_s()
    models: tuple[str, ...] = ()
    why: str | None = None
    try:
        async with asyncio.timeout(TRY_S):
            models = tuple(each.id for each in await ctx.lists.fetch(config))
    except TimeoutError:
        why = f"It did not answer within {TRY_S:.0f} s."
    except NoListing as error:
        why = f"{str(error)[:1].upper()}{str(error)[1:]}."
    took_ms = round((ctx.monotonic_s() - began_s) * 1000)
    return Tried(ok=why is None, base_url=row.base_url, ms=took_ms, models=models, why=why)
