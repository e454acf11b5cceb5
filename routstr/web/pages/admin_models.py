"""`/admin/models`: what is sold, at which price, and what to do about what is not."""

from typing import Annotated, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response

from routstr.core.prices import CLASSES
from routstr.errors import InvalidParameter, NotFound
from routstr.flows.context import Context
from routstr.flows.house.actions import note_action
from routstr.flows.house.selling import (
    FoundModels,
    ModelSearch,
    found_models,
    selling_of,
)
from routstr.flows.refresh import follow, refresh
from routstr.flows.upstreams import ModelWish, RouteWish, remove_route, set_model, set_route
from routstr.web.admin.guard import Admin, Reading, Writing
from routstr.web.deps import Ctx
from routstr.web.pages.entries import EMPTY, Form, Problem, RoomRoute, read_form, shows_again
from routstr.web.pages.shell import admin_page, back_to

HERE: Final = "/admin/models"
PRICE_WORDS: Final = {
    "input": "1 million tokens in",
    "output": "1 million tokens out",
    "request": "A request",
    "cache_read": "… in, read from a cache",
    "cache_write": "… in, written to a cache",
    "audio_input": "… in, of audio",
    "image_input": "… in, of images",
    "reasoning": "… out, of reasoning",
    "audio_output": "… out, of audio",
    "image_output": "… out, of images",
    "image": "An image",
    "second": "A second of audio",
    "web_search": "A web search",
    "character": "1 million characters",
}
router = APIRouter(prefix=HERE, route_class=RoomRoute, include_in_schema=False)

EVERYTHING: Final = ModelSearch()

Text = Annotated[str, Query(max_length=300)]


def _onward(wanted: ModelSearch, found: FoundModels) -> str | None:
    """The address of the models behind these."""
    if not found.is_more:
        return None
    asked = {"search": wanted.text, "upstream": wanted.upstream, "state": wanted.state}
    asked["after"] = "|".join(found.models[-1].place)
    return f"{HERE}?{urlencode({name: text for name, text in asked.items() if text})}#models"


async def _list(
    request: Request,
    ctx: Context,
    admin: Admin,
    *,
    wanted: ModelSearch = EVERYTHING,
    form: Form = EMPTY,
    problem: Problem | None = None,
) -> Response:
    selling = await selling_of(ctx)
    found = found_models(selling, wanted)
    slugs = [(each.slug, each.slug) for each in selling.upstreams]
    return admin_page(
        request, ctx, admin, "admin/models.html", here="models",
        selling=selling, found=found, wanted=wanted, pairs=slugs,
        onward=_onward(wanted, found),
        form=form.told, problem=problem, status=problem.status if problem else 200,
    )  # fmt: skip


@router.get("")
async def models_page(
    request: Request,
    admin: Reading,
    ctx: Ctx,
    search: Text = "",
    upstream: Text = "",
    state: Text = "",
    after: Text = "",
) -> Response:
    """Upstreams, models, routes and the rate."""
    model_id, _, slug = after.rpartition("|")
    wanted = ModelSearch(
        text=search.strip(),
        upstream=upstream,
        state=state,
        after=(model_id, slug) if after else None,
    )
    return await _list(request, ctx, admin, wanted=wanted)


@router.post("/refresh")
async def refresh_all(admin: Writing, ctx: Ctx) -> Response:
    """Ask the rate's sources and every upstream now."""
    done = await refresh(ctx, asks_all=True)
    await note_action(ctx, actor=admin.name, action="prices.refresh")
    said = f"Asked: {done.sold} models are sold, {done.not_sold} are not."
    if done.silent:
        said = f"{said} No list came from {', '.join(done.silent)}."
    return back_to(HERE, said, kind="bad" if done.silent else "ok")


@router.post("/switch")
async def switch_model(request: Request, admin: Writing, ctx: Ctx) -> Response:
    """Sell a model, or sell it no more; back to where the list was."""
    form = await read_form(request)
    is_on = form.text("enabled") == "1"
    slug, model_id = form.text("upstream"), form.text("model")
    await set_model(ctx, slug, model_id, ModelWish(enabled=is_on))
    await follow(ctx)
    action = "model.enable" if is_on else "model.disable"
    await note_action(ctx, actor=admin.name, action=action, target=f"{slug} {model_id}")
    if request.headers.get("hx-request") == "true":
        model = (await selling_of(ctx)).model(slug, model_id)
        return admin_page(request, ctx, admin, "admin/models_row.html", here="models", model=model)
    said = f"{model_id} is {'sold' if is_on else 'not sold'} by {slug} from now on."
    return back_to(_found(form.text("search")), said)


# ── one model ─────────────────────────────────────────────────────────────────────────────────


async def _model(
    request: Request,
    ctx: Context,
    admin: Admin,
    *,
    form: Form,
    problem: Problem | None = None,
) -> Response:
    """Raises NotFound."""
    slug, model_id = form.text("upstream"), form.text("model")
    selling = await selling_of(ctx)
    shown = selling.model(slug, model_id) if model_id else None
    upstream = selling.upstream(slug)
    if upstream is None or (model_id and shown is None):
        raise NotFound
    return admin_page(
        request, ctx, admin, "admin/model.html", here="models",
        title=shown.id if shown else f"A new model of {upstream.slug}",
        upstream=upstream, model=shown, rate=selling.rate, classes=CLASSES,
        price_words=PRICE_WORDS, form={} if problem is None else form.told, problem=problem,
        status=problem.status if problem else 200,
    )  # fmt: skip


@router.get("/edit")
async def model_page(
    request: Request, admin: Reading, ctx: Ctx, upstream: Text = "", model: Text = ""
) -> Response:
    """What the operator says of a model; without one, a new model of that upstream."""
    asked = Form(values={"upstream": upstream, "model": model})
    return await _model(request, ctx, admin, form=asked)


@router.post("/edit")
@shows_again(_model)
async def save_model(request: Request, admin: Writing, ctx: Ctx) -> Response:
    """Keep it; the rest of the model stays as it was found."""
    form = await read_form(request)
    slug, known = form.text("upstream"), form.text("model")
    model_id = known or form.text("sold_as")
    if not model_id:
        raise InvalidParameter("Say the id it is sold as.", param="sold_as")
    await set_model(ctx, slug, model_id, _wish(form), adds=not known)
    await follow(ctx)
    action = "model.set" if known else "model.add"
    await note_action(ctx, actor=admin.name, action=action, target=f"{slug} {model_id}")
    sold_as = form.said("sold_as") or model_id
    return back_to(_found(sold_as), f"{sold_as} is saved; requests are priced so from now on.")


def _found(search: str) -> str:
    """The list with only what fits."""
    return f"{HERE}?{urlencode({'search': search})}#models" if search else f"{HERE}#models"


def _wish(form: Form) -> ModelWish:
    """What the form says; the whole of it, for the page shows all there is."""
    margin = form.percent("margin")
    prices = {name: form.text(f"usd_{name}") for name in CLASSES if form.said(f"usd_{name}")}
    return ModelWish(
        sold_as=form.said("sold_as"),
        forwarded_as=form.said("forwarded_as"),
        name=form.said("name"),
        margin_percent=margin,
        keeps_margin=margin is not None,
        prices=prices,
        is_free=form.is_on("is_free"),
        enabled=form.is_on("enabled"),
        aliases=form.words("aliases"),
        context_length=form.whole("context_length") or 0,
        max_output_tokens=form.whole("max_output_tokens") or 0,
    )


# ── routes ────────────────────────────────────────────────────────────────────────────────────


@router.post("/routes")
@shows_again(_list)
async def save_route(request: Request, admin: Writing, ctx: Ctx) -> Response:
    """Sell a path by the request, or change how it is sold."""
    form = await read_form(request)
    wish = RouteWish(
        path=form.text("path"),
        method=form.text("method") or "POST",
        upstream=form.said("route_upstream"),
        upstream_path=form.said("upstream_path"),
        price_msat=form.msat("price_sat"),
        price_usd=form.said("price_usd"),
    )
    await set_route(ctx, wish)
    await follow(ctx)
    target = f"{wish.method} {wish.path}"
    await note_action(ctx, actor=admin.name, action="route.set", target=target)
    return back_to(HERE, f"{target} is sold by the request.")


@router.post("/routes/remove")
async def forget_route(request: Request, admin: Writing, ctx: Ctx) -> Response:
    """Sell a path no more."""
    form = await read_form(request)
    path, method = form.text("path"), form.text("method")
    await remove_route(ctx, path, method)
    await follow(ctx)
    await note_action(ctx, actor=admin.name, action="route.remove", target=f"{method} {path}")
    return back_to(HERE, f"{method} {path} is sold no more.")
