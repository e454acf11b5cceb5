"""Algorithm A, branch by branch: whatever the mint says or leaves unsaid, one credit or none."""

from dataclasses import replace

import pytest

from routstr.ecash.token import BODY_BYTES_MAX, decode_token, encode_token_v4
from routstr.errors import (
    MintRateLimited,
    MintUnreachable,
    Pending,
    SwapFeesExceedAmount,
    TokenAlreadySpent,
    TokenRedemptionFailed,
)
from tests.fakes.mint import FakeMint, Trouble
from tests.fakes.mint_ledger import JsonObject
from tests.harness.till import ON_SQLITE, Till, open_till, ys_of

SWAP = "/v1/swap"
RESTORE = "/v1/restore"
STATES = "/v1/checkstate"


async def test_a_token_becomes_money_once_the_mint_has_signed(till: Till) -> None:
    token = till.mint.issue(21)
    key = await till.create(token)
    assert key.available_msat == await till.balance(key) == 21_000
    assert set(till.mint.state_of(ys_of(token)).values()) == {"SPENT"}
    assert await till.held() == till.mint.unspent_total() == 21


async def test_an_answer_lost_after_signing_credits_once(till: Till) -> None:
    token = till.mint.issue(21)
    till.mint.cut_next_answer(SWAP)
    key = await till.create(token)
    assert await till.balance(key) == 21_000
    assert await till.resume() == 0
    assert await till.resume() == 0
    assert await till.balance(key) == 21_000
    assert await till.held() == till.mint.unspent_total() == 21


@ON_SQLITE
@pytest.mark.parametrize(
    "trouble",
    [
        Trouble(path=SWAP, half=True),
        Trouble(path=SWAP, status=500),
        Trouble(path=SWAP, status=200, body=b"<html>"),
        Trouble(path=SWAP, body=b'{"signatures":[]}'),
        Trouble(path=SWAP, status=400, code=11001),
        Trouble(path=SWAP, status=400, code=10001),
        Trouble(path=SWAP, status=429, retry_after="1"),
    ],
    ids=["half", "500", "html", "none", "spent", "safe code", "429"],
)
async def test_a_signed_swap_is_found_again_whatever_the_answer_said(
    till: Till, trouble: Trouble
) -> None:
    till.mint.trouble(trouble)
    key = await till.create(till.mint.issue(21))
    assert await till.balance(key) == till.mint.unspent_total() * 1000 == 21_000


async def test_nothing_is_credited_while_nobody_knows(till: Till) -> None:
    token = till.mint.issue(21)
    till.mint.cut_next_answer(SWAP)
    till.mint.trouble(Trouble(path=RESTORE, processed=False, cut=True))
    with pytest.raises(MintUnreachable) as caught:
        await till.create(token)
    assert caught.value.details["deposit_id"]
    assert caught.value.retry_after_s is not None
    assert await till.value("SELECT count(*) FROM apikey") == 0
    assert await till.operations() == [("sent", "MintUnknown")]
    key = await till.create(token)  # the same token attaches
    assert await till.balance(key) == 21_000
    assert await till.value("SELECT count(*) FROM deposit") == 1


async def test_a_mint_that_is_down_keeps_nobody_waiting_and_loses_nothing(till: Till) -> None:
    first = await till.create(till.mint.issue(1))  # the keysets are known from here on
    token = till.mint.issue(21)
    down = Trouble(path="/v1/", processed=False, cut=True)
    till.mint.trouble(*[down] * 4)
    with pytest.raises(MintUnreachable) as caught:
        await till.create(token)
    assert caught.value.retry_after_s is not None
    till.mint._troubles.clear()
    assert await till.resume() == 1
    assert await till.value("SELECT count(*) FROM apikey") == 2
    with pytest.raises(TokenAlreadySpent):  # it is credited, and still works as a Bearer key
        await till.create(token)
    assert await till.held() == till.mint.unspent_total() == 22
    assert await till.balance(first) == 1_000


@ON_SQLITE
async def test_a_mint_never_seen_and_down_is_503(till: Till) -> None:
    token = till.mint.issue(21)
    till.mint.trouble(Trouble(path="/v1/info", processed=False, cut=True))
    with pytest.raises(MintUnreachable):
        await till.create(token)
    assert await till.value("SELECT count(*) FROM deposit") == 0
    assert await till.balance(await till.create(token)) == 21_000


@ON_SQLITE
async def test_a_limited_mint_is_said_so(till: Till) -> None:
    token = till.mint.issue(21)
    await till.create(till.mint.issue(1))
    till.mint.trouble(*[Trouble(path=p, processed=False, status=429) for p in (SWAP, RESTORE)])
    with pytest.raises(MintRateLimited):
        await till.create(token)
    assert await till.resume() == 1
    assert till.mint.unspent_total() == await till.held() == 22


@ON_SQLITE
async def test_a_token_spent_elsewhere_is_refused_and_kept_an_eye_on(till: Till) -> None:
    token = till.mint.issue(21)
    till.mint.set_spent(ys_of(token))
    with pytest.raises(TokenAlreadySpent):
        await till.create(token)
    assert await till.operations() == [("watch", "spent")]
    with pytest.raises(TokenAlreadySpent):
        await till.create(token)
    assert await till.value("SELECT count(*) FROM apikey") == 0


async def test_a_late_restore_still_credits(till: Till) -> None:
    """The mint hides for a while that it signed."""
    token = till.mint.issue(21)
    till.mint.cut_next_answer(SWAP)
    till.mint.trouble(Trouble(path=RESTORE, body=b'{"outputs":[],"signatures":[]}'))
    with pytest.raises(TokenAlreadySpent):
        await till.create(token)
    assert await till.operations() == [("watch", "spent")]
    assert await till.resume() == 1
    assert await till.operations() == [("done", None)]
    assert await till.held() == till.mint.unspent_total() == 21


async def test_the_watch_ends_after_its_time_and_frees_the_token(till: Till) -> None:
    token = till.mint.issue(21)
    till.mint.set_spent(ys_of(token))
    with pytest.raises(TokenAlreadySpent):
        await till.create(token)
    await till.later(till.ctx.limits.mint_watch_s)
    assert await till.resume() == 1
    assert await till.operations() == [("failed", "watched")]
    assert await till.value("SELECT count(*) FROM deposit_input") == 0


async def test_pending_at_the_mint_waits_then_credits(till: Till) -> None:
    token = till.mint.issue(21)
    till.mint.set_pending(ys_of(token))
    with pytest.raises(Pending):
        await till.create(token)
    assert await till.operations() == [("waiting", "pending")]
    with pytest.raises(Pending):
        await till.create(token)
    till.mint.set_free(ys_of(token))
    key = await till.create(token)
    assert await till.balance(key) == 21_000


@ON_SQLITE
async def test_a_mint_that_remembers_half_of_it_gets_nothing_credited(till: Till) -> None:
    def forget_one(value: JsonObject) -> JsonObject:
        return {name: entries[1:] for name, entries in value.items()}  # type: ignore[index]  # lists

    token = till.mint.issue(21)
    till.mint.cut_next_answer(SWAP)
    till.mint.trouble(Trouble(path=RESTORE, tamper=forget_one))
    with pytest.raises(MintUnreachable):
        await till.create(token)
    assert await till.operations() == [("watch", "doubtful")]
    assert await till.held() == 0
    assert await till.resume() == 1
    assert await till.held() == till.mint.unspent_total() == 21


@ON_SQLITE
async def test_a_wrong_dleq_of_the_mint_credits_nothing(till: Till) -> None:
    def forge(value: JsonObject) -> JsonObject:
        signatures: list[JsonObject] = value["signatures"]  # type: ignore[assignment]  # our own
        dleq: dict[str, str] = signatures[0]["dleq"]  # type: ignore[assignment]  # our own
        forged = {**signatures[0], "dleq": {**dleq, "e": "11" * 32}}
        return {**value, "signatures": [forged, *signatures[1:]]}

    till.mint.trouble(Trouble(path=SWAP, tamper=forge), Trouble(path=RESTORE, tamper=forge))
    token = till.mint.issue(21)
    with pytest.raises(MintUnreachable):
        await till.create(token)
    assert await till.operations() == [("watch", "doubtful")]
    assert await till.held() == 0
    assert await till.resume() == 1
    assert await till.held() == 21


@ON_SQLITE
async def test_a_dleq_left_out_by_the_mint_credits_nothing(till: Till) -> None:
    def bare(value: JsonObject) -> JsonObject:
        signatures: list[JsonObject] = value["signatures"]  # type: ignore[assignment]  # our own
        without = [{n: v for n, v in each.items() if n != "dleq"} for each in signatures]
        return {**value, "signatures": without}

    till.mint.trouble(Trouble(path=SWAP, tamper=bare), Trouble(path=RESTORE, tamper=bare))
    with pytest.raises(MintUnreachable):
        await till.create(till.mint.issue(21))
    assert await till.held() == 0


@ON_SQLITE
@pytest.mark.parametrize("code", [0, 10001, 11006, 20008])
async def test_a_safe_refusal_frees_the_token(till: Till, code: int) -> None:
    token = till.mint.issue(21)
    till.mint.trouble(Trouble(path=SWAP, processed=False, status=400, code=code))
    with pytest.raises(TokenRedemptionFailed) as caught:
        await till.create(token)
    assert caught.value.details == {"mint_code": code}
    assert await till.value("SELECT count(*) FROM deposit_input") == 0
    assert await till.operations() == [("failed", str(code))]
    assert await till.balance(await till.create(token)) == 21_000


@ON_SQLITE
async def test_a_safe_code_after_an_unknown_answer_ends_nothing(till: Till) -> None:
    """The lost first request may have been processed by another of the mint's servers."""
    token = till.mint.issue(21)
    till.mint.lose_next_request(SWAP)
    till.mint.trouble(Trouble(path=SWAP, processed=False, status=400, code=10001))
    with pytest.raises(MintUnreachable):
        await till.create(token)
    assert await till.operations() == [("watch", "doubtful")]
    assert await till.value("SELECT count(*) FROM deposit_input") == len(ys_of(token))
    assert await till.resume() == 1
    assert await till.held() == till.mint.unspent_total() == 21


@ON_SQLITE
async def test_a_lost_request_is_sent_again_byte_for_byte(till: Till) -> None:
    till.mint.lose_next_request(SWAP)
    await till.create(till.mint.issue(21))
    first, second = [call.body for call in till.mint.calls if call.path == SWAP]
    assert first == second


async def test_keys_rotated_meanwhile_make_one_successor(till: Till) -> None:
    await till.create(till.mint.issue(1))
    token = till.mint.issue(21)
    new_id = till.mint.rotate()
    key = await till.create(token)
    assert await till.balance(key) == 21_000
    assert await till.operations() == [("done", None), ("failed", "12002"), ("done", None)]
    bodies = [call.json for call in till.mint.calls if call.path == SWAP]
    assert {each["id"] for each in bodies[-1]["outputs"]} == {new_id}  # type: ignore[attr-defined]  # a list


@ON_SQLITE
async def test_a_second_refusal_makes_no_second_successor(till: Till) -> None:
    token = till.mint.issue(21)
    stale = Trouble(path=SWAP, processed=False, status=400, code=12002)
    till.mint.trouble(stale, stale, stale)
    with pytest.raises(TokenRedemptionFailed):
        await till.create(token)
    assert await till.operations() == [("failed", "12002"), ("failed", "12002")]
    assert await till.value("SELECT count(*) FROM deposit_input") == 0


async def test_a_fee_that_rose_lowers_the_credit(database_url: str) -> None:
    async with FakeMint(version="00") as mint, open_till(database_url, mint) as till:
        await till.create(mint.issue(1))
        token = mint.issue(21)
        raise_fee(mint)
        key = await till.create(token)
        assert await till.balance(key) == 18_000  # three proofs, one sat each
        assert [state for state, _ in await till.operations()] == ["done", "failed", "done"]


@ON_SQLITE
async def test_a_fee_that_rose_above_the_token_frees_it(database_url: str) -> None:
    async with FakeMint(version="00") as mint, open_till(database_url, mint) as till:
        await till.create(mint.issue(1))
        token = mint.issue(1)
        raise_fee(mint)
        with pytest.raises(SwapFeesExceedAmount):
            await till.create(token)
        assert await till.value("SELECT count(*) FROM deposit_input") == 1  # the first token's


def raise_fee(mint: FakeMint) -> None:
    """A sat an input from now on, on the same keyset: only ids of version 00 allow it."""
    active = mint.ledger.active("sat")
    active.keyset = replace(active.keyset, input_fee_ppk=1_000)


@ON_SQLITE
async def test_fees_are_taken_off_the_credit(database_url: str) -> None:
    async with FakeMint(fee_ppk=100) as mint, open_till(database_url, mint) as till:
        key = await till.create(mint.issue(2**12 - 1))  # 12 proofs at 100 ppk: 2 sat
        assert await till.balance(key) == (2**12 - 1 - 2) * 1000
        assert await till.held() == mint.unspent_total() == 2**12 - 3
        with pytest.raises(SwapFeesExceedAmount):
            await till.create(mint.issue(1))


@ON_SQLITE
async def test_msat_tokens_are_worth_msats(database_url: str) -> None:
    async with FakeMint(units=("sat", "msat")) as mint, open_till(database_url, mint) as till:
        assert await till.balance(await till.create(mint.issue(21, "msat"))) == 21


@ON_SQLITE
@pytest.mark.parametrize("version", ["00", "01"])
async def test_short_keyset_ids_are_completed(database_url: str, version: str) -> None:
    async with FakeMint(version=version) as mint, open_till(database_url, mint) as till:
        token = decode_token(mint.issue(21), bytes_max=BODY_BYTES_MAX)
        key = await till.create(encode_token_v4(token, short_ids=True, include_dleq=True))
        assert await till.balance(key) == 21_000
