"""Ecash locked to the node is money at once, whether its mint answers or not; anything that is not
beyond doubt goes to the mint first, and what is locked to others goes nowhere."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Final

import pytest

from routstr.ecash.acceptance import acceptance_keys
from routstr.ecash.bdhke import public_key
from routstr.ecash.p2pk import verify_secret
from routstr.ecash.token import BODY_BYTES_MAX, decode_token, encode_token_v4
from routstr.errors import InvalidToken, MintUnreachable, TokenAlreadySpent
from routstr.flows.keys import Created
from routstr.flows.mints import known_mint
from tests.fakes.mint import FakeMint, Trouble
from tests.fakes.upstream_script import Gate
from tests.harness.till import ON_SQLITE, Till, open_till

SWAP: Final = "/v1/swap"
CROWD: Final = 20
HOUR_S: Final = 3600
DAY_S: Final = 24 * HOUR_S
OTHERS: Final = public_key("2" * 64)
DOWN: Final = Trouble(path="/v1/", processed=False, cut=True)


@pytest.fixture
async def met(till: Till) -> Till:
    """A till that has heard of its mint, once, a moment ago."""
    await known_mint(till.ctx, till.mint.url)
    return till


@pytest.fixture
async def pair(postgres_url: str, mint: FakeMint) -> AsyncIterator[tuple[Till, Till]]:
    async with (
        open_till(postgres_url, mint, owner="one") as one,
        open_till(postgres_url, mint, owner="two") as two,
    ):
        for till in (one, two):
            await known_mint(till.ctx, mint.url)
        yield one, two


def locked(
    till: Till, amount: int = 21, *, tags: Sequence[Sequence[str]] = (), dleq: bool = True
) -> str:
    """A token that only this node can spend."""
    key = till.ctx.acceptance.current
    return till.mint.issue(amount, lock_to=key, tags=tags, include_dleq=dleq)


def in_seconds(till: Till, seconds: int) -> str:
    return str(int(till.ctx.clock.now().timestamp()) + seconds)


def swaps(till: Till) -> int:
    return len([call for call in till.mint.calls if call.path == SWAP])


async def waiting(till: Till) -> int:
    """What is locked and not redeemed, in sat."""
    sql = "SELECT coalesce(sum(amount), 0) FROM proof WHERE state = 'locked'"
    return int(await till.value(sql))


# ── money at once ─────────────────────────────────────────────────────────────────────────────


async def test_locked_ecash_is_money_before_its_mint_hears_of_it(met: Till) -> None:
    calls = len(met.mint.calls)
    key = await met.create(locked(met))
    assert key.available_msat == await met.balance(key) == 21_000
    assert await met.topup(key, locked(met, 8)) == 29_000
    assert len(met.mint.calls) == calls
    assert await waiting(met) == met.mint.unspent_total() == 29
    await met.assert_sound()


async def test_a_mint_that_went_down_within_the_hour_does_not_matter(
    database_url: str, mint: FakeMint
) -> None:
    """Not even across a restart: when it answered, and what it can do, is in the database."""
    async with open_till(database_url, mint) as till:
        await known_mint(till.ctx, mint.url)
    mint.trouble(*[DOWN] * 100)
    async with open_till(database_url, mint) as till:
        calls = len(mint.calls)
        assert await till.balance(await till.create(locked(till))) == 21_000
        assert len(mint.calls) == calls
        mint._troubles.clear()


async def test_a_crowd_with_one_locked_token_is_credited_once(met: Till) -> None:
    token = locked(met)
    results = await asyncio.gather(
        *(met.create(token) for _ in range(CROWD)), return_exceptions=True
    )
    made = [each for each in results if isinstance(each, Created)]
    refused = {type(each) for each in results if not isinstance(each, Created)}
    assert (len(made), refused) == (1, {TokenAlreadySpent})
    assert await met.value("SELECT sum(balance) FROM apikey") == 21_000


async def test_a_crowd_at_two_nodes_is_credited_once(pair: tuple[Till, Till]) -> None:
    token = locked(pair[0])
    results = await asyncio.gather(
        *(pair[n % 2].create(token) for n in range(CROWD)), return_exceptions=True
    )
    refused = {type(each) for each in results if not isinstance(each, Created)}
    assert refused == {TokenAlreadySpent}
    assert await pair[0].value("SELECT sum(balance) FROM apikey") == 21_000


async def test_two_nodes_keep_one_cap(postgres_url: str, mint: FakeMint) -> None:
    gate = Gate()
    async with (
        open_till(postgres_url, mint, owner="one", locked_sats_max=100) as one,
        open_till(postgres_url, mint, owner="two", locked_sats_max=100) as two,
    ):
        for till in (one, two):
            await known_mint(till.ctx, mint.url)
        mint.trouble(*[Trouble(path="/v1/checkstate", gate=gate)] * 2)  # nothing is redeemed yet
        tokens = [locked(one) for _ in range(CROWD)]
        await asyncio.gather(*((one, two)[n % 2].create(each) for n, each in enumerate(tokens)))
        taken = await one.value("SELECT sum(face_amount) FROM deposit WHERE is_locked")
        assert 0 < taken <= 100
        gate.open()


@ON_SQLITE
async def test_a_repeat_is_answered_with_the_first_result(met: Till) -> None:
    key, other = await met.create(locked(met)), await met.create(locked(met))
    token = locked(met, 8)
    assert [await met.topup(key, token) for _ in range(2)] == [29_000, 29_000]
    with pytest.raises(TokenAlreadySpent):
        await met.topup(other, token)
    with pytest.raises(TokenAlreadySpent):
        await met.create(token)
    opening = locked(met)
    first, again = [await met.create(opening, repeat="a") for _ in range(2)]
    assert first.api_key == again.api_key
    assert again.is_replay


class Dies(Exception):
    """The process ends here."""


async def test_broken_off_before_or_after_its_commit_it_is_credited_once(met: Till) -> None:
    for count, step in enumerate(("instant.checked", "instant.accepted"), start=1):

        def fail(step: str = step) -> None:
            del met.marks.at[step]
            raise Dies

        token = locked(met)
        met.marks.at[step] = fail
        with pytest.raises(Dies):
            await met.create(token, repeat=step)
        await met.assert_sound()
        made = await met.create(token, repeat=step)
        assert await met.balance(made) == 21_000
        assert await met.value("SELECT sum(balance) FROM apikey") == 21_000 * count
        assert await waiting(met) == 21 * count


@ON_SQLITE
async def test_the_fee_of_redeeming_is_taken_off_the_credit(database_url: str) -> None:
    async with FakeMint(fee_ppk=100) as mint, open_till(database_url, mint) as till:
        await known_mint(till.ctx, mint.url)
        key = await till.create(locked(till, 2**12 - 1))  # 12 proofs at 100 ppk: 2 sat
        assert await till.balance(key) == (2**12 - 1 - 2) * 1000
        assert await waiting(till) == 2**12 - 1


@ON_SQLITE
async def test_a_lock_may_say_what_goes_without_saying(met: Till) -> None:
    tags = [
        ["sigflag", "SIG_INPUTS"],
        ["n_sigs", "1"],
        ["locktime", in_seconds(met, DAY_S + 60)],
        ["refund", OTHERS],
    ]
    await met.create(locked(met, tags=tags))
    assert (await waiting(met), swaps(met)) == (21, 0)
    assert await met.value("SELECT min(locktime) FROM proof") == int(tags[2][1])


@ON_SQLITE
async def test_more_proofs_than_a_moment_allows_are_judged_aside(met: Till) -> None:
    tokens = [decode_token(locked(met, 31), bytes_max=BODY_BYTES_MAX) for _ in range(4)]
    proofs = tuple(proof for token in tokens for proof in token.proofs)
    whole = encode_token_v4(replace(tokens[0], proofs=proofs), include_dleq=True)
    assert await met.balance(await met.create(whole)) == 4 * 31_000
    assert swaps(met) == 0


# ── the mint first ────────────────────────────────────────────────────────────────────────────


async def assert_swapped(till: Till, token: str, amount: int = 21) -> None:
    """The token was credited by its mint's word, and nothing is left to redeem."""
    before, held = swaps(till), await till.held()
    assert await till.balance(await till.create(token)) == amount * 1000
    assert swaps(till) == before + 1
    assert await till.held() == held + amount


async def test_a_lock_that_ends_soon_is_swapped_first(met: Till) -> None:
    tags = [["locktime", in_seconds(met, DAY_S - 60)], ["refund", OTHERS]]
    await assert_swapped(met, locked(met, tags=tags))
    (swap,) = [call for call in met.mint.calls if call.path == SWAP]
    inputs = swap.json["inputs"]
    assert isinstance(inputs, list)
    for each in inputs:
        assert verify_secret(each["secret"], each["witness"], met.ctx.acceptance.current)


@ON_SQLITE
async def test_a_proof_without_its_dleq_is_swapped_first(met: Till) -> None:
    await assert_swapped(met, locked(met, dleq=False))


@ON_SQLITE
async def test_a_token_that_is_locked_in_part_is_swapped_first(met: Till) -> None:
    tokens = [
        decode_token(text, bytes_max=BODY_BYTES_MAX) for text in (locked(met), met.mint.issue(8))
    ]
    proofs = tuple(proof for token in tokens for proof in token.proofs)
    mixed = encode_token_v4(replace(tokens[0], proofs=proofs), include_dleq=True)
    await assert_swapped(met, mixed, amount=29)


@ON_SQLITE
async def test_a_key_of_an_earlier_life_is_swapped_first(met: Till) -> None:
    """A restored backup moves the key on: the life before it may have credited the same token."""
    token = locked(met)
    met.ctx = replace(met.ctx, acceptance=acceptance_keys(met.ctx.wallet.seed, 2))
    await assert_swapped(met, token)
    assert await met.balance(await met.create(locked(met))) == 21_000
    assert await waiting(met) == 21


@ON_SQLITE
async def test_a_keyset_that_retires_is_swapped_first(met: Till) -> None:
    of_old = locked(met)
    expiry = int(in_seconds(met, 29 * DAY_S))
    met.mint.ledger.rotate("sat", fee_ppk=0, final_expiry=expiry)
    await known_mint(met.ctx, met.mint.url, since_s=met.ctx.monotonic_s())
    await assert_swapped(met, of_old)
    await assert_swapped(met, locked(met))


@ON_SQLITE
async def test_a_mint_that_is_silent_for_an_hour_is_asked(met: Till) -> None:
    token = locked(met)
    await met.later(met.ctx.limits.locked_mint_silent_s + 1)
    met.mint.trouble(DOWN, DOWN, DOWN)
    with pytest.raises(MintUnreachable):
        await met.create(token)
    met.mint._troubles.clear()
    await met.resume()
    assert await met.held() == 21


@ON_SQLITE
@pytest.mark.parametrize("missing", [10, 11])
async def test_a_mint_that_may_ignore_locks_is_asked(database_url: str, missing: int) -> None:
    nuts = {7, 9, 10, 11, 12} - {missing}
    async with FakeMint(nuts=nuts) as mint, open_till(database_url, mint) as till:
        await known_mint(till.ctx, mint.url)
        await assert_swapped(till, locked(till))


async def test_above_the_cap_the_mint_is_asked(database_url: str, mint: FakeMint) -> None:
    async with open_till(database_url, mint, locked_sats_max=100) as till:
        await known_mint(till.ctx, mint.url)
        await till.create(locked(till, 45))  # half of it would be redeemed at once
        await assert_swapped(till, locked(till, 56), amount=56)
        assert await waiting(till) == 45


@ON_SQLITE
async def test_switched_off_every_token_is_swapped_first(database_url: str, mint: FakeMint) -> None:
    async with open_till(database_url, mint, p2pk_lock="off") as till:
        await known_mint(till.ctx, mint.url)
        await assert_swapped(till, locked(till))


# ── nowhere ───────────────────────────────────────────────────────────────────────────────────


@ON_SQLITE
@pytest.mark.parametrize(
    "tags",
    [
        [["sigflag", "SIG_ALL"]],
        [["n_sigs", "2"]],
        [["pubkeys", OTHERS]],
        [["anything", "else"]],
        [["locktime", "tomorrow"]],
        [["locktime", "1"], ["refund", OTHERS]],
    ],
    ids=["all of it", "two", "more keys", "unknown", "no number", "over"],
)
async def test_a_lock_that_one_signature_does_not_open_is_refused(
    met: Till, tags: list[list[str]]
) -> None:
    calls = len(met.mint.calls)
    with pytest.raises(InvalidToken, match="locked"):
        await met.create(locked(met, tags=tags))
    assert len(met.mint.calls) == calls
    assert await met.value("SELECT count(*) FROM deposit") == 0


@ON_SQLITE
async def test_what_is_locked_to_others_is_refused(met: Till) -> None:
    with pytest.raises(InvalidToken, match="locked"):
        await met.create(met.mint.issue(21, lock_to=OTHERS))


@ON_SQLITE
async def test_a_condition_of_another_kind_is_refused(met: Till) -> None:
    token = decode_token(locked(met, 8), bytes_max=BODY_BYTES_MAX)
    _, fields = json.loads(token.proofs[0].secret)
    secret = json.dumps(["HTLC", fields])
    proofs = (replace(token.proofs[0], secret=secret),)
    with pytest.raises(InvalidToken, match="locked"):
        await met.create(encode_token_v4(replace(token, proofs=proofs), include_dleq=True))


@ON_SQLITE
async def test_a_forged_signature_is_refused(met: Till) -> None:
    token = decode_token(locked(met, 24), bytes_max=BODY_BYTES_MAX)
    first, second = token.proofs
    forged = replace(token, proofs=(replace(first, c=second.c), second))
    with pytest.raises(InvalidToken):
        await met.create(encode_token_v4(forged, include_dleq=True))
    assert await met.value("SELECT count(*) FROM deposit") == 0
