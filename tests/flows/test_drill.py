"""T-20: the database is lost, an old backup comes back, and the life in between is made good.

Every output that any life ever sent is sent by one request only; coins that were spent since are
lost and nobody else's; what users had stands; and the audit says exactly what is missing.
"""

import asyncio
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest
from sqlalchemy import text

from demo.mint import RealMint
from routstr.errors import ConfigError, MintUnreachable, Paused, RestoreRefused
from routstr.flows.bring import bring
from routstr.flows.house.jobs import run_job
from routstr.flows.house.recover import Terms, recover
from routstr.flows.house.settings import change_settings, read_settings
from routstr.flows.keys import Created, create_key
from routstr.flows.keys import Terms as KeyTerms
from routstr.flows.pay import PayWish, pay
from routstr.flows.withdraw import Wish, withdraw
from routstr.ledger.backups import DatabaseFacts
from routstr.ledger.book import KeyRef
from routstr.ledger.engine import PoolSettings, open_database
from routstr.ledger.holds import Reserve
from routstr.ledger.restores import check_restored
from routstr.ledger.seed import acceptance_index
from routstr.ledger.target import begin_filling, check_filled, fill, look_at
from tests.fakes.invoices import invoice
from tests.fakes.mint import Trouble
from tests.faults.stand import paid_by
from tests.harness.clock import MovableClock
from tests.harness.databases import SQLITE
from tests.harness.life import Life, backup_id, living
from tests.harness.mint import OpenWallet
from tests.harness.shop import Marks
from tests.harness.till import (
    ON_SQLITE,
    Till,
    open_context,
    worth,
    ys_of,
)

FACTS: Final = DatabaseFacts(engine_version="3", revision="")


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


async def newest_coins(till: Till) -> list[str]:
    """The Ys of what the last deposit brought."""
    sql = (
        "SELECT p.y FROM proof p JOIN mint_operation o ON o.id = p.operation_id"
        " WHERE o.deposit_id = (SELECT id FROM deposit ORDER BY credited_at DESC LIMIT 1)"
    )
    async with till.ctx.database.reading() as connection:
        return list((await connection.execute(text(sql))).scalars())


async def test_an_old_copy_goes_on_where_a_life_has_ended(life: Life) -> None:
    mint, open_token = life.mint, life.mint.issue(33)
    async with living(life, life.url) as till:
        rich, poor = await till.create(mint.issue(700)), await till.create(mint.issue(90))
        before = await till.withdraw(rich, 3)
        await hold(till, rich)
        await change_settings(till.ctx, {"payout_to": "me@example.com"}, changed_by="ann")
        mint.trouble(Trouble(path="/v1/swap", cut=True), Trouble(path="/v1/restore", status=500))
        with pytest.raises(MintUnreachable):
            await till.create(open_token, repeat="open")
        backup = await life.back_up(till)
        await till.resume()  # ── what follows is forgotten
        await till.create(open_token, repeat="open")
        mint.set_spent(await newest_coins(till))
        await till.create(mint.issue(50))
        spent = await till.withdraw(rich, 400)
        assert spent.token is not None
        mint.set_spent(ys_of(spent.token))
        kept = await till.withdraw(poor, 40)
        held = await till.held() - 33  # those of the deposit are spent
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
        await read_settings(till.ctx)
        assert till.ctx.limits.payout_to is None, "what was found may be somebody's"
        # What nobody had claimed of the life between is the node's again: its debit is forgotten.
        assert await till.held() == held + worth(kept.token)
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
    "recover.scanned", "recover.stored", "recover.quarantined", "recover.renewing",
    "swap.answered", "recover.ending",
)  # fmt: skip


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
        if step == STEPS[0]:
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


@ON_SQLITE
async def test_a_payment_that_the_copy_had_only_prepared_is_not_made_again(
    life: Life, real_mint: RealMint, open_wallet: OpenWallet
) -> None:
    """The life that was lost sent it, and spent its change: the mint's word ends it."""
    customer = await open_wallet(real_mint)
    await customer.mint(2_000)
    marks, urls, made = Marks(), [real_mint.url], list[str]()
    marks.at["melt.prepared"] = lambda: made.append(
        life.store.create(FACTS, now=life.now, check=lambda: None).name
    )
    bolt11 = invoice(500_000, created_at=int(time.time()), payment_hash=os.urandom(32))
    async with open_context(life.url, urls, MovableClock(), failpoint=marks) as (ctx, _):
        token = await customer.send(1_000)
        created = await create_key(ctx, token, KeyTerms(), idempotency_key=None)
        key = KeyRef(id=created.key_id)
        view = await pay(ctx, key, PayWish(invoice=bolt11))
        assert view.status == "completed"
        del marks.at["melt.prepared"]
        out = await withdraw(ctx, key, Wish(amount_sat=300))
        await customer.receive(out.token or "")
    url = await life.put_back(life.store.find(made[0]))
    async with open_context(url, urls, MovableClock()) as (ctx, _):
        recovery = await recover(ctx, Terms())
        assert recovery.is_done
        assert recovery.report is not None
        assert recovery.report.broken == ("I-3",)
        assert recovery.open_operations == 0
        again = await pay(ctx, key, PayWish(invoice=bolt11))
        assert (again.id, again.status, again.is_replay) == (view.id, "completed", True)
        assert recovery.short_msat == 300_000, "what was withdrawn since"
    assert paid_by(real_mint, bolt11) == 1


async def test_a_half_filled_database_starts_no_node(life: Life) -> None:
    """PostgreSQL: between the first row and the mark a table says so; SQLite has no such moment."""
    async with living(life, life.url) as till:
        await till.create(life.mint.issue(5))
        backup = await life.back_up(till)
    url, content = life.new_url(), backup_id(backup)
    if url.startswith(SQLITE):
        await life.put_back(backup, url=url)
        assert await look_at(url, backup=content) == "begun"
        return
    assert await look_at(url, backup=content) == "empty"
    await begin_filling(url, backup=content)
    assert await look_at(url, backup=content) == "empty"
    tools = replace(life.store, database_url=url).tools
    opened = life.store.open_into(backup, life.tmp_path, check=lambda: None)
    await asyncio.to_thread(fill, tools, opened.database, check=lambda: None)
    assert await look_at(url, backup=content) == "filled"
    assert await look_at(url, backup="another") == "other"
    database = open_database(url, PoolSettings(size=1, overflow=0))
    with pytest.raises(ConfigError, match="is being restored into this database"):
        await check_filled(database)
    await database.close()
    await life.put_back(backup, url=url)
    assert await look_at(url, backup=content) == "begun"
    async with living(life, url) as till:
        assert (await recover(till.ctx, Terms())).is_done
