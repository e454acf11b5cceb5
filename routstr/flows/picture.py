"""The catalog's picture, made from what is stored: which model is sold by whom, at which price.

Whatever lacks a price or a length is not sold, and its reason is kept for whoever asks for it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

import structlog

from routstr.core.prices import (
    UsdPrices,
    priced,
    rate_msat,
    rates_msat,
    sold_paths,
    usd_prices,
    with_fee,
)
from routstr.core.pricing import CONTEXT_TOKENS_MAX, Model, Price
from routstr.core.providers import PROVIDERS, Provider, bills_files_apart
from routstr.errors import InvalidParameter
from routstr.flows.catalog import NO_RATE, Candidate, Listing, Picture, Route, listed
from routstr.gateways.upstream_config import BUILT_IN, UpstreamConfig
from routstr.ledger.reads_catalog import RateRow, RouteRow, StoredModel, UpstreamRow

log = structlog.get_logger()

GENERIC: Final = "openai-compatible"
NO_PRICE: Final = "This node knows no price for that model, so it does not sell it."
NO_LENGTH: Final = (
    "This node does not know the context length of that model, so it does not sell it."
)
OFF: Final = "The operator of this node does not sell that model."
GONE: Final = "That model is no longer offered by its upstream."
_WRITTEN: Final = {"output", "image_output"}
UNIT_CONTEXT: Final = 8_192  # of what is sold by the unit alone: no price hangs on it


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """USD for one bitcoin as prices are made with it; `good_until` None is for ever."""

    btc_usd: Decimal
    good_until: datetime | None = None


def rate_of(row: RateRow | None, *, fixed: Decimal | None, max_age_s: float) -> Rate | None:
    """The rate of the settings, else the last good one, else none."""
    if fixed is not None:
        return Rate(btc_usd=fixed)
    if row is None:
        return None
    return Rate(btc_usd=row.in_force, good_until=row.taken_at + timedelta(seconds=max_age_s))


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What the database holds of the catalog at one moment."""

    upstreams: Sequence[UpstreamRow] = ()
    models: Sequence[StoredModel] = ()
    routes: Sequence[RouteRow] = ()
    rate: RateRow | None = None


@dataclass(slots=True, kw_only=True)
class _Shelf:
    """What is collected under one public id."""

    candidates: list[Candidate] = field(default_factory=list)
    models: dict[str, Model] = field(default_factory=dict)
    aliases: list[str] = field(default_factory=list)


def picture_of(
    stored: Stored,
    *,
    rate: Rate | None,
    fixed: Iterable[Listing],
    settings_upstream: UpstreamConfig | None,
    config_of: Callable[[UpstreamRow], UpstreamConfig | None],
) -> Picture:
    """Everything on sale: what is stored, and the `fixed` listings of the settings' upstream."""
    shelves: dict[str, _Shelf] = {}
    for each in fixed:
        shelf = shelves.setdefault(each.model.id, _Shelf())
        shelf.candidates.extend(each.candidates)
        shelf.models.update({candidate.upstream_id: each.model for candidate in each.candidates})
        shelf.aliases.extend(each.aliases)
    configs = {} if settings_upstream is None else {settings_upstream.id: settings_upstream}
    rows = {row.id: row for row in stored.upstreams if row.enabled}
    for row in rows.values():
        config = config_of(row)
        if config is not None:
            configs[row.id] = config
    not_sold: dict[str, str] = {}
    reasons: dict[tuple[str, str], str] = {}
    unrated: set[str] = set()
    for model in stored.models:
        upstream = rows.get(model.upstream_id)
        if upstream is None or upstream.id not in configs:
            continue
        offered = _offered(model, upstream, rate)
        if isinstance(offered, str):
            not_sold.setdefault(model.model_id, offered)
            reasons[upstream.id, model.model_id] = offered
            if offered is NO_RATE:
                unrated.update((model.model_id, *model.aliases))
            continue
        shelf = shelves.setdefault(model.model_id, _Shelf())
        shelf.candidates.append(offered)
        shelf.models[upstream.id] = _model(model, offered)
        shelf.aliases.extend(alias for alias in model.aliases if alias not in shelf.aliases)
    return Picture(
        listings={name: _listing(shelf) for name, shelf in shelves.items()},
        upstreams=configs,
        not_sold={name: why for name, why in not_sold.items() if name not in shelves},
        routes=_routes(stored.routes, configs, rate),
        reasons=reasons,
        unrated=frozenset(unrated - shelves.keys()),
        unrated_routes=frozenset(
            (row.method, row.path)
            for row in stored.routes
            if rate is None and row.price_usd is not None and _is_open(row, configs)
        ),
        btc_usd=None if rate is None else rate.btc_usd,
    )


def _listing(shelf: _Shelf) -> Listing:
    """Shown with the name and the words of the upstream whose price is shown."""
    any_model = next(iter(shelf.models.values()))
    shown = listed(any_model, shelf.candidates).shown
    return listed(shelf.models[shown.upstream_id], shelf.candidates, aliases=shelf.aliases)


def _offered(model: StoredModel, upstream: UpstreamRow, rate: Rate | None) -> Candidate | str:
    """The upstream as a candidate for the model, or why it is none."""
    provider = PROVIDERS.get(upstream.provider_type, PROVIDERS[GENERIC])
    usd = usd_prices({**model.usd, **(model.own_usd or {})})
    fee_ppm = upstream.fee_ppm if model.fee_ppm is None else model.fee_ppm
    paths = _spoken(upstream, provider) & (provider.paths if model.is_free else sold_paths(usd))
    context = model.own_context_length or model.context_length
    by_token = model.is_free or "input" in usd
    why = _why_not(model, rate, is_priced=bool(paths), is_measured=bool(context) or not by_token)
    if why is not None:
        return why
    context = min(context or UNIT_CONTEXT, CONTEXT_TOKENS_MAX)
    output = min(model.own_max_output_tokens or model.max_output_tokens or context, context)
    try:
        price, good_until = _price(model, usd, fee_ppm, rate)
    except InvalidParameter:
        return NO_PRICE
    return Candidate(
        upstream_id=upstream.id,
        upstream_slug=upstream.slug,
        forwarded_model_id=model.forwarded_model_id,
        price=price,
        context_length=context,
        max_output_tokens=output if model.is_free or _WRITTEN & usd.keys() else 0,
        weight=upstream.weight,
        paths=paths,
        fee_ppm=fee_ppm,
        good_until=good_until,
        facts=model.facts,
        reads_files=_reads_files(model, upstream),
        usd={} if model.is_free else {name: with_fee(each, fee_ppm) for name, each in usd.items()},
    )


def _reads_files(model: StoredModel, upstream: UpstreamRow) -> bool:
    """Whether a document costs tokens alone: the model takes it, or nobody else reads it for it."""
    taken = model.facts.get("input_modalities")
    is_taken = isinstance(taken, list) and "file" in taken
    return is_taken or not bills_files_apart(upstream.provider_type, upstream.base_url)


def _why_not(
    model: StoredModel, rate: Rate | None, *, is_priced: bool, is_measured: bool
) -> str | None:
    if not model.enabled:
        return OFF
    if model.is_gone:
        return GONE
    if not is_priced:
        return NO_PRICE
    if not is_measured:
        return NO_LENGTH
    return NO_RATE if rate is None and not model.is_free else None


def _price(
    model: StoredModel, usd: UsdPrices, fee_ppm: int, rate: Rate | None
) -> tuple[Price, datetime | None]:
    if model.is_free:
        free = {"input_msat_per_mtok": 0, "output_msat_per_mtok": 0}
        return priced(model.model_id, free), None
    assert rate is not None, "checked before"
    rates = rates_msat(usd, fee_ppm=fee_ppm, btc_usd=rate.btc_usd)
    return priced(model.model_id, rates), rate.good_until


def _model(model: StoredModel, offered: Candidate) -> Model:
    created, description = model.facts.get("created"), model.facts.get("description")
    return Model(
        id=model.model_id,
        name=model.name or model.model_id,
        description=description if isinstance(description, str) else "",
        created=created if isinstance(created, int) else int(model.created_at.timestamp()),
        context_length=offered.context_length,
        max_output_tokens=offered.max_output_tokens,
        price=offered.price,
        is_free=model.is_free,
    )


def _spoken(upstream: UpstreamRow, provider: Provider) -> frozenset[str]:
    """What the operator says it speaks, else what its kind does."""
    said = upstream.provider_settings.get("paths")
    return frozenset(map(str, said)) if isinstance(said, list) else provider.paths


def _routes(
    rows: Iterable[RouteRow], configs: Mapping[str, UpstreamConfig], rate: Rate | None
) -> dict[tuple[str, str], Route]:
    found = {}
    for row in rows:
        if not _is_open(row, configs):
            continue
        upstream_id = row.upstream_id or BUILT_IN
        good_until, price_msat = None, row.price_msat
        if row.price_usd is not None:
            if rate is None:
                continue
            good_until = rate.good_until
            price_msat = rate_msat(row.price_usd, per=1, fee_ppm=0, btc_usd=rate.btc_usd)
        rates = {"input_msat_per_mtok": 0, "output_msat_per_mtok": 0}
        found[row.method, row.path] = Route(
            id=row.id,
            method=row.method,
            path=row.path,
            upstream_id=upstream_id,
            upstream_path=row.upstream_path,
            price=priced(f"{row.method} {row.path}", {**rates, "request_msat": price_msat or 0}),
            good_until=good_until,
        )
    return found


def _is_open(row: RouteRow, configs: Mapping[str, UpstreamConfig]) -> bool:
    return row.enabled and (row.upstream_id or BUILT_IN) in configs
