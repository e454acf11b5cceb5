"""`routstr wallet restore`: the coins of a lost database, had back from the mints with the seed."""

import asyncio
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from routstr.assembly import Ids, WallClock, open_ledger
from routstr.cli.shared import acting, check_free, quiet_settings
from routstr.config import Settings, check_mints
from routstr.ecash.secret import check_mnemonic
from routstr.errors import ConfigError, RoutstrError
from routstr.flows.house.settings import listed_mints
from routstr.flows.restore import BATCH, EMPTY_BATCHES, Restored, restore_mint
from routstr.ledger.restores import adopt_mnemonic, finish_restore

Mints = Annotated[
    list[str] | None, typer.Option("--mint", help="A mint beside those of CASHU_MINTS; repeatable.")
]
AcceptanceKey = Annotated[
    int, typer.Option(help="As `routstr wallet seed` told, if this is not the first restore.")
]
Gap = Annotated[
    int,
    typer.Option(
        min=BATCH, help="So many outputs in a row that no mint signed end the search at a keyset."
    ),
]


def command(
    mint: Mints = None, acceptance_key: AcceptanceKey = 1, gap: Gap = EMPTY_BATCHES * BATCH
) -> None:
    """Get the coins of a lost database back, with its twelve words, into an empty one.

    The words are asked for, or read from standard input. What is found is nobody's balance: users'
    balances are in the database alone. If it is interrupted, run it again; if it found too little,
    with a larger gap, before a node is started here.
    """
    settings = quiet_settings()
    check_free(settings)
    settings = check_mints(
        settings.model_copy(update={"cashu_mints": (*settings.cashu_mints, *(mint or ()))})
    )
    words = " ".join(_words().split()).lower()
    if not check_mnemonic(words):
        raise ConfigError("wallet restore: these are no words of a seed; check spelling and order")
    restored, failed = asyncio.run(_restore(settings, words, acceptance_key, gap // BATCH))
    _print(restored)
    for url, reason in failed:
        typer.echo(f"routstr: {url}: {reason}", err=True)
    if failed:
        typer.echo("routstr: not all mints were restored: run this again", err=True)
        raise typer.Exit(1)


def _words() -> str:
    if sys.stdin.isatty():
        return str(typer.prompt("The words of the seed", hide_input=True, err=True))
    return sys.stdin.readline()


async def _restore(
    settings: Settings, words: str, acceptance_key: int, empty_batches: int
) -> tuple[list[Restored], list[tuple[str, str]]]:
    """What was found, and (mint, reason) of those that could not be asked."""
    async with AsyncExitStack() as stack:
        database, _, wallet = await open_ledger(settings, Ids(), stack)
        await adopt_mnemonic(
            database, wallet.vault, words, acceptance_key=acceptance_key, now=WallClock().now()
        )
        listed = await listed_mints(database)
    restored: list[Restored] = []
    failed: list[tuple[str, str]] = []
    async with acting(settings, more_mints=listed, is_restoring=True) as ctx:
        for url in ctx.facts.mints:
            try:
                restored += await restore_mint(ctx, url, empty_batches=empty_batches)
            except RoutstrError as error:
                failed.append((url, error.message))
        if not failed:
            await finish_restore(ctx.database, now=ctx.clock.now())
    return restored, failed


def _print(restored: Sequence[Restored]) -> None:
    amounts: Counter[tuple[str, str]] = Counter()
    coins: Counter[tuple[str, str]] = Counter()
    pending: Counter[tuple[str, str]] = Counter()
    for each in restored:
        place = (each.mint_url, each.unit)
        amounts[place] += each.amount
        coins[place] += each.coins
        pending[place] += each.pending_amount
    table = Table()
    for name in ("mint", "unit", "found", "coins"):
        table.add_column(name, overflow="fold")
    for url, unit in amounts:
        table.add_row(url, unit, str(amounts[url, unit]), str(coins[url, unit]))
    Console().print(table)
    for (url, unit), amount in pending.items():
        if amount:
            typer.echo(
                f"{amount} {unit} at {url} are in a payment that is not over: to have them back"
                " should it fail, run this again later, before a node is started here.",
                err=True,
            )
