"""Backups of a database in which a node has lived, on both engines: whole, or not there at all."""

import asyncio
import os
import sqlite3
import stat
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest

from routstr.errors import ConfigError, RestoreRefused
from routstr.ledger.backups import (
    DRAFT,
    SUFFIX,
    BackupSeen,
    BackupStore,
    DatabaseFacts,
    database_facts,
    too_many,
)
from routstr.ledger.dump import PostgresTools
from routstr.ledger.engine import PoolSettings, open_database
from tests.harness.postgres import installed_programs

NOW: Final = datetime(2026, 11, 21, 20, tzinfo=UTC)


def go_on() -> None:
    """Nobody stops."""


class Stopped(Exception):
    """Somebody does."""


def stop_after(calls: int) -> Callable[[], None]:
    left = calls

    def check() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Stopped

    return check


def store_of(url: str, directory: Path, **changes: object) -> BackupStore:
    store = BackupStore(
        directory=directory,
        keep=14,
        database_url=url,
        programs=installed_programs(),
        master=bytes(range(32)),
        passphrase=None,
        settings={"name": "Till"},
        version="0",
        random_bytes=os.urandom,
    )
    return replace(store, **changes)  # type: ignore[arg-type]  # fields by name


def facts_of(url: str) -> DatabaseFacts:
    async def ask() -> DatabaseFacts:
        database = open_database(url, PoolSettings(size=1, overflow=0))
        try:
            return await database_facts(database)
        finally:
            await database.close()

    with ThreadPoolExecutor(1) as thread:  # the main thread's event loops are the tests' own
        return thread.submit(asyncio.run, ask()).result()


def test_what_is_made_is_whole_and_private(lived_url: str, tmp_path: Path) -> None:
    store = store_of(lived_url, tmp_path / "backups")
    facts = facts_of(lived_url)
    seen = store.create(facts, now=NOW, check=go_on)
    assert [seen] == store.listed()
    assert (seen.is_verified, seen.engine, seen.revision) == (True, store.engine, "0011")
    path = store.find(seen.name)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    header, manifest = store.verify(str(path), now=NOW, check=go_on)
    assert header.made_at == NOW
    assert manifest.settings == {"name": "Till"}
    assert manifest.counts["transaction"] > 0
    assert {each.suffix for each in store.directory.iterdir()} == {SUFFIX, ".verified"}


def test_another_key_is_named(lived_sqlite_url: str, tmp_path: Path) -> None:
    store = store_of(lived_sqlite_url, tmp_path)
    seen = store.create(facts_of(lived_sqlite_url), now=NOW, check=go_on)
    with pytest.raises(RestoreRefused, match="another master key"):
        replace(store, master=b"x" * 32).verify(seen.name, now=NOW, check=go_on)
    damaged = bytearray(store.find(seen.name).read_bytes())
    damaged[-1] ^= 1
    store.find(seen.name).write_bytes(damaged)
    with pytest.raises(RestoreRefused, match="damaged"):
        store.verify(seen.name, now=NOW, check=go_on)
    assert [each.is_verified for each in store.listed()] == [False]


def test_what_stops_on_the_way_is_no_backup(lived_url: str, tmp_path: Path) -> None:
    store = store_of(lived_url, tmp_path / "backups")
    facts = facts_of(lived_url)
    for calls in (0, 1, 3):
        with pytest.raises(Stopped):
            store.create(facts, now=NOW, check=stop_after(calls))
        assert not list(store.directory.iterdir())


def test_what_a_killed_process_left_goes_away(lived_sqlite_url: str, tmp_path: Path) -> None:
    store = store_of(lived_sqlite_url, tmp_path)
    draft = tmp_path / f"{DRAFT}dead"
    draft.mkdir()
    (draft / f"half{SUFFIX}").write_bytes(b"half")
    assert store.listed() == []
    later = datetime.fromtimestamp(time.time(), UTC) + timedelta(days=2)
    store.create(facts_of(lived_sqlite_url), now=later, check=go_on)
    assert not draft.exists()


def test_a_copy_is_of_one_moment_while_others_write(lived_sqlite: Path, tmp_path: Path) -> None:
    source = tmp_path / "busy.db"
    source.write_bytes(lived_sqlite.read_bytes())
    writer = sqlite3.connect(source, isolation_level=None)
    writer.execute("CREATE TABLE busy (n INTEGER, filler BLOB)")
    writer.execute("INSERT INTO busy VALUES (0, zeroblob(4000000))")
    writes = 0

    def write_on() -> None:
        nonlocal writes
        writes += 1
        assert writes < 1_000, "it begins anew with every commit"
        writer.execute("INSERT INTO busy VALUES (1, NULL)")

    store = store_of(f"sqlite+aiosqlite:///{source}", tmp_path / "backups")
    facts = DatabaseFacts(engine_version="3", revision="")
    seen = store.create(facts, now=NOW, check=write_on)
    opened = store.open_into(store.find(seen.name), tmp_path, check=go_on)
    copy = sqlite3.connect(opened.database)
    assert copy.execute("SELECT sum(n) FROM busy").fetchone() == (0,)
    assert writes > 3
    copy.close()
    writer.close()


def seen(hours_ago: int, *, is_verified: bool = True) -> BackupSeen:
    return BackupSeen(
        name=f"{hours_ago}",
        created_at=NOW - timedelta(hours=hours_ago),
        bytes=1,
        engine="sqlite",
        revision="0010",
        is_verified=is_verified,
    )


def test_the_newest_that_is_whole_is_kept() -> None:
    listed = [seen(0, is_verified=False), seen(1, is_verified=False), seen(2), seen(3)]
    assert too_many(listed, keep=14) == []
    assert too_many(listed, keep=2) == [listed[3]]
    assert too_many([seen(0), seen(1), seen(2)], keep=1) == [seen(1), seen(2)]


def test_an_older_pg_dump_is_refused_in_one_sentence(tmp_path: Path) -> None:
    tools = PostgresTools(database_url="postgresql://x/y", directory=installed_programs())
    tools.check_version("pg_dump", 180_001)
    with pytest.raises(ConfigError, match=r"of version 18 and the server of version 19"):
        tools.check_version("pg_dump", 190_000)
    with pytest.raises(ConfigError, match="there is no pg_dump in"):
        replace(tools, directory=tmp_path).check_version("pg_dump", 180_000)
