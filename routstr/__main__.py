"""The command line: `routstr serve | audit | verify | wallet …`, with `--help` for each."""

import asyncio
import gc
import signal
import socket
import sys
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from types import FrameType
from typing import Annotated, Any, Final

import typer
import uvicorn
import uvloop
from fastapi import FastAPI
from structlog.contextvars import bind_contextvars

from routstr import __version__
from routstr.app import create_app, end_requests
from routstr.cli.shared import acting
from routstr.cli.workers import Supervisor, Worker, check_workers, told
from routstr.config import WORKERS_MAX, Settings, check_for_serving, load_settings
from routstr.errors import ConfigError
from routstr.flows.context import Context
from routstr.flows.house.setup import new_setup_link, setup_url
from routstr.log import configure
from routstr.web.descriptors import raise_descriptors
from routstr.web.head import REQUEST_LINE_BYTES_MAX, bounded_head
from routstr.web.metrics import said
from routstr.web.refusal import Refusal

STOP_MARGIN_S: Final = 5
KEEP_ALIVE_S: Final = 75
GC_THRESHOLDS: Final = (5_000, 10, 10)

cli = typer.Typer(
    name="routstr",
    help="A node that sells an HTTP API per request, for ecash, without accounts.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@cli.command()
def serve(
    workers: Annotated[
        int | None,
        typer.Option(min=1, max=WORKERS_MAX, help="Processes on one port, on PostgreSQL."),
    ] = None,
) -> None:
    """Run the node: migrate the database, finish what a crash left open, then serve.

    Settings come from the environment and from `.env`; the README lists them.
    """
    settings = check_for_serving(load_settings())
    if workers is not None:
        settings = settings.model_copy(update={"workers": workers})
    check_workers(settings)
    configure(settings.log_level, json=settings.log_json)
    raise_descriptors()
    if settings.workers == 1:
        serve_app(create_app(settings), settings)
    else:
        _serve_together(settings)


def serve_app(app: FastAPI, settings: Settings) -> None:
    """Serve an app until it is told to stop (SIGTERM, SIGINT).

    Raises ConfigError for what keeps it from starting, before a connection is taken.
    """
    with bound(settings) as door:
        _run(_serve(app, settings, door))


def _serve_together(settings: Settings) -> None:
    """The same in several processes on one socket. Raises ConfigError, RoutstrError."""
    with bound(settings) as door:

        def work(worker: Worker) -> None:
            bind_contextvars(worker=worker.number)
            _run(_serve(create_app(settings), settings, door, worker))

        supervisor = Supervisor(
            settings.workers, prepare=lambda: _run(_prepare(settings, door)), work=work
        )
        status = supervisor.run()
    if status:
        sys.exit(status)


def _run(serving: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serving)


async def _prepare(settings: Settings, door: socket.socket) -> None:
    """What is done once for all processes: the schema, the node's secrets, the first link."""
    async with acting(settings) as ctx:
        await _tell_first_link(ctx, door)


async def _serve(
    app: FastAPI, settings: Settings, door: socket.socket, worker: Worker | None = None
) -> None:
    config = uvicorn.Config(
        app,
        http=bounded_head(
            bytes_max=REQUEST_LINE_BYTES_MAX + settings.header_bytes_max,
            lines_max=settings.header_lines_max,
            timeout_s=settings.head_timeout_s,
            stall_s=lambda: _stall_s(app, settings),
            refusal=Refusal(app),
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
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(app.router.lifespan_context(app))
        if worker is None:
            await _tell_first_link(getattr(app.state, "ctx", None), door)
        else:
            worker.watch_parent()
            app.state.siblings = worker.siblings
            telling = await worker.siblings.serve(lambda: said(app.state.ctx))
            stack.callback(telling.close)
        _settle_memory()
        server = GracefulServer(config, drain_s=settings.shutdown_drain_s, worker=worker)
        await server.serve(sockets=[door])


def _stall_s(app: FastAPI, settings: Settings) -> float:
    """How long a client may read nothing: as the dashboard says, once there is one."""
    ctx = getattr(app.state, "ctx", None)
    limits = ctx.limits if isinstance(ctx, Context) else settings
    return limits.client_stall_timeout_s


def _settle_memory() -> None:
    """Let the collector look at nothing that is there for good, and only now and then at the rest.

    What a request leaves is freed by its reference counts: with Python's own thresholds a seventh
    of its time went into looking for cycles that are hardly ever there.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


async def _tell_first_link(ctx: object, door: socket.socket) -> None:
    """On a node's very first start, how its operator begins: on standard output, in no log."""
    if not isinstance(ctx, Context):
        return
    token = await new_setup_link(ctx, actor="node", is_first=True)
    if token is None:
        return
    host, port = door.getsockname()[:2]
    url = setup_url(ctx, token, host=str(host), port=int(port))
    typer.echo(f"Set up the dashboard, once: {url}")
    sys.stdout.flush()


def bound(settings: Settings) -> socket.socket:
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
    """Uvicorn, which when told to stop serves on for `drain_s`, and says so to balancers first.

    Then it also ends the running requests once the grace is over: without that, streams longer
    than the grace would be torn from their clients by the server instead of being ended by us with
    their cost.
    """

    def __init__(
        self, config: uvicorn.Config, *, drain_s: float = 0, worker: Worker | None = None
    ) -> None:
        """Nothing is served yet; the `worker`'s parent hears when it is."""
        super().__init__(config)
        self._drain_s = drain_s
        self._worker = worker
        self._is_leaving = False

    @property
    def _ctx(self) -> Context | None:
        ctx = getattr(self.config.app.state, "ctx", None)  # type: ignore[union-attr]  # our FastAPI
        return ctx if isinstance(ctx, Context) else None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then tell the parent."""
        await super().startup(sockets)
        if self._worker is not None:
            self._worker.note_serving()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Leave, and end once the drain is over; at once when told so again."""
        if not self._drain_s or self._is_leaving:
            super().handle_exit(sig, frame)
            return
        self._is_leaving = True
        if self._ctx is not None:
            self._ctx.departure.begin()
        # Whoever keeps a connection finds another node after its next answer.
        self.config.encoded_headers.append((b"connection", b"close"))
        self.server_state.default_headers = [
            *self.server_state.default_headers,
            (b"connection", b"close"),
        ]
        asyncio.get_running_loop().call_later(self._drain_s, self._end)

    def _end(self) -> None:
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Refuse new connections, end what runs, then close."""
        if self._ctx is not None:
            self._ctx.departure.begin()
            self._ctx.tasks.start(end_requests(self._ctx), name="end requests")
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take both signals while serving; uvicorn would raise them again and cut our own end."""
        loop = asyncio.get_running_loop()
        # A worker's Ctrl-C is its parent's affair, which passes it on.
        taken = [signal.SIGTERM, signal.SIGINT] if self._worker is None else [signal.SIGTERM]
        for number in taken:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in taken:
                loop.remove_signal_handler(number)


@cli.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def main() -> None:
    """Run the command line; what is wrong is one line on stderr: settings exit 2, else 1."""
    if sys.argv[1:2] != ["serve"]:  # a node has no memory to give to commands it does not run
        from routstr.cli.commands import add_commands  # noqa: PLC0415 - see above

        add_commands(cli)
    if status := told(lambda: cli(standalone_mode=True)):
        sys.exit(status)


if __name__ == "__main__":
    main()
