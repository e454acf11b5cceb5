"""A key's life: terms, repeats, the sealed text, and when its token stops standing for it."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from sqlalchemy import text

from routstr.errors import (
    IdempotencyMismatch,
    InvalidApiKey,
    InvalidParameter,
    KeyExpired,
    KeyRevoked,
    RefundKeyNotFound,
    TokenAlreadySpent,
)
from routstr.flows.deposit import redeem_bearer
from routstr.flows.expire import prune
from routstr.flows.keys import Created, KeyInfo, Terms, key_info, topup
from routstr.flows.refunds import read_withdrawal
from routstr.flows.statement import key_history, key_statement
from routstr.flows.withdraw import Wish, withdraw
from routstr.ledger.book import KeyRef
from tests.fakes.mint import FakeMint
from tests.harness.till import ON_SQLITE, Till, open_till, worth, ys_of


def by_text(till: Till, key: Created) -> KeyRef:
    return KeyRef(hash=till.ctx.wallet.vault.key_hash(key.api_key))


async def shown(till: Till, token: str) -> KeyInfo:
    """What `/info` says to the token."""
    return await key_info(till.ctx, await redeem_bearer(till.ctx, token), token)


# ── terms ─────────────────────────────────────────────────────────────────────────────────────


@ON_SQLITE
@pytest.mark.parametrize(
    ("terms", "param"),
    [
        (Terms(balance_limit_msat=0), "balance_limit"),
        (Terms(balance_limit_msat=2**63), "balance_limit"),
        (Terms(balance_limit_reset="hourly"), "balance_limit_reset"),
        (Terms(validity_date=0), "validity_date"),
        (Terms(validity_date=10**15), "validity_date"),
    ],
)
async def test_impossible_terms_leave_the_token_alone(till: Till, terms: Terms, param: str) -> None:
    token = till.mint.issue(21)
    with pytest.raises(InvalidParameter) as caught:
        await till.create(
            token,
            balance_limit_msat=terms.balance_limit_msat,
            balance_limit_reset=terms.balance_limit_reset,
            validity_date=terms.validity_date,
        )
    assert caught.value.param == param
    assert till.mint.calls == []


@ON_SQLITE
async def test_terms_are_the_keys(till: Till) -> None:
    date = int(till.clock.now().timestamp()) + 100
    token = till.mint.issue(21)
    await till.create(
        token, validity_date=date, balance_limit_msat=2**63 - 1, balance_limit_reset="daily"
    )
    key = (await shown(till, token)).key
    assert (key.balance_limit_msat, key.limit_reset) == (2**63 - 1, "daily")
    assert key.expires_at is not None
    assert int(key.expires_at.timestamp()) == date


# ── repeats ───────────────────────────────────────────────────────────────────────────────────


async def test_a_repeat_with_its_key_yields_the_same_answer(till: Till) -> None:
    token = till.mint.issue(21)
    first = await till.create(token, repeat="a")
    again = await till.create(token, repeat="a")
    assert again == replace(first, is_replay=True)
    with pytest.raises(IdempotencyMismatch):
        await till.create(token, repeat="a", balance_limit_msat=1)
    for other in (None, "b"):
        with pytest.raises(TokenAlreadySpent):
            await till.create(token, repeat=other)


@ON_SQLITE
async def test_other_terms_mismatch_also_while_the_first_is_open(till: Till) -> None:
    token = till.mint.issue(21)
    till.mint.set_pending(ys_of(token))
    results = [
        await _refusal(till.create(token, repeat="a")),
        await _refusal(till.create(token, repeat="a", balance_limit_msat=1)),
    ]
    assert results[1] is IdempotencyMismatch
    till.mint.set_free(ys_of(token))
    assert (await till.create(token, repeat="a")).available_msat == 21_000


async def _refusal(work: object) -> type[BaseException]:
    (result,) = await asyncio.gather(work, return_exceptions=True)  # type: ignore[call-overload]  # a coroutine
    return type(result)


async def test_a_topup_repeats_and_mismatches(till: Till) -> None:
    key = await till.create(till.mint.issue(1))
    token, other = till.mint.issue(21), till.mint.issue(2)
    assert await till.topup(key, token, repeat="a") == 22_000
    assert await till.topup(key, token, repeat="a") == 22_000
    with pytest.raises(IdempotencyMismatch):
        await till.topup(key, other, repeat="a")
    assert set(till.mint.state_of(ys_of(other)).values()) == {"UNSPENT"}
    assert await till.topup(key, other, repeat="b") == 24_000


@ON_SQLITE
async def test_an_idempotency_key_counts_per_path(till: Till) -> None:
    key = await till.create(till.mint.issue(1), repeat="a")
    assert await till.topup(key, till.mint.issue(2), repeat="a") == 3_000
    wish = Wish(amount_sat=1, idempotency_key="a", fingerprint="f")
    assert worth((await withdraw(till.ctx, KeyRef(id=key.key_id), wish)).token) == 1


@ON_SQLITE
async def test_the_same_idempotency_key_is_anothers_own(till: Till) -> None:
    one = await till.create(till.mint.issue(1), repeat="a")
    two = await till.create(till.mint.issue(2), repeat="a")
    assert one.key_id != two.key_id
    assert await till.topup(one, till.mint.issue(4), repeat="t") == 5_000
    assert await till.topup(two, till.mint.issue(8), repeat="t") == 10_000


# ── the sealed text ───────────────────────────────────────────────────────────────────────────


@ON_SQLITE
async def test_the_token_shows_its_key_until_the_key_is_used(till: Till) -> None:
    token = till.mint.issue(21)
    key = await till.create(token)
    assert (await shown(till, token)).api_key == key.api_key
    assert (await shown(till, token)).api_key == key.api_key  # the token's use is not the key's
    assert (await key_info(till.ctx, by_text(till, key), key.api_key)).api_key == key.api_key
    assert (await shown(till, token)).api_key == token


@ON_SQLITE
async def test_a_token_first_shown_as_bearer_gets_its_key_too(till: Till) -> None:
    token = till.mint.issue(21)
    info = await shown(till, token)
    assert info.api_key.startswith("sk-")
    by_hash = KeyRef(hash=till.ctx.wallet.vault.key_hash(info.api_key))
    assert (await key_info(till.ctx, by_hash, info.api_key)).key.id == info.key.id


@ON_SQLITE
async def test_a_key_nobody_fetched_in_time_stays_hidden(till: Till) -> None:
    token = till.mint.issue(21)
    await till.create(token, repeat="a")
    await till.later(till.ctx.limits.sealed_key_ttl_s + 1)
    assert (await shown(till, token)).api_key == token
    with pytest.raises(TokenAlreadySpent):
        await till.create(token, repeat="a")


async def test_pruning_erases_what_is_used_or_old(till: Till) -> None:
    used, old, fresh = (till.mint.issue(n) for n in (1, 2, 4))
    key = await till.create(used)
    await key_info(till.ctx, by_text(till, key), key.api_key)
    await till.create(old)
    await till.later(till.ctx.limits.sealed_key_ttl_s + 1)
    await till.create(fresh)
    assert await prune(till.ctx) == 2
    assert await prune(till.ctx) == 0
    assert await till.value("SELECT count(*) FROM deposit WHERE sealed_key IS NOT NULL") == 1
    assert (await shown(till, fresh)).api_key.startswith("sk-")


# ── when the token's time is over ─────────────────────────────────────────────────────────────


@ON_SQLITE
@pytest.mark.parametrize("use", ["info", "topup", "refund", "history", "transactions"])
async def test_ten_minutes_after_any_use_of_the_key_its_token_is_spent(
    till: Till, use: str
) -> None:
    token = till.mint.issue(21)
    key = await till.create(token)
    await till.later(3600)
    caller = by_text(till, key)
    assert (await redeem_bearer(till.ctx, token)).id == key.key_id  # unused, it lasts
    match use:
        case "info":
            await key_info(till.ctx, caller, key.api_key)
        case "topup":
            await _topup_by(till, caller)
        case "refund":
            await withdraw(till.ctx, caller, Wish(amount_sat=1))
        case "history":
            await key_history(till.ctx, caller, limit=1, offset=0)
        case _:
            await key_statement(till.ctx, caller, limit=1, before=None)
    await till.later(till.ctx.limits.token_credential_ttl_s - 10)
    assert (await redeem_bearer(till.ctx, token)).id == key.key_id
    await till.later(11)
    with pytest.raises(TokenAlreadySpent):
        await redeem_bearer(till.ctx, token)


async def _topup_by(till: Till, caller: KeyRef) -> None:
    await topup(till.ctx, caller, till.mint.issue(1), idempotency_key=None)


async def test_a_client_with_nothing_but_its_token_keeps_it(till: Till) -> None:
    token = till.mint.issue(21)
    for _ in range(3):
        caller = await redeem_bearer(till.ctx, token)
        await key_info(till.ctx, caller, token)
        await till.later(3600)
    assert worth((await withdraw(till.ctx, caller, Wish())).token) == 21


# ── keys that may not ─────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def revoked(sqlite_url: str, mint: FakeMint) -> AsyncIterator[tuple[Till, Created]]:
    async with open_till(sqlite_url, mint) as till:
        key = await till.create(mint.issue(21))
        async with till.ctx.database.writer.begin() as connection:
            await connection.execute(text("UPDATE apikey SET revoked_at = created_at"))
        yield till, key


async def test_a_revoked_key_does_nothing_any_more(revoked: tuple[Till, Created]) -> None:
    till, key = revoked
    caller, token = by_text(till, key), till.mint.issue(1)
    for work in (
        key_info(till.ctx, caller, key.api_key),
        withdraw(till.ctx, caller, Wish()),
        read_withdrawal(till.ctx, caller, "rfd_x"),
        key_history(till.ctx, caller, limit=1, offset=0),
        key_statement(till.ctx, caller, limit=1, before=None),
        till.topup(key, token),
    ):
        with pytest.raises(KeyRevoked):
            await work
    assert await till.balance(key) == 21_000
    assert set(till.mint.state_of(ys_of(token)).values()) == {"UNSPENT"}


@ON_SQLITE
async def test_an_expired_key_takes_no_money_and_gives_it_back(till: Till) -> None:
    date = int(till.clock.now().timestamp()) + 100
    key = await till.create(till.mint.issue(21), validity_date=date)
    await till.later(101)
    token = till.mint.issue(1)
    with pytest.raises(KeyExpired):
        await till.topup(key, token)
    assert set(till.mint.state_of(ys_of(token)).values()) == {"UNSPENT"}
    assert (await key_info(till.ctx, by_text(till, key), key.api_key)).key.available_msat == 21_000
    assert worth((await till.withdraw(key)).token) == 21


@ON_SQLITE
async def test_nobodys_key(till: Till) -> None:
    nobody = KeyRef(hash="00" * 32)
    with pytest.raises(InvalidApiKey):
        await key_info(till.ctx, nobody, "sk-" + "0" * 64)
    with pytest.raises(RefundKeyNotFound):
        await withdraw(till.ctx, nobody, Wish())
    with pytest.raises(RefundKeyNotFound):
        await read_withdrawal(till.ctx, nobody, "rfd_x")
