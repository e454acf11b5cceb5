"""`/admin/api/upstream-providers`: the APIs that are resold, their models, and whether they work.

`provider_fee` is what their prices are multiplied by, as clients of older nodes know it; 1.05 is a
margin of 5 %. A key is written and never read.
"""

from decimal import Decimal
from typing import Annotated, Final

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import Field

from routstr.errors import NotFound
from routstr.flows.context import Context
from routstr.flows.house.actions import note_action
from routstr.flows.house.selling import ModelShown, UpstreamShown, selling_of
from routstr.flows.house.try_upstream import try_upstream
from routstr.flows.refresh import follow, refresh
from routstr.flows.upstreams import (
    ModelWish,
    UpstreamWish,
    add_upstream,
    change_upstream,
    remove_upstream,
    set_model,
)
from routstr.web.admin.guard import Admin, Confirmed, Reading, Writing, confirmed_admin
from routstr.web.admin.shape import REDACTED, Body, Id, InPage, Shown, Text, Unix
from routstr.web.bodies import BoundedRoute
from routstr.web.deps import Ctx
from routstr.web.scope import request_id_of

router = APIRouter(prefix="/admin/api/upstream-providers", tags=["admin"], route_class=BoundedRoute)

PERCENT: Final = Decimal(100)
ModelId = Annotated[str, Path(max_length=500)]
Fee = Annotated[float, Field(ge=1, le=101, allow_inf_nan=False)]


class ProviderSettings(Body):
    """What is particular to it: its share among equals, and what it may be called for."""

    weight: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    sells_new: bool | None = None
    is_local: bool | None = None
    paths: list[Text] | None = Field(default=None, max_length=50)


class ProviderBody(Body):
    """What is to change of it."""

    slug: Text | None = None
    provider_type: Text | None = None
    base_url: Text | None = None
    api_key: Text | None = Field(default=None, repr=False)
    api_version: Text | None = None
    enabled: bool | None = None
    provider_fee: Fee | None = None
    provider_settings: ProviderSettings | None = None


class NewProvider(ProviderBody):
    """A new one: its name, and where it is unless its kind says so."""

    slug: Text


class ProviderView(Shown):
    """An upstream; `api_key` only says whether there is one. A fixed one is the settings' own."""

    id: str
    slug: str
    provider_type: str
    base_url: str
    api_key: str | None
    api_version: str | None
    enabled: bool
    provider_fee: float
    provider_settings: dict[str, object]
    is_fixed: bool
    models: int
    sold: int
    listed_at: Unix | None
    state: str | None


class Providers(Shown):
    """A page of them, by name."""

    providers: list[ProviderView]
    total: int


class ModelView(Shown):
    """A model; prices in USD per million tokens or per unit, `why_not` null for one on sale."""

    id: str
    name: str
    forwarded_model_id: str
    enabled: bool
    is_free: bool
    why_not: str | None
    alias_ids: list[str]
    pricing: dict[str, str]
    own_pricing: dict[str, str]
    found_pricing: dict[str, str]
    context_length: int
    max_output_tokens: int
    upstream_provider_id: str


class Models(Shown):
    """Its models that are kept, and with `remote` what it lists just now."""

    provider: ProviderView
    db_models: list[ModelView]
    remote_models: list[str]
    total: int


class ModelBody(Body):
    """What is to change of a model; `pricing` replaces your own prices, empty takes them back."""

    enabled: bool | None = None
    is_free: bool | None = None
    name: Text | None = None
    alias_ids: list[Text] | None = Field(default=None, max_length=32)
    provider_fee: Fee | None = None
    pricing: dict[str, Text] | None = Field(default=None, max_length=32)
    context_length: Annotated[int, Field(ge=0)] | None = None
    max_output_tokens: Annotated[int, Field(ge=0)] | None = None


class TriedView(Shown):
    """Whether it was reached, and in how many ms."""

    ok: bool
    base_url: str
    ms: int
    models: list[str]
    why: str | None


class Removed(Shown):
    """Whether it is gone, or only switched off because routes need it."""

    removed: bool


@router.get("")
async def list_providers(admin: Reading, ctx: Ctx, page: InPage) -> Providers:
    """All upstreams, the one of the settings included."""
    text = page.search.lower()
    found = [
        each
        for each in (await selling_of(ctx)).upstreams
        if text in each.slug.lower() or text in each.base_url.lower()
    ]
    part = found[page.offset : page.offset + page.limit]
    return Providers(providers=[_view(each) for each in part], total=len(found))


@router.post("")
async def add(request: Request, admin: Confirmed, ctx: Ctx, body: NewProvider) -> ProviderView:
    """Resell another upstream, and ask it for its models."""
    await add_upstream(ctx, body.slug, _wish(body))
    await _note(request, ctx, admin, "upstream.add", body.slug, {})
    await refresh(ctx)
    return _view(await _one(ctx, body.slug))


@router.get("/{ref}")
async def show(admin: Reading, ctx: Ctx, ref: Id) -> ProviderView:
    """One upstream, by its name."""
    return _view(await _one(ctx, ref))


@router.patch("/{ref}")
async def change(
    request: Request, admin: Writing, ctx: Ctx, ref: Id, body: ProviderBody
) -> ProviderView:
    """Change an upstream; its URL and key need a fresh code, another URL the key again."""
    own = body.provider_settings
    has_new_key = body.api_key not in {None, REDACTED}
    is_dangerous = body.base_url is not None or has_new_key
    if is_dangerous or (own is not None and own.is_local is not None):
        await confirmed_admin(request, ctx)
    slug = (await _one(ctx, ref)).slug
    new_slug = None if body.slug in {None, slug} else body.slug
    await change_upstream(ctx, slug, _wish(body), new_slug=new_slug)
    said = [name for name in body.model_fields_set if name != "api_key"]
    detail: dict[str, object] = {"changed": sorted(said), "has_new_key": has_new_key}
    await _note(request, ctx, admin, "upstream.change", slug, detail)
    await follow(ctx)
    return _view(await _one(ctx, new_slug or slug))


@router.delete("/{ref}")
async def remove(request: Request, admin: Writing, ctx: Ctx, ref: Id) -> Removed:
    """Forget an upstream with its models."""
    slug = (await _one(ctx, ref)).slug
    removed = await remove_upstream(ctx, slug)
    await _note(request, ctx, admin, "upstream.remove", slug, {"removed": removed})
    await follow(ctx)
    return Removed(removed=removed)


@router.post("/{ref}/test")
async def test(response: Response, admin: Writing, ctx: Ctx, ref: Id) -> TriedView:
    """Ask an upstream for its models, which costs nothing, and say how that went."""
    response.headers["cache-control"] = "no-store"
    return TriedView.model_validate(await try_upstream(ctx, ref))


@router.get("/{ref}/models")
async def list_models(
    admin: Reading,
    ctx: Ctx,
    ref: Id,
    page: InPage,
    remote: Annotated[bool, Query()] = False,
) -> Models:
    """The models of an upstream as they are kept; with `remote` as it lists them now."""
    selling = await selling_of(ctx)
    upstream = await _one(ctx, ref)
    text = page.search.lower()
    found = [
        each
        for each in selling.models
        if each.upstream == upstream.slug and (text in each.id.lower() or text in each.name.lower())
    ]
    listed = (await try_upstream(ctx, ref)).models if remote and not upstream.is_fixed else ()
    part = found[page.offset : page.offset + page.limit]
    return Models(
        provider=_view(upstream),
        db_models=[_model(each) for each in part],
        remote_models=list(listed),
        total=len(found),
    )


@router.patch("/{ref}/models/{model_id:path}")
async def change_model(
    request: Request, admin: Writing, ctx: Ctx, ref: Id, model_id: ModelId, body: ModelBody
) -> ModelView:
    """Switch a model on or off, price it, name it."""
    slug = (await _one(ctx, ref)).slug
    fee = body.provider_fee
    wish = ModelWish(
        name=body.name,
        margin_percent=None if fee is None else _percent(fee),
        prices=body.pricing,
        is_free=body.is_free,
        enabled=body.enabled,
        aliases=body.alias_ids,
        context_length=body.context_length,
        max_output_tokens=body.max_output_tokens,
    )
    await set_model(ctx, slug, model_id, wish)
    detail: dict[str, object] = {"upstream": slug, "changed": sorted(body.model_fields_set)}
    await _note(request, ctx, admin, "model.change", model_id, detail)
    await follow(ctx)
    model = (await selling_of(ctx)).model(slug, model_id)
    if model is None:
        raise NotFound("There is no such model.", param="id")
    return _model(model)


async def _one(ctx: Context, ref: str) -> UpstreamShown:
    upstream = (await selling_of(ctx)).upstream(ref)
    if upstream is None:
        raise NotFound("There is no upstream of that name.", param="ref")
    return upstream


async def _note(
    request: Request,
    ctx: Context,
    admin: Admin,
    action: str,
    target: str,
    detail: dict[str, object],
) -> None:
    await note_action(
        ctx,
        actor=admin.name,
        action=action,
        target=target,
        detail=detail,
        request_id=request_id_of(request.scope),
    )


def _wish(body: ProviderBody) -> UpstreamWish:
    own = body.provider_settings or ProviderSettings()
    fee = body.provider_fee
    return UpstreamWish(
        provider_type=body.provider_type,
        base_url=body.base_url,
        api_key=None if body.api_key == REDACTED else body.api_key,
        api_version=body.api_version,
        margin_percent=None if fee is None else _percent(fee),
        weight=own.weight,
        sells_new=own.sells_new,
        enabled=body.enabled,
        is_local=own.is_local,
        paths=own.paths,
    )


def _percent(fee: float) -> Decimal:
    """The margin of a factor, by the digits it was written with."""
    return (Decimal(str(fee)) - 1) * PERCENT


def _view(each: UpstreamShown) -> ProviderView:
    margin = Decimal(each.margin.rstrip("% ") or "0")
    return ProviderView(
        id=each.slug,
        slug=each.slug,
        provider_type=each.kind,
        base_url=each.base_url,
        api_key=REDACTED if each.has_key else None,
        api_version=each.api_version,
        enabled=each.enabled,
        provider_fee=float(1 + margin / PERCENT),
        provider_settings={
            "weight": each.weight,
            "sells_new": each.sells_new,
            "is_local": each.is_local,
            "paths": None if each.paths is None else list(each.paths),
        },
        is_fixed=each.is_fixed,
        models=each.models,
        sold=each.sold,
        listed_at=None if each.listed_at is None else int(each.listed_at.timestamp()),
        state=None if each.health is None else str(each.health.state),
    )


def _model(each: ModelShown) -> ModelView:
    return ModelView(
        id=each.id,
        name=each.name,
        forwarded_model_id=each.forwarded_as,
        enabled=each.enabled,
        is_free=each.is_free,
        why_not=each.why_not,
        alias_ids=list(each.aliases),
        pricing=dict(each.usd),
        own_pricing=dict(each.own_usd),
        found_pricing=dict(each.found_usd),
        context_length=each.context_length,
        max_output_tokens=each.max_output_tokens,
        upstream_provider_id=each.upstream,
    )
