"""A node on an old copy of its database: what its mint signed in the life it forgot is no payment.

The copy's counters are of the past, so it asks for outputs that were signed once, for other inputs.
The mint refuses them and remembers its signatures (NUT-09), on coins that are spent by now.
"""

import shutil
from pathlib import Path

import pytest

from routstr.errors import MintUnreachable, RefundPending
from tests.fakes.mint import FakeMint
from tests.harness.till import open_till, ys_of


@pytest.fixture
def database(sqlite_url: str) -> Path:
    return Path(sqlite_url.removeprefix("sqlite+aiosqlite:///"))


def put_back(database: Path, copy: Path) -> None:
    """Stopped nodes leave nothing beside the file."""
    assert not list(database.parent.glob("routstr.db-*"))
    shutil.copyfile(copy, database)


async def test_what_was_signed_for_another_token_credits_nobody(
    sqlite_url: str, database: Path, mint: FakeMint, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.db"
    async with open_till(sqlite_url, mint) as till:
        await till.create(mint.issue(1))
    shutil.copyfile(database, copy)
    async with open_till(sqlite_url, mint) as till:
        key = await till.create(mint.issue(21))
        paid = await till.withdraw(key, 20)  # without the 1, which the copy has too
        assert paid.token is not None
        mint.set_spent(ys_of(paid.token))
    put_back(database, copy)
    async with open_till(sqlite_url, mint) as till:
        token = mint.issue(21)
        with pytest.raises(MintUnreachable):
            await till.create(token)
        assert await till.operations() == [("done", None), ("watch", "doubtful")]
        assert await till.value("SELECT count(*) FROM apikey") == await till.held() == 1
        assert set(mint.state_of(ys_of(token)).values()) == {"UNSPENT"}
        await till.later(till.ctx.limits.mint_watch_s)
        assert await till.resume() == 1
        key = await till.create(token)  # the counters have moved on
        assert await till.balance(key) == 21_000


async def test_nor_is_it_given_out(
    sqlite_url: str, database: Path, mint: FakeMint, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.db"
    async with open_till(sqlite_url, mint) as till:
        key = await till.create(mint.issue(7))
        await till.withdraw(key, 1)
    shutil.copyfile(database, copy)
    async with open_till(sqlite_url, mint) as till:
        paid = await till.withdraw(key, 3)  # 2 and 4 make no 3: by a swap
        assert paid.token is not None
        mint.set_spent(ys_of(paid.token))
    put_back(database, copy)
    async with open_till(sqlite_url, mint, is_sound_at_end=False) as till:
        with pytest.raises(RefundPending):
            await till.withdraw(key, 3)
        assert (await till.operations())[-1] == ("watch", "doubtful")
