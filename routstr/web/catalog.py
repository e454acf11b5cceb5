"""What the node says of itself and of what it sells (contract, section 3)."""

from collections.abc import Mapping
from html import escape
from typing import Final

import orjson
from fastapi import APIRouter, Request, Response

from routstr.errors import InvalidModel, NotFound
from routstr.flows.catalog import markup_percent
from routstr.flows.context import Context
from routstr.flows.operate import readiness
from routstr.flows.shown import models_page, shown
from routstr.web.deps import Ctx

router = APIRouter(tags=["node"])

PAGE_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
PAGE: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{name}</title>
<h1>{name}</h1>
<p>{description}</p>
<p>This node sells an OpenAI-compatible API per request, for ecash, without accounts. Point your
client at <code>/v1</code> here and use a Cashu token of one of these mints as the API key.</p>
<h2>Mints</h2>
<ul>{mints}</ul>
<h2>Models</h2>
<ul>{models}</ul>
<p>Prices: <a href="/v1/models">/v1/models</a>. Terms: <a href="/v1/info">/v1/info</a>.
Version {version}.</p>
</html>
"""


@router.get("/")
async def home(request: Request, ctx: Ctx) -> Response:
    """The node's name card; a page for browsers."""
    facts = ctx.facts
    if "text/html" in request.headers.get("accept", ""):
        return Response(_page(ctx), media_type="text/html; charset=utf-8", headers=PAGE_HEADERS)
    return _json(
        {
            "name": facts.name,
            "description": facts.description,
            "version": facts.version,
            "status": "online",
            "ui": False,
        }
    )


@router.get("/health")
async def health() -> dict[str, str]:
    """Whether the process lives."""
    return {"status": "ok"}


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


def _page(ctx: Context) -> str:
    """The name card for people: what this is, which mints, which models, how to pay."""
    facts = ctx.facts
    mints = "".join(f"<li><code>{escape(url)}</code></li>" for url in facts.mints)
    sold = "".join(f"<li><code>{escape(model.id)}</code></li>" for model in ctx.catalog.all())
    return PAGE.format(
        name=escape(facts.name),
        description=escape(facts.description),
        version=escape(facts.version),
        mints=mints,
        models=sold,
    )
