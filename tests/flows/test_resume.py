"""Recovery finds its work by query, and one broken piece of it stops none of the rest."""

import pytest
from sqlalchemy import text

from routstr.errors import MintUnreachable
from routstr.flows.resume import BATCH_MAX, resume
from tests.fakes.mint import FakeMint, Trouble
from tests.harness.till import ON_SQLITE, Till, open_till

LOST = Trouble(path="/v1/", processed=False, cut=True)


async def leave_open(till: Till, amount: int) -> None:
    till.mint.trouble(LOST, LOST)
    with pytest.raises(MintUnreachable):
        await till.create(till.mint.issue(amount))


@ON_SQLITE
async def test_nothing_to_do_is_nothing_done(till: Till) -> None:
    calls = len(till.mint.calls)
    assert await resume(till.ctx) == 0
    assert len(till.mint.calls) == calls


async def test_more_than_a_batch_is_driven_to_the_end(sqlite_url: str, mint: FakeMint) -> None:
    async with open_till(sqlite_url, mint) as till:
        await till.create(mint.issue(1))
        for _ in range(BATCH_MAX + 3):
            await leave_open(till, 2)
        assert await till.resume() == BATCH_MAX + 3
        assert await till.held() == mint.unspent_total() == 1 + 2 * (BATCH_MAX + 3)


@ON_SQLITE
async def test_a_back_off_doubles_and_has_an_end(till: Till) -> None:
    await till.create(till.mint.issue(1))
    await leave_open(till, 2)
    tried = 0
    for _ in range(600):
        till.mint.trouble(LOST)
        await till.later(1)
        tried += await resume(till.ctx)
        till.mint._troubles.clear()
    assert 600 / 40 <= tried <= 600 / 20 + 8


DAMAGES = {
    "its sealed request": (
        "UPDATE mint_operation SET request = 'x' || request WHERE id = :id",
        "UPDATE mint_operation SET request = substr(request, 2) WHERE id = :id",
    ),
    "its seed": (
        "UPDATE mint_output SET b_ = b_ || 'x' WHERE operation_id = :id",
        "UPDATE mint_output SET b_ = substr(b_, 1, 66) WHERE operation_id = :id",
    ),
}


@pytest.mark.parametrize("damaged", DAMAGES)
async def test_one_broken_operation_stops_none_of_the_others(till: Till, damaged: str) -> None:
    """A row was damaged on the disk, say; and it is always the first to be due."""
    await till.create(till.mint.issue(1))
    for _ in range(3):
        await leave_open(till, 2)
    wanted = "FROM mint_operation WHERE state = 'sent' ORDER BY created_at, id LIMIT 1"
    first = {name: await till.value(f"SELECT {name} {wanted}") for name in ("id", "deposit_id")}
    damage, repair = DAMAGES[damaged]
    await _write(till, damage, first)
    assert await till.resume() >= 2
    assert [state for state, _ in await till.operations()].count("done") == 3
    await _write(till, repair, first)
    await till.resume()
    assert await till.held() == till.mint.unspent_total() == 7


@ON_SQLITE
async def test_nor_does_one_that_meets_a_bug(till: Till) -> None:
    await till.create(till.mint.issue(1))
    for _ in range(3):
        await leave_open(till, 2)

    def break_once() -> None:
        del till.marks.at["deposit.signed"]
        raise ZeroDivisionError

    till.marks.at["deposit.signed"] = break_once
    assert await till.resume() == 3
    assert [state for state, _ in await till.operations()].count("done") == 3
    assert await till.resume() == 1
    assert await till.held() == till.mint.unspent_total() == 7


async def _write(till: Till, sql: str, values: dict[str, object]) -> None:
    async with till.ctx.database.writer.begin() as connection:
        await connection.execute(
            text(sql), {name: values[name] for name in values if f":{name}" in sql}
        )


async def test_a_mint_that_left_the_list_is_left_alone(sqlite_url: str, mint: FakeMint) -> None:
    """Its operations stay open, cost no call, and end when it is listed again."""
    async with open_till(sqlite_url, mint, is_sound_at_end=False) as till:
        await till.create(mint.issue(1))
        await leave_open(till, 2)
    async with FakeMint() as other, open_till(sqlite_url, other, is_sound_at_end=False) as till:
        calls = len(mint.calls)
        assert await till.resume() == 1
        assert len(mint.calls) == calls
        assert (await till.operations())[-1] == ("sent", "UntrustedMint")
        assert await till.value("SELECT count(*) FROM mint_operation WHERE lease_until > '1'") == 0
    async with open_till(sqlite_url, mint) as till:
        await till.later(60)
        assert await till.resume() == 1
        assert await till.held() == mint.unspent_total() == 3
