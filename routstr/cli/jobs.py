"""`routstr jobs`: what the node does by itself, how it went, and one of the jobs now."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Final

import typer

from routstr.cli.shared import acting, print_table, quiet_settings, watching
from routstr.config import Settings
from routstr.core.money import sats_text
from routstr.flows.house.jobs import JobShown, jobs_shown, preview, run_job, runs_of
from routstr.ledger.reads_jobs import RunView

ASKED_BY: Final = "cli"

cli = typer.Typer(help="What the node does by itself, and how it went.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]


@cli.command("list")
def list_jobs(as_json: AsJson = False) -> None:
    """All jobs: how often they run, when they ran last, and what came of it.

    Works beside a running node and on a stopped one.
    """
    shown = asyncio.run(_list(quiet_settings()))
    if as_json:
        typer.echo(json.dumps([asdict(job) for job in shown], default=_as_text))
        return
    rows = [
        (job.name, f"{job.every_s:g} s", _last(job), _how(job), _said(job.result)) for job in shown
    ]
    print_table(("job", "every", "last run", "", "result"), rows)


async def _list(settings: Settings) -> tuple[JobShown, ...]:
    async with watching(settings) as ctx:
        return await jobs_shown(ctx)


@cli.command()
def history(
    name: Annotated[str | None, typer.Argument(help="Only this job.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """The runs that were asked for, changed something, or failed; the newest first."""
    runs = asyncio.run(_history(quiet_settings(), name, limit))
    if as_json:
        typer.echo(json.dumps([asdict(run) for run in runs], default=_as_text))
        return
    rows = [
        (
            run.name,
            _when(run.started_at),
            run.asked_by or "schedule",
            "dry run" if run.is_dry else _ended(run.ok),
            _said(run.result),
        )
        for run in runs
    ]
    print_table(("job", "began", "asked by", "", "result"), rows)


async def _history(settings: Settings, name: str | None, limit: int) -> list[RunView]:
    async with watching(settings) as ctx:
        return await runs_of(ctx, name, limit)


@cli.command()
def run(
    name: Annotated[str, typer.Argument(help="Which, as `routstr jobs list` has it.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would do, and change nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run a job now, due or not; exit 1 if it is not well.

    On SQLite the node must be stopped for it. A dry run works beside a running node too.
    """
    settings = quiet_settings()
    ok, result = asyncio.run(_look(settings, name) if dry_run else _run(settings, name))
    if as_json:
        typer.echo(json.dumps({"ok": ok, "result": result}, default=_as_text))
    else:
        for each, value in result.items():
            typer.echo(f"{_label(each)}: {_value(each, value)}")
    raise typer.Exit(0 if ok else 1)


async def _run(settings: Settings, name: str) -> tuple[bool, Mapping[str, object]]:
    async with acting(settings) as ctx:
        return await run_job(ctx, name, asked_by=ASKED_BY)


async def _look(settings: Settings, name: str) -> tuple[bool, Mapping[str, object]]:
    async with watching(settings) as ctx:
        return True, await preview(ctx, name)


# ── for people ────────────────────────────────────────────────────────────────────────────────


def _when(at: datetime | None) -> str:
    return "never" if at is None else f"{at:%Y-%m-%d %H:%M:%S}"


def _last(job: JobShown) -> str:
    """What runs in every process leaves a row only when it failed."""
    is_silent = job.finished_at is None and not job.is_shared
    return "always on" if is_silent else _when(job.finished_at)


def _how(job: JobShown) -> str:
    return "running" if job.is_running else _ended(job.ok)


def _ended(ok: bool | None) -> str:
    return "" if ok is None else "ok" if ok else "failed"


def _said(result: Mapping[str, object] | None) -> str:
    """What of a result is a figure, or not empty."""
    shown = {name: value for name, value in (result or {}).items() if not isinstance(value, dict)}
    return ", ".join(f"{_label(name)} {_value(name, value)}" for name, value in shown.items())


def _label(name: str) -> str:
    return name.removesuffix("_msat").replace("_", " ")


def _value(name: str, value: object) -> object:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name.endswith("_msat") and isinstance(value, int):
        return f"{sats_text(value)} sat"
    return "none" if value in ({}, [], "", None) else value


def _as_text(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
