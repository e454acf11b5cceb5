"""The database is lost: seed and mints give every coin back, once, whatever interrupts it."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from sqlalchemy import text

from routstr.errors import MintUnreachable, RestoreRefused
from routstr.flows.audit import audit
from routstr.flows.bring import bring
from routstr.flows.context import Context
from routstr.flows.keys import Created, Terms, create_key, topup
from routstr.flows.restore import BATCH, EMPTY_BATCHES, restore_mint
from routstr.flows.withdraw import Wish, withdraw
from routstr.ledger.book import KeyRef
from tests.fakes.mint import FakeMint, Trouble
from tests.harness.clock import MovableClock
from tests.harness.databases import SQLITE
from tests.harness.mint import OpenWallet, StartMint
from tests.harness.postgres import Postgres
from tests.harness.shop import Marks
from tests.harness.till import ON_SQLITE, Till, open_context, open_till

Coin = tuple[str, str, int, int]
NewDatabase = Callable[[], str]


@pytest.fixture
def new_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NewDatabase]:
    """More migrated, empty databases on the engine of `database_url`."""
    made: list[str] = []
    on_sqlite = request.getfixturevalue("database_url").startswith(SQLITE)

    def make() -> str:
        if on_sqlite:
            path = tmp_path / f"new-{len(made)}.db"
            path.write_bytes(request.getfixturevalue("sqlite_template").read_bytes())
            made.append(SQLITE + str(path))
        else:
            server: Postgres = request.getfixturevalue("postgres_server")
            made.append(server.create_database(request.getfixturevalue("postgres_template")))
        return made[-1]

    yield make
    for url in () if on_sqlite else made:
        request.getfixturevalue("postgres_server").drop_database(url)


async def coins(ctx: Context, *states: str) -> set[Coin]:
    """(Y, keyset, counter, amount) of the coins in those states."""
    names = ", ".join(f"'{state}'" for state in states)
    sql = text(f"SELECT y, keyset_id, counter, amount FROM proof WHERE state IN ({names})")
    async with ctx.database.reading() as connection:
        return {tuple(row) for row in await connection.execute(sql)}


async def counters(ctx: Context) -> dict[str, int]:
    """The next counter of each keyset."""
    async with ctx.database.reading() as connection:
        rows = await connection.execute(text("SELECT id, next_counter FROM keyset"))
        return {row.id: row.next_counter for row in rows}


async def skip_counters(ctx: Context, count: int, *, mint_url: str, unit: str = "sat") -> None:
    """Outputs that were prepared and never signed."""
    async with ctx.database.writer.begin() as connection:
        sql = (
            "UPDATE keyset SET next_counter = next_counter + :count"
            " WHERE unit = :unit AND mint_id = (SELECT id FROM mint WHERE url = :url)"
        )
        values = {"count": count, "unit": unit, "url": mint_url}
        await connection.execute(text(sql), values)


@asynccontextmanager
async def life_after(url: str, *mints: str, marks: Marks | None = None) -> AsyncIterator[Context]:
    """The same seed on another database; what it holds at the end is whole."""
    async with open_context(url, mints, MovableClock(), failpoint=marks) as (ctx, _):
        yield ctx
        report = await audit(ctx, full=True, deep=True)
        assert report.ok, [each for each in report.invariants if each.breaches] + [*report.mints]


async def test_the_real_mint_gives_every_coin_back(
    database_url: str, new_database: NewDatabase, start_mint: StartMint, open_wallet: OpenWallet
) -> None:
    dear = start_mint(fee_ppk=100, units=("sat", "msat"))
    free = start_mint()
    clock = MovableClock()
    urls = (dear.url, free.url)
    async with open_context(database_url, urls, clock, float_coins=1) as (ctx, _):
        for mint, unit in ((dear, "sat"), (dear, "msat"), (free, "sat")):
            customer = await open_wallet(mint, unit=unit)
            await customer.mint(5_000)
            key = await create_key(ctx, await customer.send(901), Terms(), idempotency_key=None)
            gap = (EMPTY_BATCHES - 1) * BATCH
            await skip_counters(ctx, gap, mint_url=mint.url, unit=unit)
            for amount in (77, 1_030):
                token = await customer.send(amount)
                await topup(ctx, KeyRef(id=key.key_id), token, idempotency_key=None)
            for amount_sat in (1, None) if unit == "msat" else (3, 3, 3, 3, 3, 500):
                await customer.receive(await take_out(ctx, key, amount_sat))
        await bring(ctx, await customer.send(64))
        before, last = await coins(ctx, "unspent"), await counters(ctx)
        assert not await coins(ctx, "reserved", "locked")
        assert await coins(ctx, "spent"), "nothing was swapped; the life was too short"
    async with life_after(new_database(), *urls) as ctx:
        restored = [each for url in urls for each in await restore_mint(ctx, url)]
        assert await coins(ctx, "unspent") == before
        assert await counters(ctx) == last
        assert sum(each.coins for each in restored) == len(before)
        assert sum(each.spent for each in restored) > 0
        key = await create_key(ctx, await customer.send(50), Terms(), idempotency_key=None)
        assert key.available_msat == 50_000, "its outputs are new ones"


async def take_out(ctx: Context, key: Created, amount_sat: int | None) -> str:
    view = await withdraw(ctx, KeyRef(id=key.key_id), Wish(amount_sat=amount_sat))
    assert view.token is not None
    return view.token


@asynccontextmanager
async def lived(url: str, mint: FakeMint) -> AsyncIterator[Till]:
    """A node with coins on three keysets of a mint, one of them not signing any more."""
    async with open_till(url, mint) as till:
        key = await till.create(mint.issue(700))
        await till.create(mint.issue(5_000, "msat"))
        await till.withdraw(key, 3)
        mint.ledger.rotate("sat", fee_ppk=0)
        await till.later(till.ctx.limits.keyset_refresh_s + 1)
        await till.create(mint.issue(90))
        yield till


@pytest.fixture
async def two_units() -> AsyncIterator[FakeMint]:
    async with FakeMint(units=("sat", "msat")) as mint:
        yield mint


async def test_a_restore_killed_anywhere_is_run_again(
    database_url: str, two_units: FakeMint, new_database: NewDatabase
) -> None:
    async with lived(database_url, two_units) as till:
        whole = await coins(till.ctx, "unspent", "issued")
        last = await counters(till.ctx)
    deaths = [(step, turn) for step in ("restore.scanned", "restore.stored") for turn in (1, 2, 3)]
    url = new_database()
    for step, turn in deaths:
        marks = Marks()
        marks.at[step] = countdown(turn)
        async with life_after(url, two_units.url, marks=marks) as ctx:
            with suppress(Killed):
                await restore_mint(ctx, two_units.url)
    async with life_after(url, two_units.url) as ctx:
        await restore_mint(ctx, two_units.url)
        assert await coins(ctx, "unspent") == whole
        assert await counters(ctx) == last
        sql = text("SELECT count(*) FROM mint_operation")
        async with ctx.database.reading() as connection:
            assert (await connection.execute(sql)).scalar() == 3, "one for each keyset"


class Killed(Exception):
    """The process would be dead."""


def countdown(turn: int) -> Callable[[], None]:
    """What dies the `turn`-th time."""
    left = turn

    def die() -> None:
        nonlocal left
        left -= 1
        if not left:
            raise Killed

    return die


@ON_SQLITE
async def test_what_is_spent_or_on_its_way_is_not_taken(
    database_url: str, mint: FakeMint, new_database: NewDatabase
) -> None:
    async with open_till(database_url, mint) as till:
        await till.create(mint.issue(700))
        ys = sorted(y for y, *_ in await coins(till.ctx, "unspent"))
        worth_of = {y: amount for y, _, _, amount in await coins(till.ctx, "unspent")}
    mint.set_spent(ys[:2])
    mint.set_pending(ys[2:5])
    async with life_after(new_database(), mint.url) as ctx:
        [found] = await restore_mint(ctx, mint.url)
        assert {y for y, *_ in await coins(ctx, "unspent")} == set(ys[5:])
        assert (found.coins, found.spent) == (len(ys) - 5, 2)
        assert found.pending_amount == sum(worth_of[y] for y in ys[2:5])
        mint.set_free(ys[2:5])
        [found] = await restore_mint(ctx, mint.url)
        assert {y for y, *_ in await coins(ctx, "unspent")} == set(ys[2:])
        assert found.pending_amount == 0


@ON_SQLITE
@pytest.mark.parametrize(("next_counter", "coins_found"), [(399, 6), (400, 3)])
async def test_three_empty_batches_are_the_end(
    database_url: str,
    mint: FakeMint,
    new_database: NewDatabase,
    next_counter: int,
    coins_found: int,
) -> None:
    async with open_till(database_url, mint) as till:
        await till.create(mint.issue(7))  # counters 0 to 2
        await skip_counters(till.ctx, next_counter - 3, mint_url=mint.url)
        await till.create(mint.issue(7))
    async with life_after(new_database(), mint.url) as ctx:
        [found] = await restore_mint(ctx, mint.url)
        assert (found.coins, found.next_counter) == (coins_found, 402 if coins_found == 6 else 3)
        [found] = await restore_mint(ctx, mint.url, empty_batches=4)
        assert found.coins == 6, "a longer gap was asked for"
        assert len(await coins(ctx, "unspent")) == 6


@ON_SQLITE
async def test_a_mint_that_limits_is_asked_until_it_answers(
    database_url: str, mint: FakeMint, new_database: NewDatabase
) -> None:
    async with open_till(database_url, mint) as till:
        await till.create(mint.issue(700))
        whole = await coins(till.ctx, "unspent")
    for path in ("/v1/restore", "/v1/checkstate", "/v1/restore"):
        mint.trouble(Trouble(path=path, status=429, retry_after="0"))
    async with open_context(new_database(), [mint.url], Hurried()) as (ctx, _):
        await restore_mint(ctx, mint.url)
        assert await coins(ctx, "unspent") == whole
        for _ in range(20):
            mint.trouble(Trouble(path="/v1/restore", status=500))
        with pytest.raises(MintUnreachable):
            await restore_mint(ctx, mint.url)


class Hurried(MovableClock):
    """Waiting takes no time."""

    async def sleep(self, seconds: float) -> None:
        self.advance(seconds)


@ON_SQLITE
async def test_a_mint_in_use_is_not_restored(till: Till) -> None:
    await till.create(till.mint.issue(21))
    before = await coins(till.ctx, "unspent")
    with pytest.raises(RestoreRefused):
        await restore_mint(till.ctx, till.mint.url)
    assert await coins(till.ctx, "unspent") == before
