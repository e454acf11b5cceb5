"""Refunds over Lightning at a real mint: what arrives, what it costs, and that it happens once."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from demo.mint import RealMint
from routstr.errors import (
    IdempotencyMismatch,
    InsufficientBalance,
    InvalidInvoice,
    InvalidParameter,
    MintUnreachable,
    Pending,
    UntrustedMint,
)
from routstr.flows.keys import Terms, create_key
from routstr.flows.melt import drive_melt
from routstr.flows.pay import PayWish, pay, quote_payment
from routstr.gateways.addresses import OutsideHttp
from routstr.ledger.book import KeyRef
from routstr.ledger.leases import Claim
from routstr.ledger.sagas import Operation
from tests.fakes.invoices import invoice
from tests.fakes.payee import FakePayee
from tests.faults.proxy import Fault, Lie
from tests.faults.stand import Stand, open_stand

KEY_SAT = 1_000
MELT = "POST /v1/melt/bolt11"


def fresh_invoice(amount_msat: int | None = 21_000, **more: Any) -> str:
    """One of a hash of its own, valid for an hour; the mint's make-believe Lightning pays it."""
    given = {"created_at": int(time.time()), "payment_hash": os.urandom(32), **more}
    return invoice(amount_msat, **given)


@asynccontextmanager
async def customer(
    database_url: str, mint: RealMint, **options: Any
) -> AsyncIterator[tuple[Stand, KeyRef]]:
    """A key at a node; in the end no money is lost, and the node owes all that it holds."""
    given = {"operation_wait_s": 10, **options}
    async with open_stand(database_url, mint, **given) as stand:
        token = await stand.coin(KEY_SAT)
        created = await create_key(stand.ctx, token, Terms(), idempotency_key=None)
        yield stand, KeyRef(id=created.key_id)
        await stand.drain()
        count = await stand.count()
        assert stand.problems == []
        assert (count.lost_msat, count.surplus_msat) == (0, 0)


@pytest.fixture(params=["no fees", "fees"])
def mint(request: pytest.FixtureRequest) -> RealMint:
    fixture = {"no fees": "real_mint", "fees": "fee_mint"}[request.param]
    found: RealMint = request.getfixturevalue(fixture)
    return found


async def test_an_invoice_is_paid_and_the_rest_of_the_fee_comes_back(
    database_url: str, mint: RealMint
) -> None:
    async with customer(database_url, mint) as (stand, key):
        before_msat = await stand.balance_msat(str(key.id))
        wish = PayWish(invoice=fresh_invoice(500_500))
        quote = await quote_payment(stand.ctx, key, wish)
        assert await stand.balance_msat(str(key.id)) == before_msat
        view = await pay(stand.ctx, key, wish)
        assert (view.status, view.amount_msat) == ("completed", 501_000)
        after_msat = await stand.balance_msat(str(key.id))
        assert before_msat - after_msat == view.amount_msat + view.fee_msat
        # The mint's Lightning takes 1 sat; its reserve for this is 1 %, which is more.
        assert 1_000 <= view.fee_msat <= quote.fee_reserve_msat
        assert quote.total_msat >= before_msat - after_msat
        if not mint.fee_ppk:
            assert view.fee_msat == 1_000
            assert quote.fee_reserve_msat == 6_500  # half a sat of it is rounding
        assert view.recipient == wish.invoice


async def test_one_invoice_is_paid_once(database_url: str, real_mint: RealMint) -> None:
    async with customer(database_url, real_mint) as (stand, key):
        wish = PayWish(invoice=fresh_invoice(), idempotency_key="a", fingerprint="f")
        views = await asyncio.gather(
            *(pay(stand.ctx, key, each) for each in (wish, wish, wish, wish))
        )
        assert {view.status for view in views} == {"completed"}
        assert len({view.id for view in views}) == 1
        for repeat in (wish, PayWish(invoice=wish.invoice)):
            again = await pay(stand.ctx, key, repeat)
            assert (again.id, again.is_replay) == (views[0].id, True)
        with pytest.raises(IdempotencyMismatch):
            await pay(
                stand.ctx,
                key,
                PayWish(
                    idempotency_key="a", fingerprint="g", lightning_address="alice@pay.example"
                ),
            )
        assert stand.proxy.counts[MELT] == 1
        assert await stand.balance_msat(str(key.id)) == (KEY_SAT - 21 - 1) * 1000
        # A refund as ecash never takes a payment for its own last token.
        await stand.empty(str(key.id))


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_change_that_is_signed_after_the_payment_is_waited_for(
    database_url: str, real_mint: RealMint
) -> None:
    async with customer(database_url, real_mint, operation_wait_s=0.1) as (stand, key):
        for endpoint in (MELT, "GET /v1/melt/quote/bolt11/*", "POST /v1/restore"):
            stand.proxy.inject(endpoint, Lie.UNCHANGED)
        with pytest.raises(Pending):
            await pay(stand.ctx, key, PayWish(invoice=fresh_invoice()))
        stand.proxy.heal()
        await stand.drain()
        assert await stand.balance_msat(str(key.id)) == (KEY_SAT - 21 - 1) * 1000


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_change_that_never_comes_is_the_operators_loss_beyond_the_reserve(
    database_url: str, real_mint: RealMint
) -> None:
    async with open_stand(database_url, real_mint, operation_wait_s=0.1) as stand:
        token = await stand.coin(KEY_SAT)
        created = await create_key(stand.ctx, token, Terms(), idempotency_key=None)
        key = KeyRef(id=created.key_id)
        for endpoint in (MELT, "GET /v1/melt/quote/bolt11/*", "POST /v1/restore"):
            stand.proxy.inject(endpoint, Lie.UNCHANGED)
        with pytest.raises(Pending):
            await pay(stand.ctx, key, PayWish(invoice=fresh_invoice()))
        await stand.drain()
        assert await stand.balance_msat(created.key_id) == (KEY_SAT - 21 - 2) * 1000


# ── Lightning addresses ───────────────────────────────────────────────────────────────────────

ALICE = "alice@pay.example"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_an_address_gets_an_amount_or_all_that_its_fees_leave(
    database_url: str, fee_mint: RealMint
) -> None:
    async with (
        FakePayee() as payee,
        OutsideHttp(resolver=payee, loopback_server=payee.server) as outside,
        customer(database_url, fee_mint, outside=outside) as (stand, key),
    ):
        payee.created_at = int(time.time())
        some = await pay(stand.ctx, key, PayWish(lightning_address=ALICE, amount_sat=100))
        assert (some.status, some.amount_msat, some.recipient) == ("completed", 100_000, ALICE)
        before_msat = await stand.balance_msat(str(key.id))
        everything = PayWish(lightning_address=ALICE)
        quote = await quote_payment(stand.ctx, key, everything)
        assert quote.total_msat <= before_msat == await stand.balance_msat(str(key.id))
        asked = len(payee.calls)
        view = await pay(stand.ctx, key, everything)
        assert len(payee.calls) - asked <= 4  # its terms, and three invoices at most
        assert view.amount_msat == quote.amount_msat
        # What is left is what the fee did not need: its reserve is 1 %.
        left_msat = await stand.balance_msat(str(key.id))
        assert left_msat == before_msat - view.amount_msat - view.fee_msat
        assert 0 <= left_msat <= 12_000


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_what_cannot_be_paid_costs_nothing(database_url: str, real_mint: RealMint) -> None:
    async with customer(database_url, real_mint) as (stand, key):
        refused = [
            (PayWish(invoice="lnbc1nonsense"), InvalidInvoice),
            (PayWish(invoice=fresh_invoice(None)), InvalidInvoice),
            (PayWish(invoice=fresh_invoice(prefix="lntb")), InvalidInvoice),
            (PayWish(invoice=fresh_invoice(created_at=int(time.time()) - 3_601)), InvalidInvoice),
            (PayWish(invoice=fresh_invoice(), amount_sat=20), InvalidParameter),
            (PayWish(invoice=fresh_invoice(KEY_SAT * 1000)), InsufficientBalance),
            (PayWish(invoice=fresh_invoice(), mint_url="https://mint.example"), UntrustedMint),
        ]
        for wish, error in refused:
            with pytest.raises(error):
                await pay(stand.ctx, key, wish)
        assert stand.proxy.counts[MELT] == 0
        stand.proxy.inject("POST /v1/melt/quote/bolt11", Fault.REFUSE, times=1)
        with pytest.raises(MintUnreachable):
            await pay(stand.ctx, key, PayWish(invoice=fresh_invoice()))
        assert await stand.balance_msat(str(key.id)) == KEY_SAT * 1000


class Died(Exception):
    """As if the process had ended there."""


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
async def test_whoever_slept_through_its_lease_posts_nothing(
    database_url: str, real_mint: RealMint
) -> None:
    """Two drivers hold the same melt, unsent as far as either knows: one of them may post it."""

    def die_once(name: str) -> None:
        if name == "melt.prepared" and not reached:
            reached.append(name)
            raise Died

    reached: list[str] = []
    async with customer(database_url, real_mint, failpoint=die_once) as (stand, key):
        wish = PayWish(invoice=fresh_invoice())
        with pytest.raises(Died):
            await pay(stand.ctx, key, wish)
        drivers: list[Operation] = []
        for owner in ("sleeper", "waker"):
            await stand.later(600)
            drivers += await stand.ctx.ledger.submit(Claim(owner=owner, lease_s=45))
        sleeper, waker = drivers
        assert sleeper.id == waker.id
        with pytest.raises(Pending):
            await drive_melt(stand.ctx, sleeper, str(key.id))
        assert stand.proxy.counts[MELT] == 0
        await drive_melt(stand.ctx, waker, str(key.id))
        assert (await pay(stand.ctx, key, wish)).status == "completed"
        assert stand.proxy.counts[MELT] == 1
