"""`routstr status`: the dashboard's overview in a few lines, beside a running node or not."""

import asyncio
import json
from typing import Annotated, Any, Final

import typer

from routstr.cli.shared import is_running, quiet_settings, watching
from routstr.config import Settings
from routstr.core.money import sats_text
from routstr.flows.house.overview import Overview, overview

NEEDS_MAX: Final = 6
HOURS: Final = 24


def command(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """How the node is: its money, what it sold in a day, and what needs you.

    Exit 1 when something that is urgent now does.
    """
    settings = quiet_settings()
    seen, paused = asyncio.run(_look(settings))
    is_urgent = any(need.urgency == "now" for need in seen.needs)
    if as_json:
        typer.echo(json.dumps(_json(seen, paused)))
    else:
        for line in lines(seen, paused, runs=is_running(settings)):
            typer.echo(line)
    raise typer.Exit(1 if is_urgent else 0)


async def _look(settings: Settings) -> tuple[Overview, tuple[str, ...]]:
    async with watching(settings) as ctx:
        return await overview(ctx, hours=HOURS), ctx.switches.paused


def lines(seen: Overview, paused: tuple[str, ...], *, runs: bool) -> list[str]:
    """At most fifteen of them."""
    money, sold = seen.money, seen.usage.total
    charged = _sats(sold.sums.charged_msat)
    said = [
        f"node      {'running' if runs else 'stopped'}",
        f"wallet    {_sats(money.wallet_msat)} at {_many(len(seen.mints), 'mint')}",
        f"users     {_sats(money.users_msat)}, of it held {_sats(money.held_msat)}",
        f"in flight {_sats(money.in_flight_msat)}",
        f"yours     {_sats(money.yours_msat)}, to take now {_sats(money.takeable_msat)}",
        f"sold      {_many(sold.sums.requests, 'request')} in {HOURS} h, for {charged}",
        f"failed    {sold.failed}",
        f"paused    {', '.join(paused) or 'nothing'}",
    ]
    if not seen.needs:
        return [*said, "needs you nothing"]
    shown = [f"needs you {need.text}" for need in seen.needs[:NEEDS_MAX]]
    more = len(seen.needs) - len(shown)
    return [*said, *shown, *([f"          and {more} more"] if more else [])]


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _sats(amount_msat: int) -> str:
    sign = "-" if amount_msat < 0 else ""
    return f"{sign}{sats_text(abs(amount_msat))} sat"


def _json(seen: Overview, paused: tuple[str, ...]) -> dict[str, Any]:
    money, sold = seen.money, seen.usage.total
    return {
        "money": {name: getattr(money, name) for name in type(money).__slots__},
        "last_24_h": {
            "requests": sold.sums.requests,
            "charged_msat": sold.sums.charged_msat,
            "failed": sold.failed,
        },
        "paused": list(paused),
        "needs": [{"kind": each.kind, "text": each.text, "urgency": each.urgency}
                  for each in seen.needs],
        "mints": [
            {"url": each.url, "held_msat": each.held_msat, "is_silent": each.is_silent}
            for each in seen.mints
        ],
    }  # fmt: skip
