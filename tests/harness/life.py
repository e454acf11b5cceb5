"""A node whose database is lost again and again: its backups, and a place for the next life."""

import os
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from routstr.flows.house.backup import make_backup
from routstr.flows.house.place import Placing, put_in_place
from routstr.ledger.backup_file import read_header
from routstr.ledger.backups import BackupStore
from tests.fakes.mint import FakeMint
from tests.harness.till import Till, open_till


@dataclass(slots=True, kw_only=True)
class Life:
    """A node's lives: one database, backups of it, and a place for the next one."""

    url: str
    mint: FakeMint
    store: BackupStore
    new_url: Callable[[], str]
    tmp_path: Path
    aside: Path | None = None

    async def back_up(self, till: Till) -> Path:
        made = await make_backup(self.store, till.ctx.database, now=till.ctx.clock.now())
        return self.store.find(made.name)

    async def put_back(self, backup: Path, *, url: str | None = None, force: bool = False) -> str:
        """The database is lost: this backup is all there is."""
        url = url or self.new_url()
        draft = self.tmp_path / f"draft-{os.urandom(4).hex()}"
        draft.mkdir()
        placing = Placing(
            backup=backup,
            draft=draft,
            force=force,
            acceptance_key=1,
            now=self.now,
            before=lambda: None,
        )
        self.aside = await put_in_place(replace(self.store, database_url=url), placing)
        return url

    @property
    def now(self) -> datetime:
        return datetime.now(UTC)

    def outputs_sent_twice(self) -> list[str]:
        """Each B_ that reached the mint in two different requests."""
        bodies: dict[str, set[bytes]] = defaultdict(set)
        for call in self.mint.calls:
            if call.path in {"/v1/swap", "/v1/mint/bolt11"}:
                outputs = call.json["outputs"]
                assert isinstance(outputs, list)
                for output in outputs:
                    bodies[output["B_"]].add(call.body)
        assert bodies
        return [b_ for b_, each in bodies.items() if len(each) > 1]


def backup_id(path: Path) -> str:
    """What a restore's mark names it by."""
    with path.open("rb") as file:
        return read_header(file).content_sha256


@asynccontextmanager
async def living(life: Life, url: str, **limits: Any) -> AsyncIterator[Till]:
    async with open_till(url, life.mint, is_sound_at_end=False, **limits) as till:
        yield till
