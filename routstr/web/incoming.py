"""`/v1/balance/request` and `/receive/{key_id}`: a wallet pays onto a key by itself (NUT-18)."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, Path, Request
from pydantic import BaseModel, ConfigDict, Field

from routstr.flows.incoming import receive_payment, topup_request
from routstr.web.bodies import BoundedRoute
from routstr.web.deps import Ctx, KnownCaller
from routstr.web.here import address_of

SATS_MAX: Final = 2_100_000_000_000_000
PROOFS_MAX: Final = 100
TEXT_CHARS_MAX: Final = 4_200


class RequestBody(BaseModel):
    """How much is wanted; without an amount the payer chooses."""

    model_config = ConfigDict(strict=True, extra="ignore")

    amount_sats: int | None = Field(default=None, gt=0, le=SATS_MAX)


class PaymentBody(BaseModel):
    """What a wallet delivers (NUT-18, PaymentRequestPayload); `id` and `memo` are not needed."""

    model_config = ConfigDict(strict=True, extra="ignore")

    mint: str = Field(min_length=1, max_length=TEXT_CHARS_MAX)
    unit: str = Field(min_length=1, max_length=16)
    proofs: list[dict[str, Any]] = Field(min_length=1, max_length=PROOFS_MAX)


router = APIRouter(tags=["balance"], route_class=BoundedRoute)


@router.post("/request")
async def request_topup(
    request: Request,
    ctx: Ctx,
    caller: KnownCaller,
    body: Annotated[RequestBody | None, Body()] = None,
) -> dict[str, object]:
    """A payment request for this key: whoever pays it, the money arrives here by itself."""
    wanted = None if body is None else body.amount_sats
    made = await topup_request(
        ctx, caller.ref, amount_sat=wanted, base_url=address_of(request, ctx)
    )
    return {
        "id": made.id,
        "amount_sats": made.amount,
        "unit": "sat",
        "mints": list(made.mints),
        "receive_url": made.target,
        "payment_request": made.request_a,
        "payment_request_bech32": made.request_b,
    }


@router.post("/receive/{key_id}")
async def receive(
    key_id: Annotated[str, Path(pattern=r"^key_[0-9a-f]{32}$")], body: PaymentBody, ctx: Ctx
) -> dict[str, object]:
    """Ecash onto the key of that public id; the same ecash again changes nothing."""
    received = await receive_payment(
        ctx, key_id, mint=body.mint, unit=body.unit, proofs=body.proofs
    )
    return {"status": "received", "msats": received.credit_msat}
