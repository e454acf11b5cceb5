"""`/lightning/*` and its aliases: money by Lightning, for a new key or onto one (section 5)."""

from datetime import datetime
from typing import Final, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from routstr.flows.invited import HEADER as INVITE
from routstr.flows.invoice import (
    Invoiced,
    InvoiceView,
    InvoiceWish,
    create_invoice,
    invoice_status,
    recover,
)
from routstr.flows.keys import Terms
from routstr.flows.topup_key import topup_key
from routstr.web.bodies import BoundedRoute
from routstr.web.deps import Ctx

SATS_MAX: Final = 1_000_000
BOLT11_CHARS_MAX: Final = 4_200  # `lightning:` in front


class InvoiceBody(BaseModel):
    """How much, for what; `api_key` names the key to top up where no header does."""

    model_config = ConfigDict(strict=True, extra="ignore")

    amount_sats: int = Field(ge=1, le=SATS_MAX)
    purpose: Literal["create", "topup"] = "create"
    api_key: str | None = None
    balance_limit: int | None = None
    balance_limit_reset: Literal["daily", "weekly", "monthly"] | None = None
    validity_date: int | None = None
    invite: str | None = Field(default=None, max_length=BOLT11_CHARS_MAX)


class RecoverBody(BaseModel):
    """The invoice's text."""

    model_config = ConfigDict(strict=True, extra="ignore")

    bolt11: str = Field(min_length=1, max_length=BOLT11_CHARS_MAX)


router = APIRouter(tags=["lightning"], route_class=BoundedRoute)


@router.post("/invoice")
async def invoice(request: Request, body: InvoiceBody, ctx: Ctx) -> dict[str, object]:
    """An invoice that opens a key, or tops one up."""
    if body.purpose == "topup":
        key = await topup_key(ctx, request.headers, body.api_key)
        wish = InvoiceWish(amount_sat=body.amount_sats, target=key.ref, shown_key=key.text)
    else:
        terms = Terms(
            balance_limit_msat=body.balance_limit,
            balance_limit_reset=body.balance_limit_reset,
            validity_date=body.validity_date,
        )
        wish = InvoiceWish(
            amount_sat=body.amount_sats,
            terms=terms,
            invite=body.invite or request.headers.get(INVITE),
        )
    return _invoiced(await create_invoice(ctx, wish))


@router.get("/invoice/{invoice_id}/status")
async def status(invoice_id: str, ctx: Ctx) -> dict[str, object]:
    """How it stands; once paid, its key, for as long as it may be shown."""
    return _view(await invoice_status(ctx, invoice_id))


@router.post("/recover")
async def recovered(body: RecoverBody, ctx: Ctx) -> dict[str, object]:
    """The same for who has only the invoice."""
    return _view(await recover(ctx, body.bolt11))


def _invoiced(made: Invoiced) -> dict[str, object]:
    return {
        "invoice_id": made.invoice_id,
        "bolt11": made.bolt11,
        "amount_sats": made.amount_sat,
        "expires_at": _unix_s(made.expires_at),
        "payment_hash": made.payment_hash,
    }


def _view(view: InvoiceView) -> dict[str, object]:
    return {
        "status": view.status,
        "api_key": view.api_key,
        "amount_sats": view.amount_sat,
        "paid_at": _unix_s(view.paid_at),
        "created_at": _unix_s(view.created_at),
        "expires_at": _unix_s(view.expires_at),
    }


def _unix_s(time: datetime | None) -> int | None:
    return None if time is None else int(time.timestamp())
