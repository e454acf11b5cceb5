"""A backup that is there, opened whole on the running node."""

from routstr.errors import NotFound, ServiceUnavailable
from routstr.flows.context import Context
from routstr.flows.house.backup import BackupSeen, backups, in_thread


async def verify_backup(ctx: Context, name: str) -> BackupSeen:
    """Open it to the last byte. `name` is one of the list, never a path.

    Raises NotFound, ServiceUnavailable, and RestoreRefused for one that is damaged or that another
    master key has sealed.
    """
    if ctx.backups is None:
        raise ServiceUnavailable("No backups are made here.")
    store, now = ctx.backups, ctx.clock.now()
    seen = next((each for each in await backups(ctx) if each.name == name), None)
    if seen is None:
        raise NotFound("There is no backup of that name.")
    await in_thread(lambda check: store.verify(name, now=now, check=check))
    return seen
