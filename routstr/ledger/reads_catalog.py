"""Reading the catalog: upstreams with their sealed keys, models, routes, and the last good rate."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from sqlalchemy import func, select

from routstr.ledger.engine import ReadConnection
from routstr.ledger.rates import RATE
from routstr.ledger.upstreams import MODEL, ROUTE, UPSTREAM


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamRow:
    """An upstream as it is stored."""

    id: str
    slug: str
    provider_type: str
    base_url: str
    sealed_key: str | None = field(repr=False)
    api_version: str | None
    enabled: bool
    fee_ppm: int
    weight: int
    sells_new: bool
    provider_settings: Mapping[str, object]
    listed_at: datetime | None
    created_at: datetime


async def stored_upstreams(connection: ReadConnection) -> list[UpstreamRow]:
    """All of them, by name."""
    rows = await connection.execute(select(UPSTREAM).order_by(UPSTREAM.c.slug))
    return [
        UpstreamRow(
            id=row.id,
            slug=row.slug,
            provider_type=row.provider_type,
            base_url=row.base_url,
            sealed_key=row.api_key,
            api_version=row.api_version,
            enabled=row.enabled,
            fee_ppm=row.fee_ppm,
            weight=row.weight,
            sells_new=row.sells_new,
            provider_settings=row.provider_settings or {},
            listed_at=row.listed_at,
            created_at=row.created_at,
        )
        for row in rows
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredModel:
    """A model of an upstream as it is stored: what was found, and what the operator says."""

    id: str
    upstream_id: str
    model_id: str
    forwarded_model_id: str
    name: str | None
    context_length: int
    max_output_tokens: int
    usd: Mapping[str, str]
    usd_source: str | None
    own_usd: Mapping[str, str] | None
    own_context_length: int | None
    own_max_output_tokens: int | None
    fee_ppm: int | None
    is_free: bool
    is_gone: bool
    enabled: bool
    aliases: tuple[str, ...]
    facts: Mapping[str, object]
    created_at: datetime


async def stored_models(
    connection: ReadConnection, upstream_id: str | None = None
) -> list[StoredModel]:
    """All of them, or those of one upstream, by name."""
    wanted = select(MODEL).order_by(MODEL.c.model_id, MODEL.c.id)
    if upstream_id is not None:
        wanted = wanted.where(MODEL.c.upstream_id == upstream_id)
    rows = await connection.execute(wanted)
    return [
        StoredModel(
            id=row.id,
            upstream_id=row.upstream_id,
            model_id=row.model_id,
            forwarded_model_id=row.forwarded_model_id,
            name=row.name,
            context_length=row.context_length,
            max_output_tokens=row.max_output_tokens,
            usd=row.usd or {},
            usd_source=row.usd_source,
            own_usd=row.own_usd,
            own_context_length=row.own_context_length,
            own_max_output_tokens=row.own_max_output_tokens,
            fee_ppm=row.fee_ppm,
            is_free=row.is_free,
            is_gone=row.is_gone,
            enabled=row.enabled,
            aliases=tuple(row.aliases or ()),
            facts=row.facts or {},
            created_at=row.created_at,
        )
        for row in rows
    ]


async def models_stamp(connection: ReadConnection) -> tuple[int, datetime | None]:
    """How many models there are and when one was last changed: a new one says to read them."""
    row = (await connection.execute(select(func.count(), func.max(MODEL.c.updated_at)))).one()
    return int(row[0]), row[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteRow:
    """A path that is sold by the request; exactly one of the prices is set."""

    id: str
    method: str
    path: str
    upstream_id: str | None
    upstream_path: str
    price_msat: int | None
    price_usd: Decimal | None
    enabled: bool


async def stored_routes(connection: ReadConnection) -> list[RouteRow]:
    """All of them, by path."""
    rows = await connection.execute(select(ROUTE).order_by(ROUTE.c.path, ROUTE.c.method))
    return [
        RouteRow(
            id=row.id,
            method=row.method,
            path=row.path,
            upstream_id=row.upstream_id,
            upstream_path=row.upstream_path,
            price_msat=row.price_msat,
            price_usd=None if row.price_usd is None else Decimal(row.price_usd),
            enabled=row.enabled,
        )
        for row in rows
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class RateRow:
    """A rate that was agreed on, and the one that prices were made with then."""

    btc_usd: Decimal
    in_force: Decimal
    sources: Mapping[str, str]
    taken_at: datetime


async def last_rate(connection: ReadConnection) -> RateRow | None:
    """The last good one, if there ever was one."""
    newest = select(RATE).order_by(RATE.c.taken_at.desc(), RATE.c.id.desc()).limit(1)
    row = (await connection.execute(newest)).one_or_none()
    if row is None:
        return None
    return RateRow(
        btc_usd=Decimal(row.btc_usd),
        in_force=Decimal(row.in_force),
        sources=row.sources,
        taken_at=row.taken_at,
    )
