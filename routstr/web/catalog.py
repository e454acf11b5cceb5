"""What the node says of itself and of what it sells (contract, section 3)."""

from collections.abc import Mapping

import orjson
from fastapi import APIRouter, Request, Response

from routstr.errors import InvalidModel, NotFound
from routstr.flows.catalog import markup_percent
from routstr.flows.operate import readiness
from routstr.flows.shown import models_page, shown
from routstr.web.deps import Ctx
from routstr.web.pages.wallet import wallet_page

router = APIRouter(tags=["node"])


@router.get("/")
async def home(request: Request, ctx: Ctx) -> Response:
    """The node's name card; the wallet page for browsers."""
    facts = ctx.facts
    if "text/html" in request.headers.get("accept", ""):
        return await wallet_page(request, ctx)
    answer = _json(
        {
            "name": facts.name,
            "description": facts.description,
            "version": facts.version,
            "status": "online",
            "ui": True,
        }
    )
    answer.headers["Vary"] = "Accept"
    return answer


@router.get("/health")
async def health(ctx: Ctx) -> Response:
    """Whether the process lives, and goes on living: 503 once it is told to stop."""
    if ctx.departure.has_begun:
        return _json({"status": "stopping"}, status=503)
    return _json({"status": "ok"})


@router.get("/ready")
async def ready(ctx: Ctx) -> Response:
    """Whether the node can serve, check by check; 503 if not."""
    found = await readiness(ctx)
    body = {"status": "ready" if found.is_ready else "not_ready", "checks": found.checks}
    return _json(body, status=200 if found.is_ready else 503)


@router.get("/v1/info")
async def info(ctx: Ctx) -> dict[str, object]:
    """What a client needs to know before it pays."""
    facts = ctx.facts
    return {
        "name": facts.name,
        "description": facts.description,
        "version": facts.version,
        "npub": facts.npub,
        "mints": list(facts.mints),
        "p2pk_pubkey": None if ctx.limits.p2pk_lock == "off" else ctx.acceptance.current,
        "receipt_pubkey": ctx.receipt_key.public,
        "http_url": facts.http_url,
        "onion_url": facts.onion_url,
        "child_key_cost_msats": ctx.limits.child_key_cost_msats,
        "max_request_bytes": facts.body_bytes_max,
        "refund_ttl_seconds": ctx.limits.refund_ttl_s,
        "fees": {"platform_msats": 0, "markup_percent": markup_percent(ctx.catalog.picture)},
    }


@router.get("/models")
@router.get("/v1/models")
async def models(ctx: Ctx) -> Response:
    """Every model, with its prices in USD and in sats."""
    return Response(models_page(ctx.catalog), media_type="application/json")


@router.get("/models/{model_id:path}")
@router.get("/v1/models/{model_id:path}")
async def model(model_id: str, ctx: Ctx) -> Response:
    """One model; ids may hold slashes."""
    try:
        found = ctx.catalog.listing(model_id)
    except InvalidModel as error:
        raise NotFound(error.message, param="model") from error
    return _json(shown(found, ctx.catalog.picture))


def _json(body: Mapping[str, object], *, status: int = 200) -> Response:
    return Response(orjson.dumps(body), status_code=status, media_type="application/json")
