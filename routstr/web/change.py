"""`/v1/balance/change/{id}` and its alias: what a payment without an account left.

Source: contract, section 7. Shown to whoever has the token that was paid or the claim secret.
"""

import re
from typing import Final

from fastapi import APIRouter, Request, Response

from routstr.errors import MissingApiKey, RefundNotFound
from routstr.flows.authenticate import credential_text
from routstr.flows.change import Change, NothingToRefund, change_by_secret, change_by_token
from routstr.flows.context import Context
from routstr.web.deps import Ctx

router = APIRouter(tags=["balance"])

_SECRET: Final = re.compile(r"clm_[0-9a-f]{64}")


@router.get("/change/{change_id}")
async def read_change(change_id: str, request: Request, ctx: Ctx) -> dict[str, object]:
    """The change of a request: its token until it is claimed, and what the request cost."""
    payment = request.headers.get("x-cashu")
    secret = credential_text(request.headers)
    if payment:
        change = await change_by_token(ctx, payment, change_id)
    elif not secret:
        raise MissingApiKey("Send the token that was paid as `X-Cashu`, or the claim secret.")
    elif _SECRET.fullmatch(secret):
        change = await change_by_secret(ctx, secret, change_id)
    else:
        raise RefundNotFound
    shown: dict[str, object] = {"id": change.id, "status": change.status}
    if change.token is not None:
        shown["token"] = change.token
    return shown | {
        f"{change.unit}s": str(change.amount),
        "cost": change.cost_msat,
        "request_id": change.request_id,
    }


async def refund_of_payment(ctx: Context, payment: str, response: Response) -> dict[str, object]:
    """The same, as older clients ask for it; `X-Cashu` of the answer is the token.

    Raises NothingToRefund when there is none, or when it was claimed.
    """
    change: Change = await change_by_token(ctx, payment)
    if change.token is None:
        raise NothingToRefund
    response.headers["X-Cashu"] = change.token
    return {"token": change.token, f"{change.unit}s": str(change.amount)}
