"""The directory of backups: made whole or not at all, looked at, listed, and the oldest removed.

Laws
- What has a backup's name is whole: it was written beside, opened again to its last byte, put on
  the disk, and renamed. A process that dies on the way leaves a draft, which nobody takes for one.
- A backup's name ends with the SHA-256 of its bytes, so no two different ones share a name.
- The newest backup that was found whole is never removed, however many are kept.
- A backup opens with the node's master key, or with the passphrase, if one is set; nothing else.
"""

import hashlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import BinaryIO, Final

import orjson
from sqlalchemy import make_url, text

from routstr.errors import ConfigError, RestoreRefused
from routstr.ledger.backup_file import (
    CHUNK_BYTES,
    SALT_BYTES,
    Header,
    read_backup,
    read_header,
    wrap_master,
    write_backup,
)
from routstr.ledger.columns import time_text
from routstr.ledger.dump import COUNTED, Check, PostgresTools, check_sqlite, copy_sqlite
from routstr.ledger.engine import Database
from routstr.ledger.keyfile import sync_directory
from routstr.ledger.vault import Vault

SUFFIX: Final = ".backup"
VERIFIED: Final = ".verified"
DRAFT: Final = ".draft-"
DRAFT_OLD_S: Final = 86_400
PURPOSE: Final = "backup v1"
MANIFEST_BYTES_MAX: Final = 1024 * 1024
LISTED_MAX: Final = 1000
COUNT_TIMEOUT_MS: Final = 300_000
REVISION: Final = "SELECT version_num FROM alembic_version"


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupSeen:
    """A backup in the directory. `is_verified`: it was opened whole, by its maker or since."""

    name: str
    created_at: datetime
    bytes: int
    engine: str
    revision: str
    is_verified: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseFacts:
    """What only the database can say of itself: versions, and rows by table."""

    engine_version: str
    revision: str
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What lies beside the database: the settings in force, without secrets, and counts of rows."""

    settings: Mapping[str, object]
    counts: Mapping[str, int]
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A backup that opened whole; `database` is the copy, in a directory that goes away."""

    header: Header
    manifest: Manifest
    database: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupStore:
    """Backups of one database in one directory.

    `keep` is how many; `settings` is what the manifest says of them, without secrets. `programs` is
    where PostgreSQL's are.
    """

    directory: Path
    keep: int
    database_url: str
    programs: Path | None
    master: bytes = field(repr=False)
    passphrase: str | None = field(repr=False)
    settings: Mapping[str, object] = field(repr=False)
    version: str
    random_bytes: Callable[[int], bytes]

    @property
    def tools(self) -> PostgresTools:
        """PostgreSQL's programs, for this database."""
        return PostgresTools(database_url=self.database_url, directory=self.programs)

    @property
    def engine(self) -> str:
        """`sqlite` or `postgresql`."""
        return make_url(self.database_url).get_backend_name()

    # ── making ────────────────────────────────────────────────────────────────────────────────

    def create(self, facts: DatabaseFacts, *, now: datetime, check: Check) -> BackupSeen:
        """Make one, open it again, give it its name, and remove what is too old.

        Raises ConfigError for what keeps it from being made.
        """
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._draft() as draft:
                name = self._write(draft, facts, now, check)
                self.open_into(draft.joinpath(name), draft, check=check)
                _sync(draft.joinpath(name))
                os.replace(draft.joinpath(name), self.directory.joinpath(name))
            sync_directory(self.directory)
            self._note_verified(name, now)
            self._remove_old(now)
        except OSError as error:
            raise ConfigError(f"BACKUP_DIR: {self.directory}: {error.strerror}") from error
        except RestoreRefused as error:
            raise ConfigError(f"the backup was made and does not open: {error}") from error
        return next(each for each in self.listed() if each.name == name)

    def _write(self, draft: Path, facts: DatabaseFacts, now: datetime, check: Check) -> str:
        """The finished file's name in the draft."""
        copy = draft / "database"
        if self.engine == "sqlite":
            copy_sqlite(Path(str(make_url(self.database_url).database)), copy, check=check)
            revision, counts = check_sqlite(copy)
        else:
            self.tools.check_version("pg_dump", int(facts.engine_version))
            self.tools.dump(copy, check=check)
            revision, counts = facts.revision, facts.counts
        told = {"settings": self.settings, "counts": counts, "version": self.version}
        manifest = orjson.dumps(told)
        digest, size = hashlib.sha256(), 0
        for part in _payload(manifest, copy):
            check()
            digest.update(part)
            size += len(part)
        header = Header(
            created_at=time_text(now),
            engine=self.engine,
            engine_version=facts.engine_version,
            revision=revision,
            key_id=self._vault(self.master).key_id,
            content_sha256=digest.hexdigest(),
            content_bytes=size,
            salt=self.random_bytes(SALT_BYTES).hex(),
            wrapped=self._wrapped(),
        )
        key = self._vault(self.master).derive(PURPOSE)
        with _private(draft / "backup") as file:
            hashed = write_backup(_payload(manifest, copy), file, header, key, check=check)
        copy.unlink()
        name = f"routstr-{now:%Y%m%dT%H%M%SZ}-{hashed}{SUFFIX}"
        os.replace(draft / "backup", draft.joinpath(name))
        return name

    def _wrapped(self) -> str | None:
        if self.passphrase is None:
            return None
        return wrap_master(self.master, self.passphrase, random_bytes=self.random_bytes)

    def _vault(self, master: bytes) -> Vault:
        return Vault(master, random_bytes=self.random_bytes)

    @contextmanager
    def _draft(self) -> Iterator[Path]:
        draft = Path(tempfile.mkdtemp(prefix=DRAFT, dir=self.directory))
        try:
            yield draft
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    # ── looking ───────────────────────────────────────────────────────────────────────────────

    def listed(self) -> list[BackupSeen]:
        """The backups there are, newest first; what has no backup's header is left out."""
        found: list[BackupSeen] = []
        if self.directory.is_dir():
            for path in self.directory.glob(f"*{SUFFIX}"):
                with suppress(RestoreRefused, FileNotFoundError), path.open("rb") as file:
                    header = read_header(file)
                    found.append(
                        BackupSeen(
                            name=path.name,
                            created_at=header.made_at,
                            bytes=path.stat().st_size,
                            engine=header.engine,
                            revision=header.revision,
                            is_verified=self._marker(path.name).exists(),
                        )
                    )
        return sorted(found, key=lambda each: (each.created_at, each.name))[::-1][:LISTED_MAX]

    def verify(self, name: str, *, now: datetime, check: Check) -> tuple[Header, Manifest]:
        """Open a backup whole; what it is. Raises RestoreRefused: it counts as verified no more.

        `name` is one in the directory, or a path.
        """
        path = self.find(name)
        is_ours = path.parent == self.directory
        with tempfile.TemporaryDirectory(prefix=DRAFT, dir=path.parent) as draft:
            try:
                opened = self.open_into(path, Path(draft), check=check)
            except RestoreRefused:
                if is_ours:
                    self._marker(path.name).unlink(missing_ok=True)
                raise
        if is_ours:
            self._note_verified(path.name, now)
        return opened.header, opened.manifest

    def find(self, name: str) -> Path:
        """The file of that name in the directory, or of that path. Raises RestoreRefused."""
        for path in (self.directory.joinpath(name), Path(name).absolute()):
            if path.is_file():
                return path
        raise RestoreRefused(f"there is no backup {name}")

    def open_into(self, path: Path, directory: Path, *, check: Check) -> Opened:
        """Decrypt a backup whole, and look at the database in it. Raises RestoreRefused."""
        copy = directory / "opened"
        with path.open("rb") as file:
            header = read_header(file)
            if header.key_id != self._vault(self.master).key_id:
                raise RestoreRefused("the backup was made under another master key (SECRET_KEY)")
            file.seek(0)
            parts = read_backup(file, self._vault(self.master).derive(PURPOSE), check=check)
            with _private(copy) as target:
                manifest = _split(parts, target)
        if header.engine == "sqlite":
            revision, _ = check_sqlite(copy)
            if revision != header.revision:
                raise RestoreRefused("the backup's header is not that of its database")
        else:
            self.tools.check_version("pg_restore", int(header.engine_version))
            self.tools.list_tables(copy, check=check)
        return Opened(header=header, manifest=manifest, database=copy)

    # ── keeping ───────────────────────────────────────────────────────────────────────────────

    def _marker(self, name: str) -> Path:
        return self.directory / f"{name}{VERIFIED}"

    def _note_verified(self, name: str, now: datetime) -> None:
        with suppress(FileExistsError), _private(self._marker(name)) as file:
            file.write(time_text(now).encode())

    def _remove_old(self, now: datetime) -> None:
        for each in too_many(self.listed(), keep=self.keep):
            self.directory.joinpath(each.name).unlink(missing_ok=True)
            self._marker(each.name).unlink(missing_ok=True)
        oldest = (now - timedelta(seconds=DRAFT_OLD_S)).timestamp()
        for draft in self.directory.glob(f"{DRAFT}*"):
            if draft.stat().st_mtime < oldest:  # what a process that died left
                shutil.rmtree(draft, ignore_errors=True)


def too_many(newest_first: Sequence[BackupSeen], *, keep: int) -> list[BackupSeen]:
    """Those beyond `keep`, but never the newest that is verified."""
    safe = next((each for each in newest_first if each.is_verified), None)
    return [each for each in newest_first[keep:] if each is not safe]


def _payload(manifest: bytes, database: Path) -> Iterator[bytes]:
    yield len(manifest).to_bytes(4, "big") + manifest
    with database.open("rb") as file:
        while part := file.read(CHUNK_BYTES):
            yield part


def _split(parts: Iterator[bytes], target: BinaryIO) -> Manifest:
    """Write the database to `target`; what lies beside it. Raises RestoreRefused."""
    told = bytearray()
    size = 0
    for part in parts:
        told += part
        size = int.from_bytes(told[:4], "big")
        if size > MANIFEST_BYTES_MAX:
            raise RestoreRefused("the backup's manifest is too long")
        if len(told) >= 4 + size:
            break
    target.write(told[4 + size :])
    for part in parts:
        target.write(part)
    try:
        return Manifest(**orjson.loads(told[4 : 4 + size]))
    except (ValueError, TypeError) as error:
        raise RestoreRefused("the backup's manifest cannot be read") from error


def _private(path: Path) -> BinaryIO:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    return os.fdopen(descriptor, "wb")


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


# ── what only the database can say ────────────────────────────────────────────────────────────


async def database_facts(database: Database) -> DatabaseFacts:
    """Versions and counts, as of now; of SQLite the copy tells the rest by itself."""
    if database.dialect == "sqlite":
        return DatabaseFacts(engine_version=sqlite3.sqlite_version, revision="")
    async with database.reading() as connection:
        await connection.execute(text(f"SET LOCAL statement_timeout = {COUNT_TIMEOUT_MS}"))
        version = (await connection.execute(text("SHOW server_version_num"))).scalar_one()
        revision = (await connection.execute(text(REVISION))).scalar_one()
        counts = {
            table: int(
                (await connection.execute(text(f'SELECT count(*) FROM "{table}"'))).scalar_one()
            )
            for table in COUNTED
        }
    return DatabaseFacts(engine_version=str(version), revision=str(revision), counts=counts)
