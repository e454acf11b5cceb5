"""Keys for teams, under `/v1/balance` and its alias, and `/v1/key` (contract, section 4)."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from routstr.core.cap import next_period
from routstr.core.money import MSAT_PER_SAT, floor_div, usd_text
from routstr.errors import InvalidParameter
from routstr.flows.keys import Terms, own_key, spendable_msat
from routstr.flows.teams import (
    COUNT_MAX,
    ChildWish,
    make_children,
    reset_child,
    revoke,
)
from routstr.flows.transfer import donate, transfer
from routstr.ledger.reads import KeyView
from routstr.web.bodies import BoundedRoute
from routstr.web.deps import Ctx, IdempotencyKey, KnownCaller

MODELS_MAX: Final = 200
NAME_CHARS_MAX: Final = 200
REF_CHARS_MAX: Final = 200
REPLAYED: Final = "Idempotent-Replayed"


class _Given(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class ChildKeyBody(_Given):
    """How many child keys, and what they are bound to; limits of a rate are additions of ours."""

    count: int = Field(default=1, ge=1, le=COUNT_MAX)
    balance_limit: int | None = None
    balance_limit_reset: Literal["daily", "weekly", "monthly"] | None = None
    validity_date: int | None = None
    allowed_models: list[Annotated[str, Field(max_length=NAME_CHARS_MAX)]] | None = Field(
        default=None, max_length=MODELS_MAX
    )
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_max: int | None = None


class ResetBody(_Given):
    """The child, by its text or its id."""

    child_key: str | None = Field(default=None, max_length=NAME_CHARS_MAX)
    key_id: str | None = Field(default=None, max_length=NAME_CHARS_MAX)

    @property
    def named(self) -> str | None:
        """Which of both it was."""
        return self.child_key or self.key_id


class TransferBody(_Given):
    """Who gets how much, in msat."""

    to: str = Field(min_length=1, max_length=NAME_CHARS_MAX)
    amount_msats: int


router = APIRouter(tags=["teams"], route_class=BoundedRoute)
key_router = APIRouter(tags=["teams"])


@router.post("/child-key")
async def child_key(
    body: ChildKeyBody, response: Response, ctx: Ctx, caller: KnownCaller, repeat: IdempotencyKey
) -> dict[str, object]:
    """Make keys that spend this key's money."""
    wish = ChildWish(
        count=body.count,
        terms=Terms(
            balance_limit_msat=body.balance_limit,
            balance_limit_reset=body.balance_limit_reset,
            validity_date=body.validity_date,
        ),
        allowed_models=body.allowed_models,
        requests_per_minute=body.requests_per_minute,
        tokens_per_minute=body.tokens_per_minute,
        concurrent_max=body.concurrent_max,
    )
    made = await make_children(ctx, caller.ref, wish, idempotency_key=repeat)
    if repeat is not None and made.is_replay:
        response.headers[REPLAYED] = "true"
    left_msat = made.parent_available_msat
    return {
        "api_keys": list(made.api_keys),
        "key_ids": list(made.key_ids),
        "count": len(made.api_keys),
        "cost_msats": made.cost_msat,
        "cost_sats": floor_div(made.cost_msat, MSAT_PER_SAT),
        "parent_balance": left_msat,
        "parent_balance_sats": floor_div(left_msat, MSAT_PER_SAT),
    }


@router.post("/child-key/reset")
async def child_key_reset(body: ResetBody, ctx: Ctx, caller: KnownCaller) -> dict[str, object]:
    """Let a child spend its limit anew."""
    if body.named is None:
        raise InvalidParameter("Name the child key.", param="child_key")
    await reset_child(ctx, caller.ref, body.named)
    return {"success": True, "message": "Child key balance reset successfully."}


@router.post("/revoke")
async def revoke_key(
    ctx: Ctx, caller: KnownCaller, body: ResetBody | None = None
) -> dict[str, object]:
    """End a child key at once, or without a body the caller's own key."""
    named = None if body is None else body.named
    if body is not None and named is None:  # a misspelt name must not end the whole team
        raise InvalidParameter("Name the child key, or send no body.", param="child_key")
    await revoke(ctx, caller.ref, named)
    return {"success": True, "message": "Key revoked." if named is None else "Child key revoked."}


@router.post("/transfer")
async def transfer_money(
    body: TransferBody, response: Response, ctx: Ctx, caller: KnownCaller, repeat: IdempotencyKey
) -> dict[str, object]:
    """Move money to another key, once per Idempotency-Key."""
    if repeat is None:
        raise InvalidParameter("A transfer needs an Idempotency-Key.", param="Idempotency-Key")
    moved = await transfer(ctx, caller.ref, body.to, body.amount_msats, idempotency_key=repeat)
    if moved.is_replay:
        response.headers[REPLAYED] = "true"
    done = moved.transferred
    return {
        "transfer_id": done.transfer_id,
        "amount_msats": done.amount_msat,
        "balance": done.available_msat,
    }


@router.post("/donate")
async def donate_token(
    ctx: Ctx,
    token: Annotated[str, Query(min_length=1)],
    ref: Annotated[str | None, Query(max_length=REF_CHARS_MAX)] = None,
) -> str:
    """Give a token to whoever runs the node; `ref` is taken, as older clients send it, not kept."""
    del ref
    await donate(ctx, token)
    return "Thanks!"


# ── how a key is told ─────────────────────────────────────────────────────────────────────────


def totals_and_terms(key: KeyView) -> dict[str, object]:
    """`total_*` and `L`."""
    return {
        "total_requests": key.total_requests,
        "total_spent": key.total_spent_msat,
        "balance_limit": key.balance_limit_msat,
        "balance_limit_reset": key.limit_reset,
        "validity_date": None if key.expires_at is None else int(key.expires_at.timestamp()),
    }


def child_terms(key: KeyView, now: datetime) -> dict[str, object]:
    """What a child is told of its bounds, beyond `L`."""
    cap = key.cap
    return {
        "balance_limit_remaining": None if cap is None else cap.at(now).left_msat,
        "allowed_models": None if key.allowed_models is None else list(key.allowed_models),
        **key.rates,
    }


def child_view(key: KeyView, now: datetime) -> dict[str, object]:
    """A child as its parent sees it."""
    return {
        "api_key": key.preview or key.id,
        "key_id": key.id,
        **totals_and_terms(key),
        **child_terms(key, now),
    }


@key_router.get("/v1/key")
async def own(ctx: Ctx, caller: KnownCaller) -> dict[str, object]:
    """The key as clients of OpenRouter ask for it: USD in its names, msat in ours."""
    key = await own_key(ctx, caller.ref)
    left_msat = await spendable_msat(ctx, key)
    cap = None if key.cap is None else key.cap.at(ctx.clock.now())
    if cap is not None:
        left_msat = min(left_msat, cap.left_msat)
    used_msat = key.total_spent_msat if cap is None else cap.used_msat
    limit_msat = used_msat + left_msat if cap is None else cap.limit_msat
    requests = _effective(ctx, key.rates)
    return {
        "data": {
            "label": key.preview or key.id,
            "usage": _usd(ctx, key.total_spent_msat),
            "limit": _usd(ctx, limit_msat),
            "limit_remaining": _usd(ctx, left_msat),
            "limit_reset": key.limit_reset,
            "is_free_tier": False,
            "rate_limit": {"requests": requests or -1, "interval": "60s"},
            "key_id": key.id,
            "is_child": key.parent_id is not None,
            "total_requests": key.total_requests,
            "usage_msats": key.total_spent_msat,
            "limit_msats": limit_msat,
            "limit_remaining_msats": left_msat,
            "reserved_msats": key.held_msat,
            "limit_resets_at": _resets_at(ctx, key),
            "expires_at": None if key.expires_at is None else int(key.expires_at.timestamp()),
            **child_terms(key, ctx.clock.now()),
        }
    }


def _effective(ctx: Ctx, rates: Mapping[str, int | None]) -> int:
    own = rates["requests_per_minute"]
    return ctx.limits.key_requests_per_minute if own is None else own


def _resets_at(ctx: Ctx, key: KeyView) -> int | None:
    if key.cap is None or key.limit_reset is None:
        return None
    return int(next_period(ctx.clock.now(), key.limit_reset).timestamp())


def _usd(ctx: Ctx, amount_msat: int) -> float | None:
    """A JSON number, for show only; None without a rate."""
    rate = ctx.catalog.btc_usd
    return None if rate is None else float(usd_text(amount_msat, rate))
