"""Putting a backup where its database was: everything is looked at first, then all of it is done.

Whoever calls keeps nodes from starting meanwhile. What follows is `recover.py`: until that is done
the database says that it is half restored.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from routstr.errors import RestoreRefused
from routstr.flows.house.backup import in_thread
from routstr.ledger.backups import BackupStore, Opened
from routstr.ledger.migrate import knows_revision
from routstr.ledger.target import (
    begin_filling,
    end_filling,
    fill,
    forget_filling,
    look_at,
    make_ready,
    place_sqlite,
    sqlite_path,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placing:
    """What to put in place: the file, and a directory for its copy on the same disk.

    With `force` a SQLite database that is there is put aside. `before` is called when nothing can
    be refused any more, and nothing is touched yet.
    """

    backup: Path
    draft: Path
    force: bool
    acceptance_key: int
    now: datetime
    before: Callable[[], None]


async def put_in_place(store: BackupStore, placing: Placing) -> Path | None:
    """Where the database is now that was there before, if there was one.

    Finds it done if it was done before. Raises RestoreRefused, with nothing touched: for a file
    that is damaged, of another key, engine or a newer schema, and a database that is not empty.
    """
    path, draft = placing.backup, placing.draft
    opened = await in_thread(lambda check: store.open_into(path, draft, check=check))
    _check_fits(store, opened)
    url, copy = store.database_url, opened.database
    backup, key, now = opened.header.content_sha256, placing.acceptance_key, placing.now
    target = await look_at(url, backup=backup)
    if target == "begun":
        await forget_filling(url)
        return None
    if target == "other" and not (placing.force and store.engine == "sqlite"):
        raise RestoreRefused(_not_empty(store))
    placing.before()
    if store.engine == "sqlite":
        await make_ready(copy, backup=backup, acceptance_key=key, now=now)
        return place_sqlite(copy, sqlite_path(url), now=now)
    if target == "empty":
        await begin_filling(url, backup=backup)
        await in_thread(lambda check: fill(store.tools, copy, check=check))
    await end_filling(url, backup=backup, acceptance_key=key, now=now)
    return None


def _check_fits(store: BackupStore, opened: Opened) -> None:
    header = opened.header
    if header.engine != store.engine:
        raise RestoreRefused(f"the backup is of {header.engine}; DATABASE_URL names {store.engine}")
    if not knows_revision(header.revision):
        raise RestoreRefused(
            f"the backup has schema {header.revision}, which this version does not know: use the"
            f" version that made it ({opened.manifest.version}), or a newer one"
        )


def _not_empty(store: BackupStore) -> str:
    if store.engine == "sqlite":
        return "there is a database here already: move it away, or say --force to put it aside"
    return "the database is not empty: make a new one (createdb), and name it in DATABASE_URL"
