"""Every command beside `serve`, gathered for the one command line."""

import typer

from routstr.cli import (
    admin,
    audit,
    backup,
    backup_restore,
    catalog,
    invites,
    jobs,
    keys,
    settings,
    status,
    upstreams,
    verify,
    wallet,
)


def add_commands(cli: typer.Typer) -> None:
    """Let `cli` know them all."""
    cli.command("status")(status.command)
    cli.command("audit")(audit.command)
    cli.command("verify")(verify.command)
    cli.add_typer(admin.cli, name="admin")
    cli.add_typer(wallet.cli, name="wallet")
    cli.add_typer(keys.cli, name="keys")
    cli.add_typer(settings.cli, name="settings")
    cli.add_typer(invites.cli, name="invites")
    cli.add_typer(_backup(), name="backup")
    cli.add_typer(upstreams.cli, name="upstreams")
    cli.add_typer(jobs.cli, name="jobs")
    cli.add_typer(catalog.models, name="models")
    cli.add_typer(catalog.routes, name="routes")
    cli.add_typer(catalog.prices, name="prices")


def _backup() -> typer.Typer:
    backup.cli.command("restore")(backup_restore.command)
    return backup.cli


def command_line() -> typer.Typer:
    """All but `serve`, for who runs commands in a process of his own."""
    cli = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
    add_commands(cli)
    return cli
