"""What the mint changed while an operation was open: its keys, its fee, its word."""

import pytest

from routstr.errors import MintUnreachable, Pending, TokenAlreadySpent, TokenRedemptionFailed
from tests.fakes.mint import FakeMint, Trouble
from tests.fakes.mint_ledger import JsonObject
from tests.harness.till import ON_SQLITE, Till, ys_of

SWAP = "/v1/swap"
KEYSETS = "/v1/keysets"
LOST = Trouble(path="/v1/", processed=False, cut=True)


async def open_and_rotated(till: Till) -> str:
    """A deposit whose first request was lost, at a mint that has other keys when it is back."""
    await till.create(till.mint.issue(1))
    token = till.mint.issue(21)
    till.mint.trouble(LOST, LOST)
    with pytest.raises(MintUnreachable):
        await till.create(token)
    till.mint.rotate()
    return token


async def test_keys_rotated_while_nobody_knew_make_one_successor_a_minute_later(till: Till) -> None:
    token = await open_and_rotated(till)
    with pytest.raises(Pending) as caught:
        await till.create(token)
    assert caught.value.retry_after_s == 60
    assert await till.operations() == [("done", None), ("watch", "stale")]
    with pytest.raises(Pending):
        await till.create(token)
    assert await till.resume() == 1
    assert await till.operations() == [("done", None), ("failed", "12002"), ("done", None)]
    assert await till.held() == till.mint.unspent_total() == 22


@ON_SQLITE
async def test_a_first_request_that_arrives_in_that_minute_counts(till: Till) -> None:
    token = await open_and_rotated(till)
    with pytest.raises(Pending):
        await till.create(token)
    lost = next(
        call.json
        for call in till.mint.calls
        if call.json.get("inputs") and _is_of(call.json, token)
    )
    for keyset in till.mint.ledger.keysets.values():
        keyset.active = not keyset.active
    till.mint.ledger.swap(lost)
    assert await till.resume() == 1
    assert await till.operations() == [("done", None), ("done", None)]
    assert await till.held() == till.mint.unspent_total() == 22


def _is_of(body: JsonObject, token: str) -> bool:
    inputs = body["inputs"]
    assert isinstance(inputs, list)
    return len(inputs) == len(ys_of(token))


async def test_no_fresh_keysets_to_be_had_frees_the_token(till: Till) -> None:
    await till.create(till.mint.issue(1))
    token = till.mint.issue(21)
    till.mint.rotate()
    till.mint.trouble(Trouble(path="/v1/info", processed=False, cut=True))
    with pytest.raises(MintUnreachable):
        await till.create(token)
    assert await till.operations() == [("done", None), ("failed", "12002")]
    assert await till.value("SELECT count(*) FROM deposit_input") == 1
    assert await till.balance(await till.create(token)) == 21_000


@ON_SQLITE
@pytest.mark.parametrize("keep", ["none", "old"])
async def test_a_mint_that_lists_no_keyset_for_it_frees_the_token(till: Till, keep: str) -> None:
    """The old keyset is inactive, and then not even listed any more."""

    def listed(value: JsonObject) -> JsonObject:
        entries: list[JsonObject] = value["keysets"]  # type: ignore[assignment]  # our own
        return {"keysets": [each for each in entries if keep == "old" and not each["active"]]}

    await till.create(till.mint.issue(1))
    token = till.mint.issue(21)
    till.mint.rotate()
    till.mint.trouble(Trouble(path=KEYSETS, tamper=listed))
    with pytest.raises(TokenRedemptionFailed):
        await till.create(token)
    assert await till.operations() == [("done", None), ("failed", "12002")]
    assert await till.value("SELECT count(*) FROM deposit_input") == 1


@ON_SQLITE
async def test_a_signed_keyset_that_is_no_longer_listed_still_credits(till: Till) -> None:
    """It signed, the answer was lost, and when asked again the mint lists only its new keyset."""
    await till.create(till.mint.issue(1))
    token = till.mint.issue(21)
    till.mint.cut_next_answer(SWAP)
    till.mint.trouble(Trouble(path="/v1/restore", processed=False, cut=True))
    with pytest.raises(MintUnreachable):
        await till.create(token)
    new_id = till.mint.rotate()

    def listed(value: JsonObject) -> JsonObject:
        entries: list[JsonObject] = value["keysets"]  # type: ignore[assignment]  # our own
        return {"keysets": [each for each in entries if each["id"] == new_id]}

    await till.later(till.ctx.limits.keyset_refresh_s + 1)
    till.mint.trouble(Trouble(path=KEYSETS, tamper=listed))
    await till.create(till.mint.issue(4))  # the shelf now holds the new keyset alone
    assert await till.resume() == 1
    assert await till.held() == till.mint.unspent_total() == 26


@ON_SQLITE
async def test_a_mint_that_forgets_what_it_promised_is_asked_ever_less(till: Till) -> None:
    """Spent tokens cost nothing to bring; a thousand must not use up the patience of the mint."""
    token = till.mint.issue(21)
    till.mint.set_spent(ys_of(token))
    with pytest.raises(TokenAlreadySpent):
        await till.create(token)
    calls = len(till.mint.calls)
    hours = 24
    for _ in range(hours * 4):
        await till.later(900)
        await till.resume()
    assert len(till.mint.calls) - calls <= 2 * 45
    assert await till.operations() == [("failed", "watched")]


@ON_SQLITE
async def test_pending_in_the_watch_stays_watched(till: Till, mint: FakeMint) -> None:
    token = mint.issue(21)
    mint.set_spent(ys_of(token))
    with pytest.raises(TokenAlreadySpent):
        await till.create(token)
    mint.ledger.spent.difference_update(ys_of(token))
    mint.set_pending(ys_of(token))
    assert await till.resume() == 1
    assert await till.operations() == [("watch", "pending")]
    assert await till.value("SELECT count(*) FROM mint_operation WHERE lease_until IS NULL") == 1
    mint.set_free(ys_of(token))
    assert await till.resume() == 1
    assert await till.held() == mint.unspent_total() == 21


@ON_SQLITE
async def test_doubt_of_another_kind_does_not_shorten_the_minute(till: Till) -> None:
    def forget_one(value: JsonObject) -> JsonObject:
        return {name: entries[1:] for name, entries in value.items()}  # type: ignore[index]  # lists

    await till.create(till.mint.issue(1))
    till.mint.cut_next_answer(SWAP)
    till.mint.trouble(Trouble(path="/v1/restore", tamper=forget_one))
    token = till.mint.issue(21)
    with pytest.raises(MintUnreachable):
        await till.create(token)
    assert (await till.operations())[-1] == ("watch", "doubtful")
    hidden = Trouble(path="/v1/restore", body=b'{"outputs":[],"signatures":[]}')
    till.mint.trouble(hidden, Trouble(path=SWAP, processed=False, status=400, code=12002))
    spent = [y for y in ys_of(token) if y in till.mint.ledger.spent]
    till.mint.ledger.spent.difference_update(spent)
    assert await till.resume() == 1
    assert (await till.operations())[-1] == ("watch", "stale")
    till.mint.set_spent(spent)
    assert await till.resume() == 1
    assert await till.held() == till.mint.unspent_total() == 22
