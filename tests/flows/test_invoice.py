"""Lightning in: what is paid is credited, once, to the key it was for, however late."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import text

from routstr.ecash.bdhke import public_key
from routstr.ecash.node_keys import quote_key
from routstr.errors import (
    InvoiceNotFound,
    LightningMintRateLimited,
    LightningMintUnreachable,
    Overloaded,
    RateLimited,
)
from routstr.flows.expire import prune
from routstr.flows.invoice import look_at_invoices, recover
from routstr.flows.keys import own_key
from routstr.ledger.book import KeyRef
from routstr.ledger.invoices import poll_wait_s
from tests.fakes.invoices import invoice as bolt11_of
from tests.fakes.mint import FakeMint, Trouble
from tests.flows.paying import (
    DAY_S,
    HOUR_S,
    invoice,
    look,
    looks,
    mints,
    status,
    topup_invoice,
    total,
)
from tests.harness.till import ON_SQLITE, Till, open_till


async def test_a_paid_invoice_opens_a_key(till: Till) -> None:
    made = await invoice(till)
    assert (await status(till, made)).status == "pending"
    till.mint.quotes.pay(made.bolt11)
    assert await look(till) == 1
    shown = await status(till, made)
    assert (shown.status, shown.amount_sat, shown.paid_at is None) == ("paid", 21, False)
    assert shown.api_key is not None
    assert (await recover(till.ctx, f"LIGHTNING:{made.bolt11.upper()}")).api_key == shown.api_key
    key = await own_key(till.ctx, KeyRef(hash=till.ctx.wallet.vault.key_hash(shown.api_key)))
    assert key.available_msat == await total(till) == 21_000
    assert (await status(till, made)).api_key is None  # it was used
    assert await look(till) == 0
    assert (mints(till), await till.held()) == (1, 21)
    assert await prune(till.ctx) == 1


async def test_a_topped_up_key_is_shown_for_an_hour_and_to_no_payer(till: Till) -> None:
    key = await till.create(till.mint.issue(1))
    made = await topup_invoice(till, key)
    till.mint.quotes.pay(made.bolt11)
    await till.later(3)
    assert (await status(till, made)).api_key == key.api_key  # asked for whoever waits
    assert (await recover(till.ctx, made.bolt11)).api_key is None
    assert await till.balance(key) == 22_000
    await till.later(HOUR_S + 1)
    assert (await status(till, made)).api_key is None
    assert await prune(till.ctx) == 1


@ON_SQLITE
async def test_a_new_key_is_shown_for_a_day(till: Till) -> None:
    made = await invoice(till)
    till.mint.quotes.pay(made.bolt11)
    await look(till)
    await till.later(DAY_S - 60)
    assert (await status(till, made)).api_key is not None
    assert await prune(till.ctx) == 0
    await till.later(120)
    assert (await status(till, made)).api_key is None
    assert await prune(till.ctx) == 1


# ── late, and never ───────────────────────────────────────────────────────────────────────────


async def test_who_pays_late_is_credited_late(till: Till) -> None:
    key = await till.create(till.mint.issue(1))
    hours, days = await topup_invoice(till, key, 2), await topup_invoice(till, key, 4)
    assert await look(till, HOUR_S + 1) == 2
    assert (await status(till, hours)).status == "expired"
    till.mint.quotes.pay(hours.bolt11)
    assert await look(till, HOUR_S + 1) == 2
    assert await till.balance(key) == 3_000
    for _ in range(20):
        await look(till, DAY_S + 1)
    till.mint.quotes.pay(days.bolt11)
    assert await look(till, DAY_S + 1) == 1
    assert await till.balance(key) == 7_000


async def test_what_nobody_pays_is_given_up_in_the_end(till: Till) -> None:
    made = await invoice(till)
    for _ in range(33):
        await look(till, DAY_S + 1)
    assert (await status(till, made)).status == "expired"
    assert await till.value("SELECT status FROM lightning_invoice") == "expired"
    calls = looks(till)
    assert await look(till, 100 * DAY_S) == 0
    assert looks(till) == calls
    assert await prune(till.ctx) == 1


@ON_SQLITE
async def test_what_a_mint_never_tells_is_for_a_human(till: Till) -> None:
    await invoice(till)
    await look(till, 31 * DAY_S)
    till.mint.trouble(*[Trouble(path="/v1/mint/", processed=False, cut=True)] * 2)
    await look(till, 2 * DAY_S)
    assert await till.value("SELECT status FROM lightning_invoice") == "reconciliation_required"


@ON_SQLITE
async def test_what_somebody_else_has_taken_is_for_a_human(till: Till) -> None:
    made = await invoice(till)
    till.mint.quotes.pay(made.bolt11).state = "ISSUED"
    await look(till)
    assert (await status(till, made)).status == "reconciliation_required"
    assert await total(till) == 0


def test_looks_become_rarer() -> None:
    waits = [poll_wait_s(polls, -1) for polls in range(8)]
    assert waits == [2, 4, 8, 16, 32, 60, 60, 60]
    assert poll_wait_s(1000, -1) == 60
    assert [poll_wait_s(9, late) for late in (0, DAY_S - 1, DAY_S)] == [HOUR_S, HOUR_S, DAY_S]


@ON_SQLITE
async def test_who_asks_all_the_time_is_answered_from_the_books(till: Till) -> None:
    made = await invoice(till)
    for _ in range(5):
        await status(till, made)
    assert looks(till) <= 1
    await till.later(2.1)
    for _ in range(5):
        await status(till, made)
    assert looks(till) <= 2


# ── many hands ────────────────────────────────────────────────────────────────────────────────


async def test_two_nodes_that_watch_one_invoice_credit_it_once(
    postgres_url: str, mint: FakeMint
) -> None:
    async with (
        open_till(postgres_url, mint, owner="one") as one,
        open_till(postgres_url, mint, owner="two") as two,
    ):
        made = [await invoice(one, amount) for amount in (1, 2, 4, 8)]
        for each in made:
            mint.quotes.pay(each.bolt11)
        await one.later(3)
        rounds: list[Any] = [look_at_invoices(each.ctx) for each in (one, two, one, two)]
        asks = [status(till, each) for till in (one, two) for each in made]
        await asyncio.gather(*rounds, *asks)
        assert [(await status(two, each)).status for each in made] == ["paid"] * 4
        assert await total(one) == 15_000
        assert mints(one) == 4


# ── mints that are not as they should be ──────────────────────────────────────────────────────

HOSTILE: dict[str, dict[str, object]] = {
    "another amount": {"amount": 20},
    "no amount": {"amount": None},
    "another unit": {"unit": "msat"},
    "somebody's key": {"pubkey": public_key("01" * 32)},
    "no key": {"pubkey": None},
    "an invoice over more": {"request": bolt11_of(22_000, created_at=4_000_000_000)},
    "an invoice over anything": {"request": bolt11_of(None, created_at=4_000_000_000)},
    "an invoice that is none": {"request": "lnbc210n1" + "q" * 200},
    "an old invoice": {"request": bolt11_of(21_000, created_at=1_000_000_000)},
    "an old quote": {"expiry": 1_000_000_000},
    "a quote that is paid": {"state": "PAID"},
}  # fmt: skip


@ON_SQLITE
async def test_a_quote_that_is_not_what_was_asked_for_is_not_shown(till: Till) -> None:
    for what, change in HOSTILE.items():
        till.mint.quotes.change = dict(change)
        with pytest.raises(LightningMintUnreachable):
            await invoice(till)
        assert await till.value("SELECT count(*) FROM lightning_invoice") == 0, what


@ON_SQLITE
async def test_nor_is_an_invoice_that_was_given_out_before(till: Till) -> None:
    first = await invoice(till)
    till.mint.quotes.change = {"request": first.bolt11.upper()}
    with pytest.raises(LightningMintUnreachable):
        await invoice(till)


@ON_SQLITE
async def test_a_mint_that_is_down_is_skipped(database_url: str, mint: FakeMint) -> None:
    async with (
        FakeMint() as first,
        open_till(database_url, first, more_mints=[mint.url], is_sound_at_end=False) as till,
    ):
        first.trouble(Trouble(path="/v1/info", status=500))
        made = await invoice(till)
        assert [each.bolt11 for each in mint.quotes.all] == [made.bolt11]
        first.trouble(Trouble(path="/v1/info", status=500), Trouble(path="/v1/mint", status=429))
        mint.trouble(Trouble(path="/v1/mint", status=429))
        with pytest.raises(LightningMintRateLimited):
            await invoice(till)


async def test_a_text_that_no_database_takes_is_a_miss(till: Till) -> None:
    with pytest.raises(InvoiceNotFound):
        await recover(till.ctx, "lnbc\0")


@ON_SQLITE
async def test_misses_are_rationed(till: Till) -> None:
    for _ in range(60):
        with pytest.raises(InvoiceNotFound):
            await recover(till.ctx, "lnbc1")
    with pytest.raises(RateLimited):
        await recover(till.ctx, "lnbc1")
    made = await invoice(till)
    assert (await status(till, made)).status == "pending"  # what exists is answered


@ON_SQLITE
async def test_the_database_holds_no_capability(till: Till) -> None:
    made = await invoice(till)
    row_id = await till.value("SELECT id FROM lightning_invoice")
    assert made.invoice_id not in str(row_id)
    assert len(made.invoice_id) == 32
    [quote] = till.mint.quotes.all
    sealed = await till.value("SELECT quote_id FROM lightning_invoice")
    assert quote.id not in str(sealed)
    assert quote_key(bytes(64), str(row_id)) != quote_key(bytes(64), "another")


MANY = """
INSERT INTO lightning_invoice (id, purpose, status, mint_url, unit, amount, credit_msat, bolt11,
  payment_hash, polls, created_at, expires_at)
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count)
SELECT i, purpose, status, mint_url, unit, amount, credit_msat, i, payment_hash, polls, created_at,
  expires_at FROM n, lightning_invoice
"""


@ON_SQLITE
async def test_strangers_cannot_fill_the_watch(till: Till) -> None:
    key = await till.create(till.mint.issue(1))
    await topup_invoice(till, key)
    async with till.ctx.database.writer.begin() as connection:
        await connection.execute(text(MANY), {"count": 999})
    with pytest.raises(Overloaded):
        await invoice(till)
    await topup_invoice(till, key)  # who has a key is no stranger
