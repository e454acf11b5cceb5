"""`/admin/withdrawals/payout`: the operator's profit, paid to him: planned first, then with a code.

Laws: the page that pays says to whom, how much, and the fee, before its button does it; the amount
it pays is the one it said. A token that was made is shown at once, and again for as long as nobody
has claimed it, each time with a fresh code.
"""

from typing import Final

from fastapi import APIRouter, Request, Response

from routstr.core.money import MSAT_PER_SAT
from routstr.errors import InvalidParameter, RefundNotFound
from routstr.flows.context import Context
from routstr.flows.earnings import pay_profit
from routstr.flows.house.actions import note_action
from routstr.flows.house.money import Ask, withdrawals
from routstr.flows.house.money import mints as mints_shown
from routstr.flows.house.payout_plan import (
    LIGHTNING,
    OWNER_ID,
    TOKEN,
    PayoutPlan,
    check_amount,
    plan_payment,
    plan_token,
)
from routstr.flows.payout import Once, profit_msat, send_profit
from routstr.flows.refunds import read_payment
from routstr.flows.withdraw import WithdrawalView
from routstr.web.admin.guard import Admin, Reading, Withdrawing, Writing
from routstr.web.deps import Ctx
from routstr.web.pages.entries import EMPTY, Form, Problem, RoomRoute, read_form, shows_again
from routstr.web.pages.shell import admin_page

HERE: Final = "/admin/withdrawals/payout"
HISTORY_SHOWN: Final = 20
ONCE_CHARS_MAX: Final = 64
# The money is on its way, or may be: what was said before the button stands.
UNDER_WAY: Final = frozenset({"refund_pending", "pending"})
# The code or the page was wrong, not the payout.
CODE_PROBLEMS: Final = frozenset({"totp_required", "invalid_credentials", "csrf_failed"})

router = APIRouter(prefix=HERE, route_class=RoomRoute, include_in_schema=False)


async def _page(
    request: Request,
    ctx: Context,
    admin: Admin,
    *,
    form: Form = EMPTY,
    problem: Problem | None = None,
    plan: PayoutPlan | None = None,
    made: WithdrawalView | None = None,
    withdrawal_id: str = "",
) -> Response:
    if problem is not None and problem.code in CODE_PROBLEMS:
        plan = await _planned(ctx, form)
    piles = [
        (coin.mint_url, coin.unspent)
        for mint in await mints_shown(ctx)
        for coin in mint.coins
        if coin.unit == "sat" and coin.unspent
    ]
    return admin_page(
        request, ctx, admin, "admin/payout.html", here="withdrawals", title="Pay yourself out",
        yours_msat=await profit_msat(ctx), keep_msat=ctx.limits.payout_keep_sats * MSAT_PER_SAT,
        pays_to=ctx.limits.payout_to or "", piles=piles, plan=plan, made=made,
        paid=await withdrawals(ctx, Ask(search=OWNER_ID, limit=HISTORY_SHOWN)),
        once=form.text("once") or ctx.new_id("try"), form=form.told, problem=problem,
        is_under_way=problem and problem.code in UNDER_WAY,
        status=problem.status if problem else 200,
    )  # fmt: skip


async def _planned(ctx: Context, form: Form) -> PayoutPlan | None:
    """The plan that a form was made from, so that a wrong code loses nothing of it."""
    amount_sat, fee_msat = form.whole("amount"), form.msat("fee")
    if amount_sat is None or fee_msat is None:
        return None
    return PayoutPlan(
        way=form.text("way"),
        to=form.text("to"),
        mint_url=form.text("mint_url"),
        amount_msat=amount_sat * MSAT_PER_SAT,
        fee_msat=fee_msat,
        before_msat=await profit_msat(ctx),
    )


@router.get("")
async def payout_page(request: Request, admin: Reading, ctx: Ctx) -> Response:
    """What there is, how it can leave, and what left before."""
    return await _page(request, ctx, admin)


@router.post("/look")
@shows_again(_page)
async def look(request: Request, admin: Writing, ctx: Ctx) -> Response:
    """What it would come to: nothing moves."""
    form = await read_form(request)
    amount_sat = form.whole("amount")
    check_amount(amount_sat)
    if form.text("way") == LIGHTNING:
        if not form.text("to"):
            raise InvalidParameter("A Lightning address, or an invoice.", param="to")
        plan = await plan_payment(ctx, form.text("to"), amount_sat)
    else:
        plan = await plan_token(ctx, form.text("mint_url"), amount_sat)
    return await _page(request, ctx, admin, form=form, plan=plan)


@router.post("")
@shows_again(_page)
async def pay_out(request: Request, admin: Withdrawing, ctx: Ctx) -> Response:
    """Pay exactly what was said."""
    form = await read_form(request)
    amount_sat, mint_url = form.whole("amount"), form.text("mint_url")
    check_amount(amount_sat)
    if amount_sat is None:
        raise InvalidParameter("Say how much.", param="amount")
    if form.text("way") == TOKEN:
        once = Once(
            idempotency_key=f"page {form.text('once')[:ONCE_CHARS_MAX]}",
            fingerprint=f"{amount_sat} {mint_url}",
        )
        made = await send_profit(ctx, amount_sat, unit="sat", mint_url=mint_url, once=once)
    else:
        to = form.text("to")
        asked = amount_sat if "@" in to else None
        made = await pay_profit(ctx, to, amount_sat=asked, mint_url=mint_url)
    if not made.is_replay:
        action = "profit.withdraw" if made.way == TOKEN else "profit.pay"
        await note_action(
            ctx, actor=admin.name, action=action, target=made.id,
            detail={"amount_msat": made.amount_msat, "fee_msat": made.fee_msat,
                    "mint_url": made.mint_url},
        )  # fmt: skip
    return await _page(request, ctx, admin, made=made)


@router.post("/{withdrawal_id}/token")
@shows_again(_page)
async def show_token(
    request: Request, admin: Withdrawing, ctx: Ctx, withdrawal_id: str
) -> Response:
    """The token of a payout again, while nobody has claimed it. Raises RefundNotFound."""
    made = await read_payment(ctx, OWNER_ID, withdrawal_id)
    if made.token is None:
        raise RefundNotFound("There is no token of that payout any more.")
    await note_action(ctx, actor=admin.name, action="payout.token", target=withdrawal_id)
    return await _page(request, ctx, admin, made=made)
