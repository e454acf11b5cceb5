"""What the operator changes while the node runs: checked, in force everywhere, taken back."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final

import pytest
from sqlalchemy import text

from routstr.assembly import rules_of
from routstr.config import Settings
from routstr.errors import (
    IdempotencyMismatch,
    InvalidParameter,
    MintUnreachable,
    Paused,
    UntrustedMint,
)
from routstr.flows.deposit import redeem_bearer
from routstr.flows.house.editable import EDITABLE
from routstr.flows.house.settings import (
    change_settings,
    follow,
    listed_mints,
    needs_code,
    read_settings,
    setting_history,
    settings_shown,
)
from routstr.flows.invoice import InvoiceWish, create_invoice
from routstr.flows.keys import key_info
from routstr.flows.operate import readiness
from routstr.flows.payout import send_profit
from routstr.flows.withdraw import Wish, withdraw
from routstr.ledger.book import KeyRef
from tests.fakes.mint import FakeMint, Trouble
from tests.harness.till import ON_SQLITE, Till, open_till


async def change(till: Till, **values: object) -> tuple[str, ...]:
    return await change_settings(till.ctx, values, changed_by="ann")


@asynccontextmanager
async def neighbour(database_url: str, till: Till) -> AsyncIterator[Till]:
    """Another process of the same node."""
    async with open_till(database_url, till.mint, owner="two") as other:
        yield other


async def test_a_change_is_in_force_in_every_process(till: Till, database_url: str) -> None:
    async with neighbour(database_url, till) as other:
        assert not await follow(other.ctx)
        changed = await change(till, name="New", keep_alive_after_s="7.5", deposits=False)
        assert changed == ("deposits", "keep_alive_after_s", "name")
        for each in (till, other):
            assert await follow(each.ctx) == (each is other)
            now = each.ctx.live.now
            assert (now.facts.name, now.limits.keep_alive_after_s) == ("New", 7.5)
            assert now.switches.paused == ("deposits",)
        assert await change(other, name="New") == ()
        assert await change_settings(other.ctx, {}, resets=["name"], changed_by="bob") == ("name",)
        assert await follow(till.ctx)
        assert till.ctx.facts == till.ctx.live.started_with.facts
        assert till.ctx.switches.paused == ("deposits",)
    seen = await setting_history(till.ctx, "name")
    told = [(each.version, each.value, each.has_value, each.changed_by) for each in seen]
    assert told == [(2, None, False, "bob"), (1, "New", True, "ann")]


def test_no_secret_of_a_url_is_told() -> None:
    with_secrets = {
        "database_url": "postgresql+asyncpg://db.example/node?password=hush",
        "otlp_endpoint": "https://me:hush@collector.example/v1/traces",
    }
    told = rules_of(Settings.model_construct(**with_secrets)).told  # type: ignore[arg-type]  # pydantic's own
    assert [told[name] for name in with_secrets] == ["[REDACTED]"] * 2
    assert "hush" not in str(told)
    plain = Settings.model_construct(otlp_endpoint="https://collector.example/v1/traces")
    assert rules_of(plain).told["otlp_endpoint"] == "https://collector.example/v1/traces"


@ON_SQLITE
async def test_every_editable_setting_is_one_and_is_told(till: Till) -> None:
    shown = {each.name: each for each in await settings_shown(till.ctx)}
    assert shown.keys() >= EDITABLE.keys()
    assert all(each.bounds for each in shown.values())
    await change(till, wallet_sats_max=5)
    shown = {each.name: each for each in await settings_shown(till.ctx)}
    ceiling, secret = shown["wallet_sats_max"], shown["database_url"]
    assert (ceiling.value, ceiling.started_with, ceiling.source) == (5, 0, "changed")
    assert (ceiling.changed_by, ceiling.is_editable, secret.is_editable) == ("ann", True, False)
    places = {"cashu_mints", "payout_to", "http_url", "onion_url"}
    assert {name for name in EDITABLE if needs_code([name])} == places


REFUSED: Final[tuple[tuple[str, object], ...]] = (
    ("nonsense", 1),
    ("database_url", "sqlite://"),
    ("deposits", "perhaps"),
    ("locked_sats_max", True),
    ("locked_sats_max", 0),
    ("wallet_sats_max", 10**30),
    ("wallet_sats_max", None),
    ("keep_alive_after_s", "nan"),
    ("refund_ttl_seconds", 10**15),
    ("name", ""),
    ("name", ["a"]),
    ("http_url", "javascript:alert(1)"),
    ("payout_to", "nobody"),
    ("cashu_mints", ""),
    ("cashu_mints", "http://mint.example"),
    ("btc_usd_price", "0"),
)


@ON_SQLITE
async def test_what_the_start_would_refuse_is_refused_with_all_else(till: Till) -> None:
    before = till.ctx.live.now
    for name, value in REFUSED:
        with pytest.raises(InvalidParameter) as refused:
            await change(till, **{"float_coins": 3, name: value})
        assert refused.value.param == name
    await read_settings(till.ctx)
    assert till.ctx.live.now == before


@ON_SQLITE
async def test_a_stored_value_that_is_not_allowed_any_more_is_passed_over(till: Till) -> None:
    await change(till, name="New", float_coins=3)
    async with till.ctx.database.writer.begin() as connection:
        await connection.execute(
            text("""UPDATE setting SET value = '{"value": -1}' WHERE name = 'float_coins'""")
        )
    await read_settings(till.ctx)
    assert till.ctx.facts.name == "New"
    assert till.ctx.limits.float_coins == Settings.model_fields["float_coins"].default


@ON_SQLITE
async def test_who_read_earlier_changes_does_not_undo_later_ones(till: Till) -> None:
    """What is read takes a while, and the last one to be through may have begun first."""
    await change(till, name="New")
    later = replace(till.ctx.live.now, version=till.ctx.live.now.version + 1)
    till.ctx.live.replace(later)
    await read_settings(till.ctx)
    assert till.ctx.live.now is later


# ── mints ─────────────────────────────────────────────────────────────────────────────────────


async def test_what_is_held_at_a_mint_that_was_taken_off_goes_out(till: Till) -> None:
    async with FakeMint(version="00") as other:
        key = await till.create(till.mint.issue(21))
        assert await change(till, cashu_mints=[other.url]) == ("cashu_mints",)
        with pytest.raises(UntrustedMint):
            await till.create(till.mint.issue(4))
        view = await withdraw(till.ctx, KeyRef(id=key.key_id), Wish(mint_url=till.mint.url))
        assert (view.status, view.amount_msat) == ("completed", 21_000)
        assert till.ctx.live.now.former_mints == (till.mint.url,)
        assert await listed_mints(till.ctx.database) == (other.url,)
        with pytest.raises(InvalidParameter):
            await change(till, cashu_mints=[])
        await change_settings(till.ctx, {}, resets=["cashu_mints"], changed_by="ann")
        assert till.ctx.facts.mints == (till.mint.url,)


@ON_SQLITE
async def test_what_a_token_stands_for_outlives_its_mint(till: Till) -> None:
    """It is somebody's key, or the only way to one, or was paid in and the answer lost."""
    bearer, token, more = (till.mint.issue(each) for each in (21, 8, 4))
    key = await redeem_bearer(till.ctx, bearer)
    made = await till.create(token, repeat="k")
    await till.topup(made, more, repeat="t")
    async with FakeMint(version="00") as other:
        await change(till, cashu_mints=[other.url])
        assert await redeem_bearer(till.ctx, bearer) == key
        assert (await key_info(till.ctx, key, bearer)).key.id == key.id
        assert (await till.create(token, repeat="k")).api_key == made.api_key
        assert await till.topup(made, more, repeat="t") == 12_000
        with pytest.raises(UntrustedMint):
            await redeem_bearer(till.ctx, till.mint.issue(2))


@ON_SQLITE
async def test_a_mint_that_does_not_answer_is_not_added(till: Till) -> None:
    async with FakeMint() as other:
        away = other.url
    with pytest.raises(MintUnreachable):
        await change(till, cashu_mints=[till.mint.url, away])
    assert till.ctx.facts.mints == (till.mint.url,)
    assert await setting_history(till.ctx, "cashu_mints") == []


# ── switches ──────────────────────────────────────────────────────────────────────────────────


async def test_deposits_off_refuses_new_money_only(till: Till) -> None:
    token = till.mint.issue(21)
    till.mint.cut_next_answer("/v1/swap")
    till.mint.trouble(Trouble(path="/v1/restore", processed=False, cut=True))
    with pytest.raises(MintUnreachable):
        await till.create(token)
    await change(till, deposits=False)
    calls = len(till.mint.calls)
    with pytest.raises(Paused):
        await till.create(till.mint.issue(4))
    with pytest.raises(Paused):
        await redeem_bearer(till.ctx, till.mint.issue(4))
    with pytest.raises(Paused):
        await create_invoice(till.ctx, InvoiceWish(amount_sat=5))
    assert len(till.mint.calls) == calls
    await till.resume()
    key = KeyRef(id=(await redeem_bearer(till.ctx, token)).id)
    assert key.id is not None
    assert await till.balance(key.id) == 21_000
    assert (await readiness(till.ctx)).checks["paused"] == "deposits"
    assert (await readiness(till.ctx)).is_ready


@ON_SQLITE
async def test_a_full_wallet_takes_no_more(till: Till) -> None:
    await change(till, wallet_sats_max=30)
    key = await till.create(till.mint.issue(21))
    with pytest.raises(Paused):
        await till.topup(key, till.mint.issue(10))
    await till.topup(key, till.mint.issue(9))
    with pytest.raises(Paused):
        await create_invoice(till.ctx, InvoiceWish(amount_sat=1))


@ON_SQLITE
async def test_withdrawals_off_keeps_everything_where_it_is(till: Till) -> None:
    key = await till.create(till.mint.issue(21))
    await change(till, withdrawals=False)
    for attempt in (till.withdraw(key), send_profit(till.ctx, 1, unit="sat")):
        with pytest.raises(Paused):
            await attempt
    change_of = Wish(is_change=True)
    view = await withdraw(till.ctx, KeyRef(id=key.key_id), change_of)
    assert view.status == "completed"


@ON_SQLITE
async def test_withdrawals_off_still_tells_of_what_has_left(till: Till) -> None:
    """The answer was lost, and the operator paused meanwhile; the token is its owner's."""
    some = Wish(amount_sat=5, idempotency_key="k", fingerprint="f")
    key = await till.create(till.mint.issue(21))
    caller = KeyRef(id=key.key_id)
    first = await withdraw(till.ctx, caller, some)
    await change(till, withdrawals=False)
    again = await withdraw(till.ctx, caller, some)
    assert (again.token, again.is_replay) == (first.token, True)
    with pytest.raises(IdempotencyMismatch):
        await withdraw(till.ctx, caller, replace(some, fingerprint="g"))
    for other in (Wish(), replace(some, idempotency_key="l")):
        with pytest.raises(Paused):
            await withdraw(till.ctx, caller, other)
    await change(till, withdrawals=True)
    rest = await withdraw(till.ctx, caller, Wish())
    await change(till, withdrawals=False)
    assert (await withdraw(till.ctx, caller, Wish())).token == rest.token


async def test_no_more_than_the_hours_share_leaves(till: Till, database_url: str) -> None:
    """By whichever process; change of a request does not count, and is not counted."""
    key = await till.create(till.mint.issue(63))
    await change(till, withdrawn_sats_per_hour_max=10)
    caller = KeyRef(id=key.key_id)
    await withdraw(till.ctx, caller, Wish(amount_sat=20, is_change=True))
    async with neighbour(database_url, till) as other:
        await follow(other.ctx)
        again = Wish(amount_sat=6, idempotency_key="k", fingerprint="f")
        first = await withdraw(till.ctx, caller, again)
        with pytest.raises(Paused):
            await withdraw(other.ctx, caller, Wish(amount_sat=5))
        assert (await withdraw(other.ctx, caller, again)).token == first.token
        await withdraw(other.ctx, caller, Wish(amount_sat=4))
        with pytest.raises(Paused):
            await till.withdraw(key, 1)
        assert await till.balance(key) == 33_000
