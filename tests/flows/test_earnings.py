"""Profit over Lightning: what leaves, what stays with users, and that it leaves once."""

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from demo.mint import RealMint
from routstr.errors import (
    InvalidInvoice,
    InvalidLightningAddress,
    ProfitTooSmall,
    RefundPending,
)
from routstr.flows.bring import bring
from routstr.flows.earnings import pay_out, pay_profit
from routstr.flows.keys import Terms, create_key
from routstr.flows.payout import profit_msat
from routstr.gateways.addresses import OutsideHttp
from routstr.ledger.accounts import OWNER_KEY_ID
from tests.fakes.invoices import invoice
from tests.fakes.payee import FakePayee, reply
from tests.faults.proxy import Fault
from tests.faults.stand import Stand, open_stand
from tests.harness.shop import Marks
from tests.harness.till import ON_SQLITE

ALICE = "alice@pay.example"
MELT = "POST /v1/melt/bolt11"
USER_SAT = 64
PROFIT_SAT = 1_000
TAKEN = "SELECT count(*) FROM \"transaction\" WHERE operation_id LIKE 'profit:%'"
PAID = "SELECT count(*) FROM withdrawal WHERE way = 'lightning' AND status = 'completed'"


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """A node with a user's money and the operator's, and the operator's Lightning wallet."""

    stand: Stand
    payee: FakePayee
    marks: Marks

    async def taken_msat(self) -> int:
        """What is on the operator's account."""
        return await self.stand.balance_msat(OWNER_KEY_ID)


@asynccontextmanager
async def house(database_url: str, mint: RealMint, **options: Any) -> AsyncIterator[House]:
    """In the end no money is lost, and the user gets all that was paid in."""
    given = {"payout_keep_sats": 0, "payout_to": ALICE, "payout_floor_sats": 500, **options}
    marks = Marks()
    async with (
        FakePayee() as payee,
        OutsideHttp(resolver=payee, loopback_server=payee.server) as outside,
        open_stand(database_url, mint, outside=outside, failpoint=marks, **given) as stand,
    ):
        payee.created_at = int(time.time())
        coin = await stand.coin(USER_SAT)
        user = (await create_key(stand.ctx, coin, Terms(), idempotency_key=None)).key_id
        owed_msat = await stand.balance_msat(user)
        await bring(stand.ctx, await stand.coin(PROFIT_SAT))
        yield House(stand=stand, payee=payee, marks=marks)
        await stand.drain()
        assert await stand.balance_msat(user) == owed_msat
        count = await stand.count()
        assert stand.problems == []
        assert count.lost_msat == 0
        assert count.surplus_msat >= 0
        await stand.empty(user)


@pytest.mark.parametrize(
    ("database_url", "mint_fixture"),
    [("sqlite", "fee_mint"), ("postgres", "real_mint")],
    indirect=["database_url"],
)
async def test_an_address_gets_an_amount_then_all_that_is_left(
    database_url: str, mint_fixture: str, request: pytest.FixtureRequest
) -> None:
    async with house(database_url, request.getfixturevalue(mint_fixture)) as own:
        ctx = own.stand.ctx
        there_msat = await profit_msat(ctx)
        with pytest.raises(ProfitTooSmall):
            await pay_profit(ctx, ALICE, amount_sat=PROFIT_SAT + 1)
        some = await pay_profit(ctx, ALICE, amount_sat=300)
        assert (some.status, some.amount_msat, some.recipient) == ("completed", 300_000, ALICE)
        own.payee.pay_answer["maxSendable"] = 250_000
        most = await pay_profit(ctx, ALICE)  # as much as the address takes
        own.payee.pay_answer.clear()
        rest = await pay_profit(ctx, f" {ALICE.upper()} ")
        assert (most.amount_msat, rest.status) == (250_000, "completed")
        left_msat = await profit_msat(ctx)
        spent_msat = sum(view.amount_msat + view.fee_msat for view in (some, most, rest))
        assert left_msat == there_msat - spent_msat == await own.taken_msat()
        assert left_msat < 8_000  # what the fees did not need: the mint keeps 1 % ready
        assert await own.stand.value(PAID) == 3


async def test_the_job_pays_from_the_floor_on_and_goes_on_where_it_died(
    database_url: str, real_mint: RealMint
) -> None:
    async with house(database_url, real_mint) as own:
        ctx = own.stand.ctx
        own.marks.at["earnings.taken"] = die  # the money is taken, and nothing is begun
        with pytest.raises(Died):
            await pay_out(ctx)
        own.marks.at.clear()
        assert await own.taken_msat() == await profit_msat(ctx) == PROFIT_SAT * 1000
        assert await own.stand.value(PAID) == 0
        own.payee.answers["/.well-known/lnurlp/alice"] = reply({}, status=503)
        assert await pay_out(ctx) == 0  # what passes is told in the log alone
        own.payee.answers.clear()
        own.stand.proxy.inject(MELT, Fault.REFUSE, times=1)
        assert await pay_out(ctx) == 0  # a payment that failed: the money is back
        assert await own.taken_msat() == PROFIT_SAT * 1000
        assert await pay_out(ctx) >= 980_000
        assert await pay_out(ctx) == 0  # below the floor
        assert (await own.stand.value(TAKEN), await own.stand.value(PAID)) == (1, 1)


async def test_an_impatient_repeat_gets_the_payment_that_is_under_way(
    database_url: str, real_mint: RealMint
) -> None:
    async with house(database_url, real_mint) as own:
        ctx, proxy = own.stand.ctx, own.stand.proxy
        proxy.inject(MELT, Fault.PROCESSED_THEN_LOST, times=1)
        proxy.inject("GET /v1/melt/quote/bolt11/*", Fault.REFUSE)
        with pytest.raises(RefundPending):
            await pay_profit(ctx, ALICE, amount_sat=600)
        assert await pay_out(ctx) == 0  # nobody knows how it stands: no second one
        proxy.heal()
        await own.stand.later(60)
        view = await pay_profit(ctx, ALICE, amount_sat=600)
        assert (view.status, view.amount_msat, view.is_replay) == ("completed", 600_000, True)
        assert proxy.counts[MELT] == 1
        assert await own.stand.value(PAID) == 1
        again = await pay_profit(ctx, ALICE, amount_sat=100)
        assert (again.amount_msat, again.is_replay) == (100_000, False)


@ON_SQLITE
async def test_an_invoice_is_paid_once(database_url: str, fee_mint: RealMint) -> None:
    async with house(database_url, fee_mint) as own:
        ctx = own.stand.ctx
        bolt11 = invoice(500_000, created_at=int(time.time()), payment_hash=os.urandom(32))
        view = await pay_profit(ctx, bolt11)
        again = await pay_profit(ctx, f"lightning:{bolt11.upper()}")
        assert (view.status, again.id, again.is_replay) == ("completed", view.id, True)
        assert own.stand.paid(bolt11) == 1
        taken_msat = await own.taken_msat()
        for refused in ("lnbc1nonsense", invoice(None, created_at=int(time.time()))):
            with pytest.raises(InvalidInvoice):
                await pay_profit(ctx, refused)
        with pytest.raises(InvalidLightningAddress):
            await pay_profit(ctx, "alice@", amount_sat=5)
        assert await own.taken_msat() == taken_msat


class Died(Exception):
    """As if the process had ended there."""


def die() -> None:
    raise Died
