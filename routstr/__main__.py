"""The command line: `routstr serve | audit | verify | wallet …`, with `--help` for each."""

import asyncio
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import typer
import uvicorn
import uvloop
from fastapi import FastAPI

from routstr import __version__
from routstr.app import create_app, end_requests
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
from routstr.config import Settings, check_for_serving, load_settings
from routstr.errors import ConfigError, RoutstrError
from routstr.flows.context import Context
from routstr.flows.house.setup import new_setup_link, setup_url
from routstr.log import configure
from routstr.web.head import REQUEST_LINE_BYTES_MAX, bounded_head

STOP_MARGIN_S: Final = 5
KEEP_ALIVE_S: Final = 75

cli = typer.Typer(
    name="routstr",
    help="A node that sells an HTTP API per request, for ecash, without accounts.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
cli.command("status")(status.command)
cli.command("audit")(audit.command)
cli.command("verify")(verify.command)
cli.add_typer(admin.cli, name="admin")
cli.add_typer(wallet.cli, name="wallet")
cli.add_typer(keys.cli, name="keys")
cli.add_typer(settings.cli, name="settings")
cli.add_typer(invites.cli, name="invites")
backup.cli.command("restore")(backup_restore.command)
cli.add_typer(backup.cli, name="backup")
cli.add_typer(upstreams.cli, name="upstreams")
cli.add_typer(jobs.cli, name="jobs")
cli.add_typer(catalog.models, name="models")
cli.add_typer(catalog.routes, name="routes")
cli.add_typer(catalog.prices, name="prices")


@cli.command()
def serve() -> None:
    """Run the node: migrate the database, finish what a crash left open, then serve.

    Settings come from the environment and from `.env`; the README lists them.
    """
    settings = check_for_serving(load_settings())
    configure(settings.log_level, json=settings.log_json)
    serve_app(create_app(settings), settings)


def serve_app(app: FastAPI, settings: Settings) -> None:
    """Serve an app until it is told to stop (SIGTERM, SIGINT).

    Raises ConfigError for what keeps it from starting, before a connection is taken.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(app, settings))


async def _serve(app: FastAPI, settings: Settings) -> None:
    config = uvicorn.Config(
        app,
        http=bounded_head(
            bytes_max=REQUEST_LINE_BYTES_MAX + settings.header_bytes_max,
            lines_max=settings.header_lines_max,
            timeout_s=settings.head_timeout_s,
        ),
        ws="none",
        lifespan="off",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        log_config=None,
        timeout_graceful_shutdown=int(settings.shutdown_grace_s) + STOP_MARGIN_S,
        timeout_keep_alive=KEEP_ALIVE_S,
    )
    with _bound(settings) as door:
        async with app.router.lifespan_context(app):
            await _tell_first_link(app, door)
            await GracefulServer(config).serve(sockets=[door])


async def _tell_first_link(app: FastAPI, door: socket.socket) -> None:
    """On a node's very first start, how its operator begins: on standard output, in no log."""
    ctx = getattr(app.state, "ctx", None)
    if not isinstance(ctx, Context):
        return
    token = await new_setup_link(ctx, actor="node", is_first=True)
    if token is None:
        return
    host, port = door.getsockname()[:2]
    url = setup_url(ctx, token, host=str(host), port=int(port))
    typer.echo(f"Set up the dashboard, once: {url}")
    sys.stdout.flush()


def _bound(settings: Settings) -> socket.socket:
    """The address, taken; nobody is let in before the server listens. Raises ConfigError."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    door = socket.socket(family, socket.SOCK_STREAM)
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        door.bind((settings.host, settings.port))
    except OSError as error:
        door.close()
        reason = error.strerror or "no such address"
        raise ConfigError(
            f"PORT: {settings.host}:{settings.port} cannot be used: {reason}"
        ) from error
    return door


class GracefulServer(uvicorn.Server):
    """Uvicorn, which when told to stop also ends the running requests once the grace is over.

    Without that, streams longer than the grace would be torn from their clients by the server
    instead of being ended by us with their cost.
    """

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Refuse new connections, end what runs, then close."""
        ctx = getattr(self.config.app.state, "ctx", None)  # type: ignore[union-attr]  # our FastAPI
        if isinstance(ctx, Context):
            ctx.tasks.start(end_requests(ctx), name="end requests")
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take both signals while serving; uvicorn would raise them again and cut our own end."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)


@cli.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def main() -> None:
    """Run the command line; what is wrong is one line on stderr: settings exit 2, else 1."""
    try:
        cli(standalone_mode=True)
    except ConfigError as error:
        typer.echo(f"routstr: {error}", err=True)
        sys.exit(2)
    except RoutstrError as error:
        typer.echo(f"routstr: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
