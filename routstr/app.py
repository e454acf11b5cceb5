"""The composition root: the node's life from start to stop, and the doors in front of it.

Start: settings checked, data directory locked, schema migrated, secrets opened, ledger running,
orphans of a dead process ended, then the doors open. Stop: doors closed, running requests given
`shutdown_grace_s`, then ended and settled, and the ledger drained before anything is closed.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import structlog
from fastapi import FastAPI

from routstr import __version__
from routstr.assembly import Ids, assemble
from routstr.config import Settings, check_for_serving
from routstr.flows.context import Context, Failpoint
from routstr.flows.expire import expire
from routstr.flows.hear import hear
from routstr.flows.refresh import open_catalog
from routstr.jobs.runner import JobRunner
from routstr.jobs.schedule import jobs
from routstr.ledger.leases import DropLeases
from routstr.ledger.restores import check_restored
from routstr.web.front import NodeApp
from routstr.web.routes import install_doors

log = structlog.get_logger()

STOP_POLL_S: Final = 0.05
SETTLE_S: Final = 5.0  # for the requests that were told to end
JOB_END_S: Final = 1.0  # for the jobs, all of which a later start does again


def create_app(settings: Settings, failpoint: Failpoint | None = None) -> NodeApp:
    """The node as an ASGI app; nothing is opened until its lifespan starts.

    `failpoint` is called at named points around every await on money; only tests arm it. Raises
    ConfigError for settings a node must not serve with.
    """
    checked = check_for_serving(settings)
    ids = Ids()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with running(checked, ids, failpoint or _nothing) as ctx:
            app.state.ctx = ctx
            yield

    app = NodeApp(
        title=checked.name,
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    install_doors(app, checked)
    return app


def _nothing(_: str) -> None:
    """No failpoint is armed."""


@asynccontextmanager
async def observing(settings: Settings) -> AsyncIterator[Context]:
    """A context that only reads, beside a running node or on a stopped one's database."""
    async with AsyncExitStack() as stack:
        yield await assemble(settings, Ids(), _nothing, stack, may_write=False)


@asynccontextmanager
async def running(settings: Settings, ids: Ids, failpoint: Failpoint) -> AsyncIterator[Context]:
    """A node at work, without its HTTP doors. Raises ConfigError when it must not start."""
    async with AsyncExitStack() as stack:
        ctx = await assemble(settings, ids, failpoint, stack)
        async with ctx.database.reading() as connection:
            await check_restored(connection)
        loop = asyncio.get_running_loop()
        ledger = loop.create_task(ctx.ledger.run(), name="ledger")
        if ctx.database.dialect == "sqlite":
            await ctx.ledger.submit(DropLeases())
            await expire(ctx, orphaned=True)
        await open_catalog(ctx)
        if not ctx.catalog.all():
            log.warning("nothing_on_sale")  # a new node, until an upstream is connected
        runner = JobRunner(ctx, jobs(ctx.limits))
        working = loop.create_task(runner.run(), name="jobs")
        hearing = [loop.create_task(hear(ctx), name="hear")]
        if ctx.notices is not None:
            hearing.append(loop.create_task(ctx.notices.run(), name="notices"))
        ctx.tasks.start(runner.begin(), name="jobs at start")
        log.info("node_started", version=__version__, engine=ctx.database.dialect)
        try:
            yield ctx
        finally:
            runner.stop()
            await end_requests(ctx)
            await ctx.tasks.finish(SETTLE_S)
            await _finish(working, JOB_END_S)
            for task in hearing:
                await _finish(task, 0)
            ctx.ledger.stop()
            await ledger
            log.info("node_stopped")


async def _finish(task: asyncio.Task[None], timeout_s: float) -> None:
    """Wait for it, then cancel it: a job may be in the middle of a mint's silence."""
    await asyncio.wait([task], timeout=timeout_s)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def end_requests(ctx: Context) -> None:
    """Let running requests end by themselves for the grace time, then end them, settled.

    What then still waits for a mint is left for the next start.
    """
    ctx.herald.end()
    deadline_s = ctx.monotonic_s() + ctx.limits.shutdown_grace_s
    while (len(ctx.holds) or ctx.tasks.resumable) and ctx.monotonic_s() < deadline_s:
        await ctx.clock.sleep(STOP_POLL_S)
    ctx.holds.stop()
    ctx.tasks.leave_resumable()
