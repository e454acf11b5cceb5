"""The catalog kept true: from public rates and lists of models to what is sold at which price."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import text

from routstr.errors import InvalidModel, ServiceUnavailable
from routstr.flows.catalog import Catalog, markup_percent
from routstr.flows.context import Context
from routstr.flows.operate import readiness
from routstr.flows.refresh import open_catalog, refresh
from routstr.flows.upstreams import RouteWish, set_route
from routstr.gateways.addresses import OutsideHttp
from routstr.gateways.listing_http import ModelLists
from routstr.gateways.rates import RateSources
from routstr.ledger.rates import SaveRoute
from routstr.ledger.upstreams import AddUpstream, RemoveUpstream, SetModel
from tests.fakes.lister import FakeLister
from tests.fakes.tickers import FakeTickers
from tests.harness.clock import MovableClock
from tests.harness.till import ON_SQLITE, open_context

USD = {"prompt": "0.000001", "completion": "0.000002"}


def listed(name: str, *, context: int = 1000, **more: Any) -> dict[str, Any]:
    return {"id": name, "context_length": context, "pricing": USD, **more}


@dataclass(slots=True, kw_only=True)
class Market:
    """A node that sells what one or two listers list, at the rate that tickers say."""

    ctx: Context
    clock: MovableClock
    tickers: FakeTickers
    lister: FakeLister

    async def add(self, slug: str = "up", base_url: str | None = None, **more: Any) -> None:
        await self.ctx.ledger.submit(
            AddUpstream(
                upstream_id=f"up_{slug}",
                slug=slug,
                provider_type=more.pop("provider_type", "openai-compatible"),
                base_url=base_url or self.lister.base_url,
                api_key="node-key",
                **more,
            )
        )

    async def set(self, model_id: str, slug: str = "up", **changes: Any) -> None:
        await self.ctx.ledger.submit(SetModel(slug=slug, model_id=model_id, changes=changes))

    async def count(self, table: str) -> int:
        async with self.ctx.database.reading() as connection:
            return int(await connection.scalar(text(f"SELECT count(*) FROM {table}")) or 0)


@asynccontextmanager
async def open_market(database_url: str, **limits: Any) -> AsyncIterator[Market]:
    clock = MovableClock()
    async with (
        FakeTickers("100000") as tickers,
        FakeLister() as lister,
        OutsideHttp(resolver=tickers, loopback_server=tickers.server) as http,
        open_context(database_url, (), clock, **limits) as (ctx, _),
    ):
        yield Market(
            ctx=replace(
                ctx, catalog=Catalog(now=clock.now), rates=RateSources(http), lists=ModelLists()
            ),
            clock=clock,
            tickers=tickers,
            lister=lister,
        )


@pytest.fixture
async def market(database_url: str) -> AsyncIterator[Market]:
    async with open_market(database_url) as market:
        yield market


async def test_listed_models_are_sold_with_a_margin(market: Market) -> None:
    market.lister.answer = {"data": [listed("m"), listed("dear"), listed("n")]}
    await market.add(fee_ppm=100_000)
    await market.ctx.ledger.submit(
        SaveRoute(
            route_id="rt", method="GET", path="/w", upstream_slug="up", upstream_path="/v1/w",
            price_msat=None, price_usd="0.01",
        )
    )  # fmt: skip
    done = await refresh(market.ctx)
    assert (done.sold, done.not_sold, dict(done.silent)) == (3, 0, {})
    assert market.lister.seen[0].headers["authorization"] == "Bearer node-key"
    await market.set("dear", fee_ppm=1_000_000, aliases=["costly"])
    await refresh(market.ctx)
    assert len(market.lister.seen) == 1  # what is fresh is not asked again
    catalog = market.ctx.catalog
    # 1 USD a million tokens at 100 000 USD a bitcoin is 1 000 sat.
    assert catalog.find("m").price.input_msat_per_mtok == 1_100_000
    assert catalog.find("costly").price.output_msat_per_mtok == 4_000_000
    assert catalog.listing("m").candidates[0].usd["input"] == Decimal("0.0000011")
    assert markup_percent(catalog.picture) == 100
    route = catalog.route("GET", "/w")
    assert route is not None
    assert route.price.request_msat == 10_000
    assert await market.count("price_version") == 4  # m and n, and dear at both its margins


@ON_SQLITE
async def test_documents_are_for_models_that_take_them(market: Market) -> None:
    shape = {"input_modalities": ["text", "file"]}
    market.lister.answer = {"data": [listed("m"), listed("reader", architecture=shape)]}
    await market.add(provider_type="openrouter")
    await refresh(market.ctx)
    listings = market.ctx.catalog.picture.listings
    assert [listings[name].shown.reads_files for name in ("m", "reader")] == [False, True]


@ON_SQLITE
async def test_what_has_no_price_is_refused_not_free(market: Market) -> None:
    zero = {"prompt": "0", "completion": "0"}
    depends = {"prompt": "-1", "completion": "-1"}
    market.lister.answer = {
        "data": [
            listed("gpt-4o-mini", pricing=depends),
            listed("zero", pricing=zero),
            listed("unknown", pricing=None),
            listed("endless", context=0),
            listed("given", pricing=zero),
            listed("set", pricing=None),
            listed("off"),
        ]
    }
    await market.add(provider_type="openai")
    await refresh(market.ctx)
    await market.set("given", is_free=True)
    await market.set("set", own_usd={"input": "0.1", "output": "0.1"})
    await market.set("off", enabled=False)
    await refresh(market.ctx)
    catalog = market.ctx.catalog
    assert {each.id for each in catalog.all()} == {"given", "set"}
    given = catalog.find("given")
    assert (given.price.input_msat_per_mtok, given.is_free) == (0, True)
    for name in ("gpt-4o-mini", "zero", "unknown"):
        with pytest.raises(InvalidModel, match="knows no price"):
            catalog.find(name)
    with pytest.raises(InvalidModel, match="context length"):
        catalog.find("endless")
    with pytest.raises(InvalidModel, match="does not sell"):
        catalog.find("off")


@ON_SQLITE
async def test_prices_nobody_lists_come_from_the_public_list(market: Market) -> None:
    market.lister.answer = {"data": [{"id": "gpt-4o-mini"}, {"id": "gpt-4o-audio-preview"}]}
    await market.add(provider_type="openai")
    await refresh(market.ctx)
    [sold] = market.ctx.catalog.all()
    assert (sold.id, sold.context_length) == ("gpt-4o-mini", 128_000)
    assert sold.price.input_msat_per_mtok == 150_000
    assert sold.price.cache_read_msat_per_mtok == 75_000


@ON_SQLITE
async def test_the_cheaper_upstream_is_first(market: Market) -> None:
    async with FakeLister() as other:
        other.answer = {"data": [listed("m", pricing={"prompt": "1e-7", "completion": "1e-7"})]}
        market.lister.answer = {"data": [listed("m")]}
        await market.add()
        await market.add("cheap", other.base_url)
        await refresh(market.ctx)
        slugs = [each.upstream_slug for each in market.ctx.catalog.listing("m").candidates]
        assert slugs == ["cheap", "up"]
        assert set(market.ctx.catalog.picture.upstreams) == {"up_up", "up_cheap"}
        await market.ctx.ledger.submit(RemoveUpstream(slug="cheap"))
        await refresh(market.ctx)
    assert market.ctx.catalog.find("m").price.input_msat_per_mtok == 1_000_000


@ON_SQLITE
async def test_an_upstream_that_is_away_keeps_its_models(market: Market) -> None:
    market.lister.answer = {"data": [listed("m"), listed("n")]}
    await market.add()
    await refresh(market.ctx)
    for status, body in ((500, None), (200, b"<html>"), (200, b'{"data": 3}'), (302, None)):
        market.lister.status, market.lister.body = status, body
        assert (await refresh(market.ctx, asks_all=True)).silent.keys() == {"up"}
        assert len(market.ctx.catalog.all()) == 2
    market.lister.status, market.lister.body = 200, None
    market.lister.answer = {"data": [listed("n")]}
    await refresh(market.ctx, asks_all=True)
    with pytest.raises(InvalidModel, match="no longer"):
        market.ctx.catalog.find("m")


@ON_SQLITE
async def test_an_old_rate_sells_nothing_until_there_is_a_new_one(market: Market) -> None:
    market.lister.answer = {"data": [listed("m")]}
    await market.add()
    await refresh(market.ctx)
    market.tickers.say("100000")  # the others are down
    market.clock.advance(3_500)
    await refresh(market.ctx)
    first = market.ctx.catalog.find("m").price
    market.clock.advance(110)
    with pytest.raises(ServiceUnavailable):
        market.ctx.catalog.find("m")
    told = await readiness(market.ctx)
    assert (told.checks["prices"], told.is_ready) == ("the exchange rate is not known", True)
    market.tickers.say("100100", "100400", "100450")
    await refresh(market.ctx)
    assert market.ctx.catalog.find("m").price == first  # it moved too little to matter
    market.tickers.say("101000", "101000", "101000", "5")
    market.clock.advance(400)
    await refresh(market.ctx)
    assert market.ctx.catalog.find("m").price.input_msat_per_mtok == 990_100
    assert await market.count("price_version") == 2


@ON_SQLITE
async def test_no_rate_yet_and_a_fixed_one(database_url: str) -> None:
    async with open_market(database_url) as market:
        market.lister.answer = {"data": [listed("m")]}
        market.tickers.say()
        await market.add()
        await refresh(market.ctx)
        await market.set("m", aliases=["best"])
        route = RouteWish(path="/v1/tides", upstream="up", price_usd="0.01")
        await set_route(market.ctx, route)
        await refresh(market.ctx)
        catalog = market.ctx.catalog
        for ask in (
            lambda: catalog.find("m"),
            lambda: catalog.find("best"),
            lambda: catalog.route("POST", "/v1/tides"),
        ):
            with pytest.raises(ServiceUnavailable, match="exchange rate"):
                ask()
        with pytest.raises(InvalidModel):
            catalog.find("another")
        assert catalog.route("GET", "/v1/tides") is None
        assert (await readiness(market.ctx)).checks["prices"] != "ok"
    async with open_market(database_url, btc_usd_price=Decimal(50_000)) as offline:
        await refresh(offline.ctx)
        offline.clock.advance(10**7)
        assert offline.ctx.catalog.find("m").price.input_msat_per_mtok == 2_000_000
        assert offline.tickers.asked == []


@ON_SQLITE
async def test_a_start_waits_for_the_world_only_if_it_must(market: Market) -> None:
    market.lister.answer = {"data": [listed("m")]}
    await open_catalog(market.ctx)
    assert market.tickers.asked == []  # nothing hangs on the rate
    await market.add()
    await open_catalog(market.ctx)
    assert (len(market.tickers.asked), len(market.lister.seen)) == (5, 1)
    restarted = replace(market.ctx, catalog=Catalog(now=market.clock.now))
    market.clock.advance(3_500)
    await open_catalog(restarted)
    assert restarted.catalog.find("m").id == "m"
    assert (len(market.tickers.asked), len(market.lister.seen)) == (5, 1)
    market.clock.advance(110)
    await open_catalog(restarted)
    assert (len(market.tickers.asked), len(market.lister.seen)) == (10, 2)
