"""`/admin/models/upstreams`: an API that is resold: where it is, its margin, whether it works.

Where an upstream is decides who reads what users send, and whose key it is who pays and sees it, so
both are changed only with a fresh TOTP code; the rest needs none.
"""

from typing import Final

from fastapi import APIRouter, Request, Response

from routstr.core.providers import EVERY_PATH, PROVIDERS
from routstr.errors import InvalidParameter, NotFound
from routstr.flows.context import Context
from routstr.flows.house.actions import note_action
from routstr.flows.house.selling import UpstreamShown, selling_of
from routstr.flows.house.try_upstream import Tried, try_upstream
from routstr.flows.refresh import follow, refresh
from routstr.flows.upstreams import (
    UpstreamWish,
    add_upstream,
    change_upstream,
    remove_upstream,
)
from routstr.web.admin.guard import Admin, Confirmed, Reading, Writing, confirmed_admin
from routstr.web.deps import Ctx
from routstr.web.pages.entries import EMPTY, Form, Problem, RoomRoute, read_form, shows_again
from routstr.web.pages.kit import page
from routstr.web.pages.shell import admin_page, back_to

MODELS: Final = "/admin/models"
HERE: Final = f"{MODELS}/upstreams"
GENERIC: Final = "openai-compatible"
router = APIRouter(prefix=MODELS, route_class=RoomRoute, include_in_schema=False)


async def _one(
    request: Request,
    ctx: Context,
    admin: Admin,
    *,
    slug: str,
    tested: Tried | None = None,
    form: Form = EMPTY,
    problem: Problem | None = None,
) -> Response:
    """Raises NotFound."""
    upstream = (await selling_of(ctx)).upstream(slug)
    if upstream is None:
        raise NotFound
    return await _form(
        request, ctx, admin, upstream=upstream, tested=tested, form=form, problem=problem
    )


async def _form(
    request: Request,
    ctx: Context,
    admin: Admin,
    *,
    upstream: UpstreamShown | None = None,
    tested: Tried | None = None,
    form: Form = EMPTY,
    problem: Problem | None = None,
) -> Response:
    return admin_page(
        request, ctx, admin, "admin/upstream.html", here="models",
        title=upstream.slug if upstream else "A new upstream",
        upstream=upstream, tested=tested, providers=PROVIDERS, every_path=sorted(EVERY_PATH),
        generic=GENERIC,
        form=form.told, problem=problem, status=problem.status if problem else 200,
    )  # fmt: skip


@router.get("/new-upstream")
async def new_upstream(request: Request, admin: Reading, ctx: Ctx) -> Response:
    """A form for another one."""
    return await _form(request, ctx, admin)


@router.post("/new-upstream")
@shows_again(_form)
async def keep_upstream(request: Request, admin: Confirmed, ctx: Ctx) -> Response:
    """Resell another API, and ask it for its models."""
    form = await read_form(request)
    slug = form.text("slug")
    await add_upstream(ctx, slug, _wish(form, is_new=True))
    await note_action(
        ctx, actor=admin.name, action="upstream.add", target=slug,
        detail={"type": form.text("type"), "base_url": form.text("base_url")},
    )  # fmt: skip
    return await _asked(ctx, slug, "is kept")


@router.get("/upstreams/{slug}")
async def upstream_page(request: Request, admin: Reading, ctx: Ctx, slug: str) -> Response:
    """One upstream."""
    return await _one(request, ctx, admin, slug=slug)


@router.post("/upstreams/{slug}")
@shows_again(_one)
async def save_upstream(request: Request, admin: Writing, ctx: Ctx, slug: str) -> Response:
    """Change its margin and what else is no address; its key with a fresh code."""
    form = await read_form(request)
    wish = _wish(form, is_new=False)
    if wish.api_key is not None:
        await confirmed_admin(request, ctx)
    await change_upstream(ctx, slug, wish)
    await note_action(
        ctx, actor=admin.name, action="upstream.change", target=slug,
        detail={"margin": form.text("margin"), "enabled": form.is_on("enabled"),
                "new_key": wish.api_key is not None},
    )  # fmt: skip
    await follow(ctx)
    return back_to(f"{HERE}/{slug}", f"{slug} is saved.")


@router.post("/upstreams/{slug}/test")
async def ask_upstream(request: Request, admin: Writing, ctx: Ctx, slug: str) -> Response:
    """Ask it for its list, which costs nothing, and say how that went; nothing is changed."""
    tested = await try_upstream(ctx, slug)
    if request.headers.get("hx-request") == "true":
        return page("admin/upstream_test.html", tested=tested)
    return await _one(request, ctx, admin, slug=slug, tested=tested)


@router.post("/upstreams/{slug}/address")
@shows_again(_one)
async def move_upstream(request: Request, admin: Confirmed, ctx: Ctx, slug: str) -> Response:
    """Change where it is; its key goes there only if it is given again."""
    form = await read_form(request)
    if not form.text("base_url"):
        raise InvalidParameter("Say the base URL of that upstream.", param="base_url")
    wish = UpstreamWish(
        base_url=form.text("base_url"), api_key=form.said("key"), is_local=form.is_on("local")
    )
    await change_upstream(ctx, slug, wish)
    await note_action(
        ctx, actor=admin.name, action="upstream.url", target=slug,
        detail={"base_url": form.text("base_url"), "local": form.is_on("local"),
                "new_key": wish.api_key is not None},
    )  # fmt: skip
    return await _asked(ctx, slug, "is reached there from now on")


@router.post("/upstreams/{slug}/remove")
@shows_again(_one)
async def forget_upstream(request: Request, admin: Writing, ctx: Ctx, slug: str) -> Response:
    """Forget it, its key and its models; one that a route needs is only switched off."""
    form = await read_form(request)
    if form.text("sure") != slug:
        raise InvalidParameter(f"Type {slug} to confirm.", param="sure")
    is_gone = await remove_upstream(ctx, slug)
    await note_action(ctx, actor=admin.name, action="upstream.remove", target=slug)
    await follow(ctx)
    if is_gone:
        return back_to(MODELS, f"{slug} is forgotten, with its key and its models.")
    return back_to(MODELS, f"A route needs {slug}, so it is only switched off.", kind="bad")


async def _asked(ctx: Context, slug: str, done: str) -> Response:
    """Back to its page, with what came of asking it for its models."""
    silent = (await refresh(ctx)).silent.get(slug)
    said = f"{slug} {done}" + (f", but {silent}" if silent else "; it was asked for its models.")
    return back_to(f"{HERE}/{slug}", said, kind="bad" if silent else "ok")


def _wish(form: Form, *, is_new: bool) -> UpstreamWish:
    """What the form says of it; an empty key leaves the one there is."""
    kind = form.said("type")
    return UpstreamWish(
        provider_type=kind,
        base_url=form.said("base_url") if is_new else None,
        api_key=form.said("key") or ("" if form.is_on("no_key") else None),
        api_version=form.text("api_version"),
        margin_percent=form.percent("margin"),
        weight=form.whole("weight"),
        sells_new=form.text("sells_new") != "0",
        enabled=None if is_new else form.is_on("enabled"),
        is_local=form.is_on("local") if is_new else None,
        paths=form.words("paths"),
    )
