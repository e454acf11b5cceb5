"""A payout as it is said beforehand, and as it is made: what was said is never exceeded."""

import pytest

from demo.mint import RealMint
from routstr.errors import InvalidInvoice, MintShort, ProfitTooSmall
from routstr.flows.earnings import pay_profit
from routstr.flows.house.payout_plan import plan_payment, plan_token
from routstr.flows.payout import profit_msat, send_profit
from tests.flows.test_earnings import ALICE, PROFIT_SAT, house


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_what_a_plan_says_is_what_is_paid(database_url: str, fee_mint: RealMint) -> None:
    async with house(database_url, fee_mint) as own:
        ctx = own.stand.ctx
        there_msat = await profit_msat(ctx)
        own.payee.pay_answer["maxSendable"] = 250_000
        most = await plan_payment(ctx, ALICE.upper(), None)
        own.payee.pay_answer.clear()
        assert (most.amount_msat, most.is_partial, most.to) == (250_000, True, ALICE)
        every = await plan_payment(ctx, ALICE, None)
        assert every.after_msat >= 0
        for beyond in (PROFIT_SAT + 1, 10 * PROFIT_SAT):
            with pytest.raises((ProfitTooSmall, MintShort)):
                await plan_token(ctx, every.mint_url, beyond)
        with pytest.raises(InvalidInvoice):
            await plan_payment(ctx, "lnbc1nothing", None)
        assert await profit_msat(ctx) == there_msat  # a plan moves nothing

        token = await plan_token(ctx, every.mint_url, 37)
        made = await send_profit(ctx, token.amount_sat, unit="sat", mint_url=token.mint_url)
        assert (made.amount_msat, made.fee_msat) <= (token.amount_msat, token.fee_msat)
        assert await profit_msat(ctx) >= token.after_msat

        plan = await plan_payment(ctx, ALICE, 300)
        paid = await pay_profit(ctx, ALICE, amount_sat=plan.amount_sat, mint_url=plan.mint_url)
        assert (paid.status, paid.amount_msat) == ("completed", plan.amount_msat)
        assert paid.fee_msat <= plan.fee_msat
        assert await profit_msat(ctx) >= plan.after_msat

        rest = await plan_token(ctx, every.mint_url, None)
        assert 0 <= rest.after_msat < 2_000
        last = await send_profit(ctx, rest.amount_sat, unit="sat", mint_url=rest.mint_url)
        assert last.fee_msat <= rest.fee_msat
        for view in (made, last):
            await own.stand.claim(view.token)
