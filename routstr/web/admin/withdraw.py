"""`POST /admin/api/withdraw` and `/admin/withdraw`: a token out of the profit, never of users'."""

import hashlib
from typing import Final, Literal

from fastapi import APIRouter, Request, Response
from pydantic import Field

from routstr.flows.house.actions import note_action
from routstr.flows.payout import Once, send_profit
from routstr.web.admin.guard import Withdrawing
from routstr.web.admin.shape import Body, Shown, Text
from routstr.web.bodies import BoundedRoute
from routstr.web.deps import Ctx, IdempotencyKey
from routstr.web.scope import request_id_of

router = APIRouter(prefix="/admin", tags=["admin"], route_class=BoundedRoute)


AMOUNT_MAX: Final = 2_100_000_000_000_000  # all sats there will ever be, or as many msat


class WithdrawBody(Body):
    """How much of the profit, in `unit`; without a mint the fullest one gives it."""

    amount: int = Field(ge=1, le=AMOUNT_MAX)
    mint_url: Text | None = None
    unit: Literal["sat", "msat"] = "sat"


class Sent(Shown):
    """A token, which whoever has it may spend."""

    token: str | None
    mint_url: str
    amount: int
    unit: str
    withdrawal_id: str


@router.post("/withdraw")
@router.post("/api/withdraw")
async def withdraw(
    request: Request,
    response: Response,
    admin: Withdrawing,
    ctx: Ctx,
    repeat: IdempotencyKey,
    body: WithdrawBody,
) -> Sent:
    """Take profit out as ecash; with an Idempotency-Key a repeat is the same token again."""
    said = hashlib.sha256(body.model_dump_json().encode()).hexdigest()
    view = await send_profit(
        ctx,
        body.amount,
        unit=body.unit,
        mint_url=body.mint_url,
        once=Once(idempotency_key=repeat, fingerprint=said),
    )
    if view.is_replay:
        response.headers["Idempotent-Replayed"] = "true"
    else:
        await note_action(
            ctx,
            actor=admin.name,
            action="profit.withdraw",
            target=view.id,
            detail={"amount_msat": view.amount_msat, "mint_url": view.mint_url},
            request_id=request_id_of(request.scope),
        )
    return Sent(
        token=view.token,
        mint_url=view.mint_url,
        amount=body.amount,
        unit=view.unit,
        withdrawal_id=view.id,
    )
