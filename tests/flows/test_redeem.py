"""What was taken without a question becomes coins of the node's own, or a loss that is in the
books; whatever the mint does, and wherever it breaks off."""

from collections.abc import Sequence
from typing import Final

import pytest

from routstr.ecash.amounts import split
from routstr.flows.mints import known_mint
from routstr.flows.redeem import ASKED_MAX, _batches, _whole_deposits, redeem
from routstr.ledger.book import KeyRef
from routstr.ledger.reads_ecash import LockedProof
from tests.fakes.mint import FakeMint, Trouble
from tests.fakes.mint_ledger import JsonObject
from tests.harness.till import ON_SQLITE, Till, open_till, ys_of
from tests.ledger.node import reserve, settle

SWAP: Final = "/v1/swap"
STATES: Final = "/v1/checkstate"
LOST: Final = Trouble(path="/v1/", processed=False, cut=True)


def locked(till: Till, amount: int = 21, *, tags: Sequence[Sequence[str]] = ()) -> str:
    """A token that only this node can spend."""
    return till.mint.issue(amount, lock_to=till.ctx.acceptance.current, tags=tags)


@pytest.fixture
async def met(till: Till) -> Till:
    """A till that has heard of its mint."""
    await known_mint(till.ctx, till.mint.url)
    return till


async def states(till: Till) -> dict[str, int]:
    """What the locked proofs are worth by state, in sat."""
    worth: dict[str, int] = {}
    for state in ("locked", "reserved", "spent", "lost"):
        sql = "SELECT sum(amount) FROM proof WHERE lock_key IS NOT NULL AND state = :state"
        found = await till.value(sql, state=state)
        if found is not None:
            worth[state] = int(found)
    return worth


async def earn(till: Till, amount_sat: int) -> None:
    """Let a customer use up so much: the node's own money from then on."""
    made = await till.create(till.mint.issue(amount_sat))
    key, msat = KeyRef(id=made.key_id), made.available_msat
    await till.ctx.ledger.submit(reserve(f"req_{amount_sat}", key, msat))
    await till.ctx.ledger.submit(settle(f"req_{amount_sat}", key, msat))


def swaps(till: Till) -> list[list[JsonObject]]:
    """The inputs of every swap so far."""
    return [call.json["inputs"] for call in till.mint.calls if call.path == SWAP]  # type: ignore[misc]  # lists


# ── to the end ────────────────────────────────────────────────────────────────────────────────


async def test_locked_ecash_is_redeemed_for_coins_of_its_own(database_url: str) -> None:
    async with FakeMint(fee_ppk=100) as mint, open_till(database_url, mint) as till:
        await known_mint(till.ctx, mint.url)
        key = await till.create(locked(till, 2**12 - 1))
        await till.create(locked(till, 24))
        redeemed = await redeem(till.ctx)
        assert (redeemed.done, redeemed.lost) == (14, 0)
        assert await till.held() == mint.unspent_total() == 2**12 - 1 + 24 - 2
        assert await states(till) == {"spent": 2**12 - 1 + 24}
        assert await till.balance(key) == (2**12 - 3) * 1000
        calls = len(mint.calls)
        await redeem(till.ctx)
        assert len(mint.calls) == calls


@ON_SQLITE
async def test_the_earliest_lock_goes_first_and_a_batch_has_its_limit(met: Till) -> None:
    now = int(met.ctx.clock.now().timestamp())
    days = {day: str(now + day * 86_400 + 60) for day in (3, 1, 2)}
    for locktime in (*days.values(), None):
        tags = [] if locktime is None else [["locktime", locktime]]
        for _ in range(9):
            await met.create(locked(met, 31, tags=tags))
    await met.ctx.tasks.finish(10)
    await redeem(met.ctx)
    assert await states(met) == {"spent": 36 * 31}
    assert max(len(inputs) for inputs in swaps(met)) <= 100
    ends = [str(each["secret"]) for inputs in swaps(met) for each in inputs]
    first = [end for end in ends if days[1] in end]
    assert len(first) == 45


@ON_SQLITE
async def test_many_proofs_are_redeemed_at_once(met: Till) -> None:
    for _ in range(10):
        await met.create(locked(met, 31))
    await met.ctx.tasks.finish(10)
    assert await states(met) == {"spent": 310}


@ON_SQLITE
async def test_half_the_cap_is_redeemed_at_once(database_url: str, mint: FakeMint) -> None:
    async with open_till(database_url, mint, locked_sats_max=42) as till:
        await known_mint(till.ctx, mint.url)
        await till.create(locked(till, 20))
        assert await states(till) == {"locked": 20}
        await till.create(locked(till, 1))
        await till.ctx.tasks.finish(10)
        assert await states(till) == {"spent": 21}


@ON_SQLITE
async def test_both_units_are_redeemed_apart(database_url: str) -> None:
    async with FakeMint(units=("sat", "msat")) as mint, open_till(database_url, mint) as till:
        await known_mint(till.ctx, mint.url)
        await till.create(locked(till, 21))
        await till.create(mint.issue(1000, "msat", lock_to=till.ctx.acceptance.current))
        await redeem(till.ctx)
        assert (await till.held("sat"), await till.held("msat")) == (21, 1000)


# ── broken off ────────────────────────────────────────────────────────────────────────────────

STEPS: Final = (
    "redeem.begun",
    "swap.prepared",
    "swap.sent",
    "swap.answered",
    "own_swap.signed",
    "own_swap.ended",
)


class Dies(Exception):
    """The process ends here."""


async def test_broken_off_at_any_step_it_is_redeemed_once(met: Till) -> None:
    for count, step in enumerate(STEPS, start=1):

        def fail(step: str = step) -> None:
            del met.marks.at[step]
            raise Dies

        await met.create(locked(met))
        met.marks.at[step] = fail
        with pytest.raises(Dies):
            await redeem(met.ctx)
        await met.assert_sound()
        await met.resume()
        await redeem(met.ctx)
        assert await states(met) == {"spent": 21 * count}, step
        assert await met.held() == met.mint.unspent_total() == 21 * count, step
        await met.assert_sound()


async def test_a_lost_answer_is_restored(met: Till) -> None:
    await met.create(locked(met))
    met.mint.cut_next_answer(SWAP)
    await redeem(met.ctx)
    assert await met.held() == met.mint.unspent_total() == 21
    assert await states(met) == {"spent": 21}


@ON_SQLITE
async def test_a_mint_that_is_down_keeps_it_locked(met: Till) -> None:
    tags = [["locktime", str(int(met.ctx.clock.now().timestamp()) + 86_400 + 60)]]
    await met.create(locked(met, tags=tags))
    met.mint.trouble(LOST)
    await redeem(met.ctx)
    assert await states(met) == {"locked": 21}
    await redeem(met.ctx)
    assert await states(met) == {"spent": 21}


@ON_SQLITE
async def test_keys_rotated_meanwhile_cost_a_round(met: Till) -> None:
    await met.create(locked(met))
    met.mint.rotate()
    redeemed = await redeem(met.ctx)
    assert (redeemed.done, redeemed.lost) == (0, 0)
    assert await states(met) == {"locked": 21}
    await redeem(met.ctx)
    assert await states(met) == {"spent": 21}
    assert await met.held() == met.mint.unspent_total() == 21


def waiting(*sizes: int) -> list[LockedProof]:
    """Deposits of so many proofs each, one after the other."""
    return [
        LockedProof(
            y=f"{number}/{index}",
            deposit_id=str(number),
            keyset_id="00",
            unit="sat",
            amount=1,
            locktime=None,
        )
        for number, size in enumerate(sizes)
        for index in range(size)
    ]


@pytest.mark.parametrize(
    ("sizes", "batches"),
    [
        ((), []),
        ((100,), [100]),
        ((60, 60), [60, 60]),
        ((30, 30, 40, 1), [100, 1]),
        ((7,) * 15, [98, 7]),
    ],
)
def test_no_deposit_is_cut_between_two_batches(sizes: tuple[int, ...], batches: list[int]) -> None:
    """Each paid its own redemption fee, rounded up: one cut in two would cost more than that."""
    assert [len(batch) for batch in _batches(waiting(*sizes))] == batches


def test_the_deposit_that_a_page_cuts_waits_for_the_next() -> None:
    assert len(_whole_deposits(waiting(3, 2))) == 5
    assert len(_whole_deposits(waiting(*[7] * 71, 3))) == 497
    assert len(_whole_deposits(waiting(ASKED_MAX))) == ASKED_MAX


# ── a mint that goes back on its word ─────────────────────────────────────────────────────────


async def test_what_its_mint_calls_spent_is_lost_and_in_the_books(met: Till) -> None:
    await earn(met, 50)
    await met.create(locked(met))
    stolen = locked(met, 8)
    key = await met.create(stolen)
    met.mint.set_spent(ys_of(stolen))
    redeemed = await redeem(met.ctx)
    assert (redeemed.done, redeemed.lost) == (3, 1)
    assert await states(met) == {"spent": 21, "lost": 8}
    assert await met.balance(key) == 8_000  # the operator bears it
    await met.assert_sound()


async def test_one_that_is_spent_while_the_batch_is_under_way_is_found(met: Till) -> None:
    """The states were asked for, then it is spent: the swap is refused, the rest is redeemed."""
    await earn(met, 50)
    await met.create(locked(met))
    stolen = locked(met, 8)
    await met.create(stolen)
    met.marks.at["redeem.begun"] = lambda: met.mint.set_spent(ys_of(stolen))
    await redeem(met.ctx)
    met.marks.at.clear()
    await met.assert_sound()
    await redeem(met.ctx)
    assert await states(met) == {"spent": 21, "lost": 8}
    await met.assert_sound()


@pytest.mark.parametrize("fee_ppk", [0, 100])
async def test_a_refused_batch_is_halved_down_to_the_bad_proof(
    database_url: str, fee_ppk: int
) -> None:
    async with FakeMint(fee_ppk=fee_ppk) as mint, open_till(database_url, mint) as till:
        await earn(till, 200)
        bad = locked(till, 64)
        for token in (locked(till, 31), bad, locked(till, 15)):
            await till.create(token)
        mint.ledger.forgotten.update(ys_of(bad))
        for _ in range(3):
            await redeem(till.ctx)
        found = await states(till)
        alone = found.get("locked", 0)  # a 1 that was left alone cannot pay its fee: it waits
        assert found == {"spent": 46 - alone, "lost": 64} | ({"locked": 1} if alone else {})
        await till.assert_sound()


@ON_SQLITE
async def test_a_proof_that_costs_more_than_it_is_worth_waits_for_others(database_url: str) -> None:
    """Alone it cannot be tried, and that must not keep the bad one from being found."""
    async with FakeMint(fee_ppk=100) as mint, open_till(database_url, mint) as till:
        await earn(till, 400)
        for count in range(1, 5):
            bad = locked(till, 64)
            for token in (bad, locked(till, 3)):
                await till.create(token)
            mint.ledger.forgotten.update(ys_of(bad))
            await redeem(till.ctx)
            await redeem(till.ctx)
            assert (await states(till))["lost"] == 64 * count


@ON_SQLITE
async def test_a_mint_that_refuses_everything_loses_nothing_yet(met: Till) -> None:
    await met.create(locked(met))
    met.mint.trouble(*[Trouble(path=SWAP, processed=False, status=400, code=10001)] * 6)
    redeemed = await redeem(met.ctx)
    assert (redeemed.done, redeemed.lost) == (0, 0)
    assert await states(met) == {"locked": 21}
    met.mint._troubles.clear()
    await redeem(met.ctx)
    assert await states(met) == {"spent": 21}


async def test_keys_rotated_while_a_batch_is_halved_make_nothing_lost(met: Till) -> None:
    """Some of it was redeemed, then every refusal is for the keyset: none of it is a bad proof."""
    await met.create(locked(met, sum(1 << bit for bit in range(6))))
    assert len(split(63)) == 6
    met.mint.trouble(Trouble(path=SWAP, processed=False, status=400, code=10001))
    ended = 0

    def rotate_after_the_first_half() -> None:
        nonlocal ended
        ended += 1
        if ended == 1:
            met.mint.rotate()

    met.marks.at["own_swap.ended"] = rotate_after_the_first_half
    await redeem(met.ctx)
    met.marks.at.clear()
    assert "lost" not in await states(met)
    await redeem(met.ctx)
    assert await states(met) == {"spent": 63}
