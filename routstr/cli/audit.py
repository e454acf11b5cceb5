"""`routstr audit`: whether the books are whole."""

import asyncio
import json
from contextlib import AsyncExitStack
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from routstr.app import observing
from routstr.assembly import Ids, WallClock, open_ledger
from routstr.cli.shared import is_running
from routstr.config import Settings, check_for_serving, load_settings
from routstr.flows.audit import audit as audit_deeply
from routstr.ledger.audit import AuditReport, audit, report_json, report_rows
from routstr.log import configure


def command(
    full: Annotated[bool, typer.Option(help="Check every row, not only the recent ones.")] = True,
    deep: Annotated[bool, typer.Option(help="Also ask the mints about our proofs.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Check that the books are whole; exit 0 if they are, 1 if an invariant is broken.

    Works beside a running node and on a stopped one.
    """
    settings = load_settings()
    configure("WARNING", json=False)
    report = asyncio.run(_audit(settings, full=full, deep=deep))
    if as_json:
        typer.echo(json.dumps(report_json(report)))
    else:
        print_report(report)
    raise typer.Exit(0 if report.ok else 1)


async def _audit(settings: Settings, *, full: bool, deep: bool) -> AuditReport:
    if deep:
        async with observing(check_for_serving(settings)) as ctx:
            return await audit_deeply(ctx, full=full, deep=True, is_running=is_running(settings))
    async with AsyncExitStack() as stack:
        database, _, wallet = await open_ledger(settings, Ids(), stack, may_write=False)
        return await audit(
            database,
            wallet.vault,
            full=full,
            now=WallClock().now(),
            held_msat_max=settings.exposure_msat_max,
            is_running=is_running(settings),
        )


def print_report(report: AuditReport) -> None:
    """The audit for people: invariant by invariant, what there is, and the verdict."""
    table = Table(title="Audit", title_justify="left")
    for column in ("invariant", "what always holds", "found"):
        table.add_column(column)
    for name, title, found in report_rows(report):
        style = "green" if found == "ok" else "bold red"
        table.add_row(name, title, f"[{style}]{found}[/{style}]")
    console = Console()
    console.print(table)
    totals = report.totals
    console.print(
        f"balances {totals.balances_msat} msat, held by requests {totals.holds_msat} msat,"
        f" ecash {totals.held_msat} msat, surplus {totals.surplus_msat} msat"
    )
    verdict = "[green]The books are whole.[/green]"
    broken = ", ".join(report.broken)
    console.print(verdict if report.ok else f"[bold red]Broken: {broken}.[/bold red]")
