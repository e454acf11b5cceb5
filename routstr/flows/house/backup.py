"""Backups of the node: made beside its work, opened again to the last byte, and listed.

A backup is taken in a thread and never holds a writer up. One that fails leaves nothing that looks
like a backup; the job says so, and comes again.
"""

import asyncio
import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TypeVar

import structlog

from routstr.errors import ConfigError, ServiceUnavailable
from routstr.flows.context import Context
from routstr.ledger.backups import BackupSeen, BackupStore, database_facts
from routstr.ledger.engine import Database

__all__ = [
    "BackupSeen",
    "backup_regularly",
    "backups",
    "create_backup",
    "in_thread",
    "make_backup",
]

log = structlog.get_logger()

ResultT = TypeVar("ResultT")
Check = Callable[[], None]


async def backups(ctx: Context) -> list[BackupSeen]:
    """The backups there are, newest first."""
    if ctx.backups is None:
        return []
    return await asyncio.to_thread(ctx.backups.listed)


async def create_backup(ctx: Context) -> BackupSeen:
    """Make a backup now and open it again; the oldest beyond the number to keep are removed.

    Raises ServiceUnavailable, whose message tells the operator what is in the way.
    """
    if ctx.backups is None:
        raise ServiceUnavailable("No backups are made here.")
    try:
        seen = await make_backup(ctx.backups, ctx.database, now=ctx.clock.now())
    except ConfigError as error:
        raise ServiceUnavailable(str(error)) from error
    log.info("backup_made", engine=seen.engine, body_bytes=seen.bytes)
    return seen


async def make_backup(store: BackupStore, database: Database, *, now: datetime) -> BackupSeen:
    """The same where no node runs. Raises ConfigError."""
    facts = await database_facts(database)
    return await in_thread(lambda check: store.create(facts, now=now, check=check))


async def backup_regularly(ctx: Context) -> tuple[bool, Mapping[str, object]]:
    """The job: false, with the reason, when no backup could be made."""
    try:
        seen = await create_backup(ctx)
    except ServiceUnavailable as error:
        return False, {"reason": error.message}
    return True, {"name": seen.name, "bytes": seen.bytes}


async def in_thread(work: Callable[[Check], ResultT]) -> ResultT:
    """Do it in a thread, and have it end there soon if whoever waits for it is cancelled."""
    stopping = threading.Event()

    def check() -> None:
        if stopping.is_set():
            raise _Stopped

    try:
        return await asyncio.to_thread(work, check)
    finally:
        stopping.set()


class _Stopped(Exception):
    """The node ends; nobody waits for this any more."""
