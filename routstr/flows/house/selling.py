"""What is sold and by whom, as the operator sees it: upstreams, models sold or not and why, rate.

Nothing here changes anything. The picture in force is joined with the rows it was made of, so that
a model which is not sold is shown as well, with what to do about it.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from routstr.core.prices import CLASSES, EXACT
from routstr.core.pricing import Price
from routstr.core.providers import PROVIDERS
from routstr.flows.catalog import NO_RATE, Candidate
from routstr.flows.context import Context
from routstr.flows.picture import GONE, NO_LENGTH, NO_PRICE, OFF, Stored
from routstr.flows.refresh import read_stored
from routstr.gateways.pool import UpstreamHealth
from routstr.gateways.upstream_config import BUILT_IN
from routstr.ledger.reads_catalog import RouteRow, StoredModel, UpstreamRow

UPSTREAM_OFF: Final = "Its upstream is switched off."
NO_KEY: Final = "The key or URL of its upstream cannot be used."
# Why a model is not sold, for whoever can do something about it.
WHY: Final = {
    NO_PRICE: "No price is known: set one.",
    NO_LENGTH: "Its context length is not known: set one.",
    NO_RATE: "The exchange rate is not known.",
    OFF: "You switched it off.",
    GONE: "Its upstream lists it no more.",
}
OPERATOR: Final = "operator"
SETTINGS: Final = "settings"
MODELS_MAX: Final = 50
_PPM_PER_PERCENT: Final = Decimal(10_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamShown:
    """An upstream with what it sells; `unsold` counts its other models by the reason.

    One that `is_fixed` is the one of the settings, and only they change it. `paths` None are those
    of its kind. Without `health` it is not in use.
    """

    slug: str
    kind: str
    kind_name: str
    base_url: str
    has_key: bool
    is_fixed: bool
    enabled: bool
    api_version: str | None
    margin: str
    weight: int
    sells_new: bool
    is_local: bool
    paths: tuple[str, ...] | None
    models: int
    sold: int
    unsold: tuple[tuple[str, int], ...]
    listed_at: datetime | None
    health: UpstreamHealth | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShown:
    """A model of one upstream; `why_not` is None for one that is sold.

    `price` and `usd` are what a client pays, margin included, `usd` as text per million tokens or
    per unit, by the names of `core.prices.CLASSES`; `own_usd` likewise, as the operator said it,
    and `found_usd` as it was found, both without margin. `source` says who set the price.
    """

    upstream: str
    id: str
    forwarded_as: str
    name: str
    why_not: str | None
    is_fixed: bool
    enabled: bool
    is_free: bool
    aliases: tuple[str, ...]
    margin: str
    has_own_margin: bool
    source: str | None
    price: Price | None
    usd: Mapping[str, str]
    own_usd: Mapping[str, str]
    found_usd: Mapping[str, str]
    context_length: int
    max_output_tokens: int
    own_context_length: int | None
    own_max_output_tokens: int | None

    @property
    def place(self) -> tuple[str, str]:
        """What lists are ordered by."""
        return self.id, self.upstream


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteShown:
    """A path sold by the request; `is_open` while it can be called."""

    method: str
    path: str
    upstream: str
    upstream_path: str
    price_msat: int | None
    price_usd: str | None
    is_open: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RateShown:
    """USD for one bitcoin as prices are made with it; a fixed one is never asked for."""

    btc_usd: str | None
    is_fixed: bool
    taken_at: datetime | None
    good_until: datetime | None
    sources: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Selling:
    """All of it at one moment; `models` by id and upstream."""

    upstreams: tuple[UpstreamShown, ...]
    models: tuple[ModelShown, ...]
    routes: tuple[RouteShown, ...]
    rate: RateShown

    def upstream(self, slug: str) -> UpstreamShown | None:
        """That one, if there is one."""
        return next((each for each in self.upstreams if each.slug == slug), None)

    def model(self, slug: str, model_id: str) -> ModelShown | None:
        """That model of that upstream, if there is one."""
        return next((each for each in self.models if each.place == (model_id, slug)), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSearch:
    """Which models to look at: `state` is `sold`, `unsold` or empty for both."""

    text: str = ""
    upstream: str = ""
    state: str = ""
    after: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundModels:
    """The next so many of those that fit; `total` fit in all, `is_more` come after these."""

    models: tuple[ModelShown, ...]
    total: int
    is_more: bool


def found_models(selling: Selling, search: ModelSearch) -> FoundModels:
    """Those that fit, from behind `after` on."""
    text = search.text.lower()
    fitting = [
        each
        for each in selling.models
        if (not text or any(text in name for name in _names(each)))
        and search.upstream in ("", each.upstream)
        and search.state in ("", "unsold" if each.why_not else "sold")
    ]
    after = search.after
    rest = [each for each in fitting if after is None or each.place > after]
    models = tuple(rest[:MODELS_MAX])
    return FoundModels(models=models, total=len(fitting), is_more=len(rest) > len(models))


def _names(model: ModelShown) -> Iterator[str]:
    yield from (each.lower() for each in (model.id, model.name, *model.aliases))


async def selling_of(ctx: Context) -> Selling:
    """What the database has, joined with what is in force."""
    stored = await read_stored(ctx)
    models = tuple(sorted(_models(ctx, stored), key=lambda each: each.place))
    return Selling(
        upstreams=tuple(_upstreams(ctx, stored, models)),
        models=models,
        routes=tuple(_route(ctx, stored, row) for row in stored.routes),
        rate=_rate(ctx, stored),
    )


# ── upstreams ─────────────────────────────────────────────────────────────────────────────────


def _upstreams(
    ctx: Context, stored: Stored, models: tuple[ModelShown, ...]
) -> Iterator[UpstreamShown]:
    ctx.upstream.follow(ctx.catalog.picture.upstreams)
    health = {each.id: each for each in ctx.upstream.health()}
    fixed = ctx.catalog.upstream
    if fixed is not None:
        row = UpstreamRow(
            id=fixed.id,
            slug=BUILT_IN,
            provider_type=fixed.provider_type,
            base_url=fixed.base_url,
            sealed_key="" if fixed.api_key else None,
            api_version=fixed.api_version,
            enabled=True,
            fee_ppm=0,
            weight=0,
            sells_new=False,
            provider_settings={},
            listed_at=None,
            created_at=ctx.clock.now(),
        )
        yield _upstream(row, models, health.get(fixed.id), is_fixed=True)
    for row in stored.upstreams:
        yield _upstream(row, models, health.get(row.id), is_fixed=False)


def _upstream(
    row: UpstreamRow,
    models: tuple[ModelShown, ...],
    health: UpstreamHealth | None,
    *,
    is_fixed: bool,
) -> UpstreamShown:
    own = [each for each in models if each.upstream == row.slug]
    provider = PROVIDERS.get(row.provider_type)
    paths = row.provider_settings.get("paths")
    reasons = Counter(each.why_not for each in own if each.why_not is not None)
    return UpstreamShown(
        slug=row.slug,
        kind=row.provider_type,
        kind_name=row.provider_type if provider is None else provider.name,
        base_url=row.base_url,
        has_key=row.sealed_key is not None,
        is_fixed=is_fixed,
        enabled=row.enabled,
        api_version=row.api_version,
        margin=percent_text(row.fee_ppm),
        weight=row.weight,
        sells_new=row.sells_new,
        is_local=row.provider_settings.get("local") is True,
        paths=tuple(map(str, paths)) if isinstance(paths, list) else None,
        models=len(own),
        sold=sum(each.why_not is None for each in own),
        unsold=tuple(reasons.most_common()),
        listed_at=row.listed_at,
        health=health,
    )


# ── models ────────────────────────────────────────────────────────────────────────────────────


def _models(ctx: Context, stored: Stored) -> Iterator[ModelShown]:
    """Each model of each upstream; the fixed ones of the settings, too."""
    picture = ctx.catalog.picture
    sold = {
        (each.upstream_id, name): each
        for name, listing in picture.listings.items()
        for each in listing.candidates
    }
    upstreams = {each.id: each for each in stored.upstreams}
    for row in stored.models:
        upstream = upstreams[row.upstream_id]
        candidate = sold.get((row.upstream_id, row.model_id))
        why = None
        if candidate is None or not upstream.enabled:
            missing = NO_KEY if upstream.enabled else UPSTREAM_OFF
            why = picture.reasons.get((row.upstream_id, row.model_id), missing)
            why = WHY.get(why, why)
        yield _model(row, upstream, candidate, why)
    for listing in ctx.catalog.fixed:
        for each in listing.candidates:
            yield _fixed(listing.model.id, listing.model.name, each)


def _model(
    row: StoredModel, upstream: UpstreamRow, candidate: Candidate | None, why: str | None
) -> ModelShown:
    fee_ppm = upstream.fee_ppm if row.fee_ppm is None else row.fee_ppm
    is_sold = why is None and candidate is not None
    return ModelShown(
        upstream=upstream.slug,
        id=row.model_id,
        forwarded_as=row.forwarded_model_id,
        name=row.name or row.model_id,
        why_not=why,
        is_fixed=False,
        enabled=row.enabled,
        is_free=row.is_free,
        aliases=row.aliases,
        margin=percent_text(fee_ppm),
        has_own_margin=row.fee_ppm is not None,
        source=OPERATOR if row.own_usd or row.is_free else row.usd_source,
        price=candidate.price if is_sold and candidate is not None else None,
        usd=shown_usd(candidate.usd) if is_sold and candidate is not None else {},
        own_usd=shown_usd({name: Decimal(text) for name, text in (row.own_usd or {}).items()}),
        found_usd=shown_usd({name: Decimal(text) for name, text in row.usd.items()}),
        context_length=row.own_context_length or row.context_length,
        max_output_tokens=row.own_max_output_tokens or row.max_output_tokens,
        own_context_length=row.own_context_length,
        own_max_output_tokens=row.own_max_output_tokens,
    )


def _fixed(model_id: str, name: str, candidate: Candidate) -> ModelShown:
    return ModelShown(
        upstream=candidate.upstream_slug,
        id=model_id,
        forwarded_as=candidate.forwarded_model_id,
        name=name,
        why_not=None,
        is_fixed=True,
        enabled=True,
        is_free=False,
        aliases=(),
        margin="0",
        has_own_margin=False,
        source=SETTINGS,
        price=candidate.price,
        usd={},
        own_usd={},
        found_usd={},
        context_length=candidate.context_length,
        max_output_tokens=candidate.max_output_tokens,
        own_context_length=None,
        own_max_output_tokens=None,
    )


# ── routes and the rate ───────────────────────────────────────────────────────────────────────


def _route(ctx: Context, stored: Stored, row: RouteRow) -> RouteShown:
    slugs = {each.id: each.slug for each in stored.upstreams}
    return RouteShown(
        method=row.method,
        path=row.path,
        upstream=slugs.get(row.upstream_id or "", BUILT_IN),
        upstream_path=row.upstream_path,
        price_msat=row.price_msat,
        price_usd=None if row.price_usd is None else plain(row.price_usd),
        is_open=(row.method, row.path) in ctx.catalog.picture.routes,
    )


def _rate(ctx: Context, stored: Stored) -> RateShown:
    fixed, row = ctx.limits.btc_usd_price, stored.rate
    if fixed is not None or row is None:
        return RateShown(
            btc_usd=None if fixed is None else plain(fixed),
            is_fixed=fixed is not None,
            taken_at=None,
            good_until=None,
            sources=(),
        )
    max_age_s = ctx.limits.rate_max_age_s
    return RateShown(
        btc_usd=plain(row.in_force),
        is_fixed=False,
        taken_at=row.taken_at,
        good_until=row.taken_at + timedelta(seconds=max_age_s),
        sources=tuple(sorted(row.sources.items())),
    )


# ── how numbers are written ───────────────────────────────────────────────────────────────────


def shown_usd(prices: Mapping[str, Decimal]) -> dict[str, str]:
    """Prices per token or unit as price lists have them: per million tokens, or per unit."""
    return {
        name: plain(EXACT.multiply(value, 1_000_000) if CLASSES[name][1] > 1 else value)
        for name, value in prices.items()
        if name in CLASSES
    }


def percent_text(fee_ppm: int) -> str:
    """Parts per million as percent."""
    return plain(Decimal(fee_ppm) / _PPM_PER_PERCENT)


def plain(value: Decimal) -> str:
    """A decimal without exponent and without zeros that say nothing."""
    return format(value.normalize(EXACT), "f") if value else "0"
