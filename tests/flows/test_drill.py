"""T-20: the database is lost, an old backup comes back, and the life in between is made good.

Every output that any life ever sent is sent by one request only; coins that were spent since are
lost and nobody else's; what users had stands; and the audit says exactly what is missing.
"""

import os
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from routstr.errors import ConfigError, MintUnreachable, Paused, RestoreRefused
from routstr.flows.bring import bring
from routstr.flows.house.backup import make_backup
from routstr.flows.house.jobs import run_job
from routstr.flows.house.place import Placing, put_in_place
from routstr.flows.house.recover import Terms, recover
from routstr.flows.keys import Created
from routstr.ledger.backups import BackupStore
from routstr.ledger.book import KeyRef
from routstr.ledger.holds import Reserve
from routstr.ledger.restores import check_restored
from routstr.ledger.seed import acceptance_index
from routstr.ledger.target import look_at
from tests.fakes.mint import FakeMint, Trouble
from tests.harness.databases import SQLITE
from tests.harness.postgres import Postgres, installed_programs
from tests.harness.till import MASTER, ON_SQLITE, Till, open_till, worth, ys_of


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


@pytest.fixture
def life(
    request: pytest.FixtureRequest, database_url: str, mint: FakeMint, tmp_path: Path
) -> Iterator[Life]:
    made: list[str] = []

    def new_url() -> str:
        if database_url.startswith(SQLITE):
            return f"{SQLITE}{tmp_path / os.urandom(4).hex()}.db"
        server: Postgres = request.getfixturevalue("postgres_server")
        made.append(server.create_database())
        return made[-1]

    store = BackupStore(
        directory=tmp_path / "backups",
        keep=14,
        database_url=database_url,
        programs=installed_programs(),
        master=MASTER,
        passphrase=None,
        settings={},
        version="0",
        random_bytes=os.urandom,
    )
    yield Life(url=database_url, mint=mint, store=store, new_url=new_url, tmp_path=tmp_path)
    for url in made:
        request.getfixturevalue("postgres_server").drop_database(url)


@asynccontextmanager
async def living(life: Life, url: str, **limits: Any) -> AsyncIterator[Till]:
    async with open_till(url, life.mint, is_sound_at_end=False, **limits) as till:
        yield till


async def hold(till: Till, key: Created) -> None:
    """A request that runs when the copy is made."""
    await till.ctx.ledger.submit(
        Reserve(
            hold_id="req_open",
            caller=KeyRef(id=key.key_id),
            wanted_msat=5_000,
            minimum_msat=1,
            quote_msat=5_000,
            model_id="m",
            price_snapshot={},
            owner="one",
            lease_s=60,
        )
    )


async def test_an_old_copy_goes_on_where_a_life_has_ended(life: Life) -> None:
    mint, open_token = life.mint, life.mint.issue(33)
    async with living(life, life.url) as till:
        rich, poor = await till.create(mint.issue(700)), await till.create(mint.issue(90))
        before = await till.withdraw(rich, 3)
        await hold(till, rich)
        mint.trouble(Trouble(path="/v1/swap", cut=True), Trouble(path="/v1/restore", status=500))
        with pytest.raises(MintUnreachable):
            await till.create(open_token, repeat="open")
        backup = await life.back_up(till)
        await till.resume()  # ── what follows is forgotten
        later = await till.create(open_token, repeat="open")
        await till.withdraw(later)
        await till.create(mint.issue(50))
        spent = await till.withdraw(rich, 400)
        assert spent.token is not None
        mint.set_spent(ys_of(spent.token))
        kept = await till.withdraw(poor, 40)
        held = await till.held()
    url = await life.put_back(backup)
    async with living(life, url) as till:
        async with till.ctx.database.reading() as connection:
            with pytest.raises(ConfigError, match="backup restore"):
                await check_restored(connection)
        recovery = await recover(till.ctx, Terms())
        assert recovery.is_done
        assert recovery.report is not None
        assert recovery.report.broken == ("I-3",)
        assert all(each.ok for each in recovery.report.mints)
        assert (await till.balance(rich), await till.balance(poor)) == (697_000, 90_000)
        again = await till.create(open_token, repeat="open")
        assert await till.balance(again) == 33_000, "the mint had taken it: it is credited"
        # What nobody had claimed of the life between is the node's again: its debit is forgotten.
        assert await till.held() == held + 33 + worth(kept.token)
        assert recovery.short_msat == 820_000 - 1000 * await till.held()
        assert set(mint.state_of(ys_of(before.token or "")).values()) == {"UNSPENT"}
        assert set(mint.state_of(ys_of(kept.token or "")).values()) == {"SPENT"}
        assert recovery.holds_ended == 1
        assert await acceptance_index(till.ctx.database) == 1
        with pytest.raises(Paused):
            await till.withdraw(rich, 1)
        await bring(till.ctx, mint.issue(recovery.short_msat // 1000))
        await run_job(till.ctx, "audit", asked_by="test")
        await till.create(mint.issue(77))
        for key in (rich, poor, again):
            out = await till.withdraw(key)
            assert set(mint.state_of(ys_of(out.token or "")).values()) == {"UNSPENT"}
        await till.assert_sound()
    assert life.outputs_sent_twice() == []


class Killed(Exception):
    """The process would be dead."""


def die() -> None:
    raise Killed


async def lost_with_coins_out(life: Life) -> tuple[Path, Created]:
    """A backup, and a life after it in which coins were given out, spent and made."""
    async with living(life, life.url) as till:
        key = await till.create(life.mint.issue(300))
        backup = await life.back_up(till)
        spent = await till.withdraw(key, 100)
        life.mint.set_spent(ys_of(spent.token or ""))
        await till.create(life.mint.issue(500))
    return backup, key


STEPS = (
    *(f"recover.{step}" for step in ("scanned", "stored", "resuming", "quarantined", "renewing")),
    *("swap.sent", "swap.answered", "own_swap.signed", "own_swap.ended", "recover.ending"),
)


@ON_SQLITE
async def test_a_restore_killed_anywhere_is_run_again(life: Life) -> None:
    """And again from the same backup, over the life that the restore before began."""
    backup, key = await lost_with_coins_out(life)
    for step in STEPS:
        url = await life.put_back(backup)
        async with living(life, url) as till:
            till.marks.at[step] = die
            with pytest.raises(Killed):
                await recover(till.ctx, Terms())
        await life.put_back(backup, url=url)  # it is this restore's own: nothing to do
        async with living(life, url) as till:
            recovery = await recover(till.ctx, Terms())
            assert recovery.is_done, step
            assert recovery.report is not None
            assert recovery.report.ok, step
            assert recovery.open_operations == 0
            assert (await till.balance(key), await till.held()) == (300_000, 700), step
            with pytest.raises(RestoreRefused, match="no backup is being restored"):
                await recover(till.ctx, Terms())
    assert life.outputs_sent_twice() == []


@ON_SQLITE
async def test_a_silent_mint_keeps_the_node_from_starting(life: Life) -> None:
    backup, key = await lost_with_coins_out(life)
    url = await life.put_back(backup)
    gone = "http://127.0.0.1:9"
    async with living(life, url, more_mints=[gone]) as till:
        recovery = await recover(till.ctx, Terms())
        assert [each for each, _ in recovery.failed] == [gone]
        assert recovery.report is None
        async with till.ctx.database.reading() as connection:
            with pytest.raises(ConfigError, match="half restored"):
                await check_restored(connection)
        assert (await recover(till.ctx, Terms(without=frozenset([gone])))).is_done
        async with till.ctx.database.reading() as connection:
            await check_restored(connection)
        assert await till.balance(key) == 300_000
        await till.assert_sound()


@ON_SQLITE
async def test_coins_in_a_payment_are_waited_for(life: Life) -> None:
    mint = life.mint
    backup, key = await lost_with_coins_out(life)
    url = await life.put_back(backup)
    async with living(life, url) as till:
        sql = "SELECT y, amount FROM proof WHERE state = 'unspent'"
        async with till.ctx.database.reading() as connection:
            coins = {row.y: row.amount for row in await connection.execute(text(sql))}
        running = next(y for y, state in mint.state_of(coins).items() if state == "UNSPENT")
        mint.set_pending([running])
        recovery = await recover(till.ctx, Terms())
        assert [reason for _, reason in recovery.failed] == [
            "some of its coins are in a payment that is not over"
        ]
        assert await till.value("SELECT state FROM proof WHERE y = :y", y=running) == "unspent"
        recovery = await recover(till.ctx, Terms(writes_off=True))
        assert recovery.is_done
        assert [each.lost_msat for each in recovery.mints] == [1000 * coins[running]]
        assert await till.balance(key) == 300_000


async def test_what_is_not_empty_is_not_touched(life: Life, tmp_path: Path) -> None:
    backup, _ = await lost_with_coins_out(life)
    with pytest.raises(RestoreRefused, match=r"not empty|already"):
        await life.put_back(backup, url=life.url)
    async with living(life, life.url) as till:
        assert await till.value("SELECT count(*) FROM apikey") == 2
        async with till.ctx.database.reading() as connection:
            await check_restored(connection)
    data = bytearray(backup.read_bytes())
    data[len(data) // 2] ^= 1
    damaged = tmp_path / "damaged.backup"
    damaged.write_bytes(data)
    url = life.new_url()
    other = replace(life, store=replace(life.store, master=b"x" * 32))
    for each, file in ((life, damaged), (other, backup)):
        with pytest.raises(RestoreRefused, match=r"damaged|another master key"):
            await each.put_back(file, url=url)
        assert await look_at(url, backup="any") == "empty"


@ON_SQLITE
async def test_what_was_there_is_put_aside_whole(life: Life) -> None:
    backup, key = await lost_with_coins_out(life)
    await life.put_back(backup, url=life.url, force=True)
    assert life.aside is not None
    async with living(life, f"{SQLITE}{life.aside}") as till:
        assert await till.value("SELECT count(*) FROM apikey") == 2
    async with living(life, life.url) as till:
        assert await till.value("SELECT count(*) FROM apikey") == 1
        assert (await recover(till.ctx, Terms())).is_done
        assert await till.balance(key) == 300_000
