"""`/v1/balance/*` and its alias `/v1/wallet/*`: a key's money, in and out (contract, section 4)."""

import hashlib
from collections.abc import Mapping
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Body, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from routstr.core.money import unit_from_msat
from routstr.errors import InvalidParameter
from routstr.flows.authenticate import credential_text
from routstr.flows.invited import HEADER as INVITE
from routstr.flows.keys import Created, Terms, create_key, key_info, topup
from routstr.flows.pay import PayWish, pay, quote_payment
from routstr.flows.refunds import read_withdrawal
from routstr.flows.statement import key_history, key_statement
from routstr.flows.teams import team_of
from routstr.flows.withdraw import Wish, WithdrawalView, withdraw
from routstr.ledger.reads import HistoryRow, StatementRow
from routstr.web.bodies import BoundedRoute
from routstr.web.change import refund_of_payment
from routstr.web.deps import (
    AnyCaller,
    Ctx,
    IdempotencyKey,
    KnownCaller,
    RefundedCaller,
    refunded_caller_of,
)
from routstr.web.teams import child_terms, child_view, totals_and_terms

PAGE_MAX: Final = 200
SATS_MAX: Final = 2_100_000_000_000_000
TEXT_CHARS_MAX: Final = 4_200  # an invoice, `lightning:` in front
# What a token was redeemed by somebody, or a payment arrived, is called at each source.
COLLECTED: Final = {
    "cashu": frozenset({"credited", "claimed"}),
    "lightning": frozenset({"credited", "completed"}),
}
REPLAYED: Final = "Idempotent-Replayed"


class _Given(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class _GivenInQuery(BaseModel):
    model_config = ConfigDict(extra="ignore")


class _CreateTerms(BaseModel):
    initial_balance_token: str = Field(min_length=1)
    balance_limit: int | None = None
    balance_limit_reset: Literal["daily", "weekly", "monthly"] | None = None
    validity_date: int | None = None
    invite: str | None = Field(default=None, max_length=TEXT_CHARS_MAX)


class CreateBody(_Given, _CreateTerms):
    """A token for a new key, and the key's terms, as JSON."""


class CreateQuery(_GivenInQuery, _CreateTerms):
    """The same in the query."""


class TopupBody(_Given):
    """A token for an existing key."""

    cashu_token: str = Field(min_length=1)


class RefundBody(_Given):
    """How much to take out, from which mint, and where to; else everything, as ecash."""

    amount_sats: int | None = Field(default=None, gt=0, le=SATS_MAX)
    mint_url: str | None = Field(default=None, max_length=TEXT_CHARS_MAX)
    lightning_address: str | None = Field(default=None, max_length=TEXT_CHARS_MAX)
    invoice: str | None = Field(default=None, max_length=TEXT_CHARS_MAX)

    @property
    def is_payment(self) -> bool:
        """Is it to leave over Lightning?"""
        return self.invoice is not None or self.lightning_address is not None


router = APIRouter(tags=["balance"], route_class=BoundedRoute)


@router.get("")
@router.get("/")
@router.get("/info")
async def info(request: Request, ctx: Ctx, caller: AnyCaller) -> dict[str, object]:
    """The key, its balance less holds, and its limits."""
    found = await key_info(ctx, caller.ref, credential_text(request.headers))
    key, team = found.key, await team_of(ctx, found.key)
    said: dict[str, object] = {
        "api_key": found.api_key,
        "key_id": key.id,
        "balance": team.spendable_msat,
        "reserved": key.held_msat,
        "is_child": team.parent is not None,
        **totals_and_terms(key),
    }
    if team.parent is not None:
        said["parent_key_preview"] = team.parent.preview or team.parent.id
        return said | child_terms(key, ctx.clock.now())
    said["child_keys"] = [child_view(child, ctx.clock.now()) for child in team.children]
    return said


@router.get("/create")
async def create_by_query(
    request: Request,
    query: Annotated[CreateQuery, Query()],
    response: Response,
    ctx: Ctx,
    repeat: IdempotencyKey,
) -> dict[str, object]:
    """A key for a token, asked for by URL, as older clients do."""
    return _created(await _create(request, ctx, query, repeat), response)


@router.post("/create")
async def create(
    request: Request, body: CreateBody, response: Response, ctx: Ctx, repeat: IdempotencyKey
) -> dict[str, object]:
    """A key for a token."""
    return _created(await _create(request, ctx, body, repeat), response)


async def _create(request: Request, ctx: Ctx, given: _CreateTerms, repeat: str | None) -> Created:
    terms = Terms(
        balance_limit_msat=given.balance_limit,
        balance_limit_reset=given.balance_limit_reset,
        validity_date=given.validity_date,
    )
    return await create_key(
        ctx,
        given.initial_balance_token,
        terms,
        idempotency_key=repeat,
        invite=given.invite or request.headers.get(INVITE),
    )


def _created(created: Created, response: Response) -> dict[str, object]:
    if created.is_replay:
        response.headers[REPLAYED] = "true"
    return {
        "api_key": created.api_key,
        "balance": created.available_msat,
        "key_id": created.key_id,
    }


@router.post("/topup")
async def top_up(
    response: Response,
    ctx: Ctx,
    caller: KnownCaller,
    repeat: IdempotencyKey,
    body: Annotated[TopupBody | None, Body()] = None,
    cashu_token: Annotated[str | None, Query()] = None,
) -> dict[str, object]:
    """Credit a token to the key; the same token again changes nothing."""
    text = cashu_token if body is None else body.cashu_token
    if not text:
        raise InvalidParameter("Send a Cashu token.", param="cashu_token")
    received = await topup(ctx, caller.ref, text, idempotency_key=repeat)
    if repeat is not None and not received.is_first:
        response.headers[REPLAYED] = "true"
    return {"msats": received.credit_msat, "balance": received.available_msat}


@router.post("/refund")
async def refund(
    request: Request,
    response: Response,
    ctx: Ctx,
    repeat: IdempotencyKey,
    body: Annotated[RefundBody | None, Body()] = None,
) -> dict[str, object]:
    """Take money out, as ecash or over Lightning: all of it, or `amount_sats`.

    With `X-Cashu` the change of what that token alone paid for.
    """
    payment = request.headers.get("x-cashu")
    if payment is not None:
        return await refund_of_payment(ctx, payment, response)
    caller = await refunded_caller_of(request, ctx)
    given = body or RefundBody()
    fingerprint = hashlib.sha256(given.model_dump_json().encode()).hexdigest()
    if given.is_payment:
        view = await pay(ctx, caller.ref, _pay_wish(given, repeat, fingerprint))
    else:
        wish = Wish(
            amount_sat=given.amount_sats,
            mint_url=given.mint_url,
            idempotency_key=repeat,
            fingerprint=fingerprint,
        )
        view = await withdraw(ctx, caller.ref, wish)
    if view.is_replay:
        response.headers[REPLAYED] = "true"
    return _refund(view, response)


@router.post("/refund/quote")
async def quote_refund(ctx: Ctx, caller: RefundedCaller, body: RefundBody) -> dict[str, object]:
    """What a refund over Lightning would take at most; nothing is debited."""
    if not body.is_payment:
        raise InvalidParameter("Send an invoice or a Lightning address.", param="invoice")
    quote = await quote_payment(ctx, caller.ref, _pay_wish(body, None, None))
    return {
        "recipient": quote.recipient,
        "amount_msats": quote.amount_msat,
        "fee_reserve_msats": quote.fee_reserve_msat,
        "total_msats": quote.total_msat,
        "mint_url": quote.mint_url,
        "expires_at": quote.expires_at,
    }


@router.get("/refund/{refund_id}")
async def read_refund(
    refund_id: str, response: Response, ctx: Ctx, caller: RefundedCaller
) -> dict[str, object]:
    """A refund again, its token until it is claimed."""
    return _refund(await read_withdrawal(ctx, caller.ref, refund_id), response)


def _pay_wish(given: RefundBody, repeat: str | None, fingerprint: str | None) -> PayWish:
    """Raises InvalidParameter for two recipients."""
    if given.invoice is not None and given.lightning_address is not None:
        raise InvalidParameter("Send an invoice or an address, not both.", param="invoice")
    return PayWish(
        invoice=given.invoice,
        lightning_address=given.lightning_address,
        amount_sat=given.amount_sats,
        mint_url=given.mint_url,
        idempotency_key=repeat,
        fingerprint=fingerprint,
    )


@router.get("/history")
async def history(
    ctx: Ctx,
    caller: KnownCaller,
    limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = 50,
    offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
) -> dict[str, object]:
    """Deposits and refunds, newest first."""
    rows, total = await key_history(ctx, caller.ref, limit=limit, offset=offset)
    return {"transactions": [_history_row(row) for row in rows], "total": total}


@router.get("/transactions")
async def transactions(
    ctx: Ctx,
    caller: KnownCaller,
    limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = 50,
    before: Annotated[int | None, Query(ge=1, le=2**53)] = None,
) -> dict[str, object]:
    """The key's audit chain, newest first, page by page."""
    rows = await key_statement(ctx, caller.ref, limit=limit, before=before)
    is_last = len(rows) < limit or rows[-1].sequence == 1
    return {
        "transactions": [_statement_row(row) for row in rows],
        "next_before": None if is_last else rows[-1].sequence,
    }


def _refund(view: WithdrawalView, response: Response) -> dict[str, object]:
    told: dict[str, object] = {"token": view.token}
    debit_msat = view.amount_msat
    if view.way == "lightning":
        told = {"recipient": view.recipient}
        debit_msat += view.fee_msat
        if view.status == "pending":
            response.status_code = 202
    return {
        **told,
        f"{view.unit}s": str(unit_from_msat(debit_msat, view.unit)),
        "refund_id": view.id,
        "status": view.status,
        "fee_msats": view.fee_msat,
        "remaining_msats": view.available_msat,
    }


def _history_row(row: HistoryRow) -> dict[str, object]:
    return {
        "id": row.id,
        "type": row.type,
        "source": row.source,
        "amount": unit_from_msat(row.amount_msat, row.unit),
        "unit": row.unit,
        "mint_url": row.mint_url,
        "created_at": int(row.created_at.timestamp()),
        "status": row.status,
        "collected": row.status in COLLECTED.get(row.source, COLLECTED["cashu"]),
        "swept": row.status == "reclaimed",
    }


def _statement_row(row: StatementRow) -> dict[str, object]:
    kind, _, request_id = row.operation_id.partition(":")
    said = row.request_data or {}
    spender = said.get("spender")
    return {
        "id": row.id,
        "sequence": row.sequence,
        "type": row.type,
        "amount_msats": row.amount_msat,
        "balance_after_msats": row.balance_after_msat,
        "description": row.description,
        "request_id": request_id if kind == "end" else None,
        "created_at": int(row.created_at.timestamp()),
        **({} if spender is None else {"spender_key_id": spender}),
        **(_used(said) if row.type == "usage" else {}),
    }


def _used(said: Mapping[str, object]) -> dict[str, object]:
    """What a request bought, and how it ended."""
    usage = said.get("usage")
    counted = usage if isinstance(usage, dict) else {}
    return {
        "model": said.get("model"),
        "outcome": said.get("outcome"),
        "input_tokens": counted.get("input_tokens"),
        "output_tokens": counted.get("output_tokens"),
    }
