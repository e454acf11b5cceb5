"""What every command of the operator opens: the database to look at, or a context that acts."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import typer

from routstr.app import end_requests, observing
from routstr.assembly import Ids, assemble, open_ledger
from routstr.config import Settings, check_mints, load_settings
from routstr.errors import ConfigError
from routstr.flows.context import Context
from routstr.flows.hear import tell_all
from routstr.ledger.commands import Wallet
from routstr.ledger.engine import Database, lock_directory, sqlite_directories
from routstr.ledger.restores import check_restored
from routstr.log import configure

SETTLE_S: Final = 5.0
PIPE_WIDTH: Final = 240


def quiet_settings() -> Settings:
    """The settings, and a log that says only what is wrong. Raises ConfigError."""
    configure("WARNING", json=False)
    return load_settings()


def is_running(settings: Settings) -> bool:
    """Whether a node owns the SQLite database; PostgreSQL cannot tell, so it is assumed."""
    directories = sqlite_directories(settings.database_url, settings.data_dir)
    try:
        for directory in directories:
            if directory.exists():
                lock_directory(directory).release()
    except ConfigError:
        return True
    return not directories


def check_free(settings: Settings) -> None:
    """Raises ConfigError for a SQLite database that a node is at work on."""
    on_sqlite = bool(sqlite_directories(settings.database_url, settings.data_dir))
    if on_sqlite and is_running(settings):
        raise ConfigError("a node is at work here: stop the node first, or use its dashboard")


@asynccontextmanager
async def looking(settings: Settings) -> AsyncIterator[tuple[Database, Wallet]]:
    """The database to read, beside a running node or on a stopped one. Raises ConfigError."""
    async with AsyncExitStack() as stack:
        database, _, wallet = await open_ledger(settings, Ids(), stack, may_write=False)
        yield database, wallet


@asynccontextmanager
async def watching(settings: Settings) -> AsyncIterator[Context]:
    """A context that only reads, beside a running node or on a stopped one. Raises ConfigError."""
    async with observing(_without_upstream(settings)) as ctx:
        yield ctx


@asynccontextmanager
async def acting(
    settings: Settings, *, more_mints: Sequence[str] = (), is_restoring: bool = False
) -> AsyncIterator[Context]:
    """A context that writes, without doors and jobs, at the node's mints and `more_mints`.

    What it leaves open, the node goes on with. A restore deals with those mints and no others,
    whatever the operator changed. Raises ConfigError.
    """
    check_free(settings)
    mints = (*settings.cashu_mints, *more_mints)
    checked = check_mints(settings.model_copy(update={"cashu_mints": mints}))
    async with AsyncExitStack() as stack:
        ctx = await assemble(
            _without_upstream(checked), Ids(), _nothing, stack, is_restoring=is_restoring
        )
        if not is_restoring:
            async with ctx.database.reading() as connection:
                await check_restored(connection)
        ledger = asyncio.get_running_loop().create_task(ctx.ledger.run(), name="ledger")
        try:
            yield ctx
        finally:
            await end_requests(ctx)
            await ctx.tasks.finish(SETTLE_S)
            ctx.ledger.stop()
            await ledger
            await tell_all(ctx)


def _without_upstream(settings: Settings) -> Settings:
    """Nothing is sold by a command."""
    return settings.model_copy(update={"upstream_base_url": "", "models_file": None})


def _nothing(_: str) -> None:
    """No failpoint is armed."""


def print_table(
    names: Sequence[str], rows: Sequence[Sequence[Any]], *, empty: str = "nothing yet"
) -> None:
    """A table for people, whose first column is never broken; `empty` says what would fill it.

    Written into a file or a pipe it is as wide as it needs to be.
    """
    if not rows:
        typer.echo(empty)
        return
    # Here, because a node has this module too, and prints no table.
    from rich import box  # noqa: PLC0415 - see above
    from rich.console import Console  # noqa: PLC0415 - see above
    from rich.table import Table  # noqa: PLC0415 - see above
    from rich.text import Text  # noqa: PLC0415 - see above

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for at, name in enumerate(names):
        table.add_column(name, overflow="fold", no_wrap=at == 0)
    for row in rows:
        table.add_row(*(Text(str(each)) for each in row))  # never markup: names are strangers'
    console = Console()
    Console(width=None if console.is_terminal else PIPE_WIDTH).print(table)
