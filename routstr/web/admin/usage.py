"""`/admin/api/usage/*`: what was sold, from the ledger's own rows; amounts in msat."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import JsonValue

from routstr.flows.house.overview import overview
from routstr.flows.house.usage import Point, Share, error_details, usage
from routstr.web.admin.guard import Reading
from routstr.web.admin.shape import Hours, Shown, Unix
from routstr.web.deps import Ctx

router = APIRouter(prefix="/admin/api/usage", tags=["admin"])

Interval = Annotated[int | None, Query(ge=1, le=100_000)]


class Sums(Shown):
    """What requests came to."""

    requests: int
    charged_msat: int
    margin_msat: int
    absorbed_msat: int
    at_risk_msat: int
    input_tokens: int
    output_tokens: int


class PointShown(Shown):
    """One step; times are null where nothing was timed."""

    at: Unix
    failed: int
    sums: Sums
    ms_p50: int | None
    ms_p99: int | None
    first_ms_p50: int | None
    first_ms_p99: int | None
    added_us_p50: int | None
    added_us_p99: int | None


class ShareShown(Shown):
    """What a model, an upstream or an outcome has of it."""

    name: str
    failed: int
    sums: Sums


class Metrics(Shown):
    """Step by step, without gaps."""

    since: Unix
    until: Unix
    step_s: int
    points: list[PointShown]


class Summary(Shown):
    """In all."""

    since: Unix
    until: Unix
    total: PointShown


class Money(Shown):
    """The node's money as an equation: wallet = users + in flight + yours."""

    wallet_msat: int
    users_msat: int
    in_flight_msat: int
    yours_msat: int
    takeable_msat: int
    taken_msat: int
    locked_msat: int
    issued_msat: int
    held_msat: int
    held_msat_max: int
    running: int


class Need(Shown):
    """Something that wants the operator's eyes."""

    kind: str
    text: str
    link: str
    urgency: JsonValue


class Dashboard(Shown):
    """What the overview shows."""

    money: Money
    needs: list[Need]
    since: Unix
    until: Unix
    step_s: int
    total: PointShown
    points: list[PointShown]
    by_model: list[ShareShown]
    by_upstream: list[ShareShown]
    by_outcome: list[ShareShown]


class Failure(Shown):
    """A request that the node or an upstream is to blame for."""

    request_id: str
    key_id: str
    model: str
    upstream: str
    outcome: str
    charged_msat: int
    at_risk_msat: int
    created_at: Unix


class Failures(Shown):
    """The newest first; single ones were looked at back to `looked_since`."""

    errors: list[Failure]
    by_outcome: dict[str, int]
    looked_since: Unix


class Revenue(Shown):
    """What each model brought."""

    since: Unix
    until: Unix
    models: list[ShareShown]


def _points(points: tuple[Point, ...]) -> list[PointShown]:
    return [PointShown.model_validate(each) for each in points]


def _shares(shares: tuple[Share, ...]) -> list[ShareShown]:
    return [ShareShown.model_validate(each) for each in shares]


@router.get("/metrics")
async def metrics(
    admin: Reading, ctx: Ctx, hours: Hours = 24, interval: Interval = None
) -> Metrics:
    """What was sold, step by step; `interval` in minutes."""
    found = await usage(ctx, hours=hours, interval_min=interval)
    return Metrics.model_validate(
        {
            "since": found.since,
            "until": found.until,
            "step_s": found.step_s,
            "points": _points(found.points),
        }
    )


@router.get("/summary")
async def summary(admin: Reading, ctx: Ctx, hours: Hours = 24) -> Summary:
    """What was sold in all."""
    found = await usage(ctx, hours=hours)
    total = PointShown.model_validate(found.total)
    return Summary.model_validate({"since": found.since, "until": found.until, "total": total})


@router.get("/dashboard")
async def dashboard(admin: Reading, ctx: Ctx, hours: Hours = 24) -> Dashboard:
    """The overview."""
    found = await overview(ctx, hours=hours)
    sold = found.usage
    return Dashboard.model_validate(
        {
            "money": Money.model_validate(found.money),
            "needs": [Need.model_validate(each) for each in found.needs],
            "since": sold.since,
            "until": sold.until,
            "step_s": sold.step_s,
            "total": PointShown.model_validate(sold.total),
            "points": _points(sold.points),
            "by_model": _shares(sold.by_model),
            "by_upstream": _shares(sold.by_upstream),
            "by_outcome": _shares(sold.by_outcome),
        }
    )


@router.get("/error-details")
async def errors(
    admin: Reading,
    ctx: Ctx,
    hours: Hours = 24,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> Failures:
    """What went wrong, the newest first."""
    found = await error_details(ctx, hours=hours, limit=limit)
    return Failures.model_validate(
        {
            "errors": [Failure.model_validate(each) for each in found.failures],
            "by_outcome": dict(found.by_outcome),
            "looked_since": found.looked_since,
        }
    )


@router.get("/revenue-by-model")
async def revenue(admin: Reading, ctx: Ctx, hours: Hours = 24) -> Revenue:
    """What each model brought, the most first."""
    found = await usage(ctx, hours=hours)
    return Revenue.model_validate(
        {"since": found.since, "until": found.until, "models": _shares(found.by_model)}
    )
