"""`/admin/models`: what is sold is shown with why the rest is not; forms keep what was typed."""

from decimal import Decimal

from routstr.flows.house.actions import actions
from routstr.flows.house.selling import ModelSearch, found_models, selling_of
from routstr.flows.refresh import follow
from routstr.flows.upstreams import RouteWish, UpstreamWish, add_upstream, set_route
from routstr.ledger.reads_catalog import stored_upstreams
from routstr.ledger.upstreams import FoundModel, SaveModels
from tests.harness.house import House, open_house
from tests.harness.till import ON_SQLITE

pytestmark = ON_SQLITE

PAGE = {"accept": "text/html"}
EVIL = '<script>alert("1")</script>'
USD = {"input": "0.000001", "output": "0.000002"}


def found(model_id: str, **more: object) -> FoundModel:
    known = {
        "name": EVIL, "context_length": 8_000, "max_output_tokens": 4_000, "usd": USD,
        "usd_source": "upstream", "facts": {},
    }  # fmt: skip
    return FoundModel(forwarded_model_id=model_id, **{**known, **more})  # type: ignore[arg-type]  # a test's own words


async def stock(house: House) -> None:
    """An upstream with models that are sold and one without a price, and a path."""
    ctx = house.ctx
    wish = UpstreamWish(api_key="sk-secret-of-the-node", margin_percent=Decimal(5))
    await add_upstream(ctx, "openrouter", wish)
    async with ctx.database.reading() as connection:
        [row] = await stored_upstreams(connection)
    models = [found(f"a/{EVIL}"), found("b/dear"), found("c/unpriced", usd={}, usd_source=None)]
    await ctx.ledger.submit(SaveModels(upstream_id=row.id, models=models))
    await set_route(ctx, RouteWish(path="/v1/weather", upstream="openrouter", price_msat=2_500))
    await follow(ctx)


async def test_pages_of_an_empty_node_say_what_to_do_next(database_url: str) -> None:
    async with open_house(database_url) as house:
        house.ctx.catalog.upstream = None
        page = await house.admin.get("/admin/models", headers=PAGE)
        assert page.status_code == 200
        assert "No upstream yet" in page.text
        assert "No path is sold by the request" in page.text
        new = await house.admin.get("/admin/models/new-upstream", headers=PAGE)
        assert "Your name for it" in new.text
        gone = await house.admin.get("/admin/models/upstreams/nobody", headers=PAGE)
        assert (gone.status_code, "<html" in gone.text) == (404, True)


async def test_what_is_sold_and_why_not_without_secrets_or_markup(database_url: str) -> None:
    async with open_house(database_url, btc_usd_price=Decimal(100_000)) as house:
        await stock(house)
        page = (await house.admin.get("/admin/models", headers=PAGE)).text
        one = (await house.admin.get("/admin/models/upstreams/openrouter", headers=PAGE)).text
        for text in (page, one):
            assert EVIL not in text
            assert "secret-of-the-node" not in text
            assert "No price is known: set one." in text
        assert "&lt;script&gt;" in page
        # 1 USD and its margin at 100 000 USD: 1 050 sat for a million tokens
        assert "1\u2009050" in page
        model = {"upstream": "openrouter", "model": "b/dear"}
        edit = await house.admin.get("/admin/models/edit", params=model, headers=PAGE)
        assert 'value="b/dear"' in edit.text


async def test_a_model_is_priced_and_switched_by_its_form(database_url: str) -> None:
    async with open_house(database_url, btc_usd_price=Decimal(100_000)) as house:
        await stock(house)
        known = {"upstream": "openrouter", "model": "c/unpriced", "sold_as": "c/unpriced"}
        form = {**known, "enabled": "1", "margin": "x", "usd_input": "3", "usd_output": "6"}
        refused = await house.admin.post("/admin/models/edit", data=form, headers=PAGE)
        assert refused.status_code == 400
        assert "A number of percent" in refused.text
        assert 'value="6"' in refused.text
        saved = await house.admin.post(
            "/admin/models/edit", data={**form, "margin": "10"}, headers=PAGE
        )
        assert saved.status_code == 303
        shown = (await selling_of(house.ctx)).model("openrouter", "c/unpriced")
        assert shown is not None
        assert shown.price is not None
        assert (shown.source, shown.margin, shown.usd["input"]) == ("operator", "10", "3.3")
        assert house.ctx.catalog.find("c/unpriced").price.input_msat_per_mtok == 3_300_000
        off = {"upstream": "openrouter", "model": "c/unpriced", "enabled": ""}
        row = await house.admin.post(
            "/admin/models/switch", data=off, headers={**PAGE, "hx-request": "true"}
        )
        assert "switched off" in row.text
        assert "<html" not in row.text
        assert "c/unpriced" not in house.ctx.catalog.picture.listings


async def test_an_address_takes_a_code_and_no_form_goes_without_its_token(
    database_url: str,
) -> None:
    async with open_house(database_url) as house:
        await stock(house)
        there = "/admin/models/upstreams/openrouter"
        form = {"base_url": "https://elsewhere.example/v1"}
        bare = {"cookie": house.admin.headers["cookie"], "origin": house.origin, **PAGE}
        for path in (there, f"{there}/address", f"{there}/remove", "/admin/models/routes"):
            answer = await house.http.post(path, data=form, headers=bare)
            assert answer.status_code == 403, path
        refused = await house.admin.post(f"{there}/address", data=form, headers=PAGE)
        assert refused.status_code == 401
        assert "elsewhere.example" in refused.text  # nothing of the form is lost
        for new_key in ({"key": "sk-another-0123456789"}, {"no_key": "1"}):
            answer = await house.admin.post(there, data={"margin": "1", **new_key}, headers=PAGE)
            assert answer.status_code == 401, new_key
        assert "sk-another" not in answer.text
        code = {"totp": await house.totp()}
        keyless = await house.admin.post(f"{there}/address", data={**form, **code}, headers=PAGE)
        assert "The key that is kept is for another address" in keyless.text
        code = {"totp": await house.totp(), "key": "sk-for-elsewhere-0123456789"}
        moved = await house.admin.post(f"{there}/address", data={**form, **code}, headers=PAGE)
        assert moved.status_code == 303
        shown = (await selling_of(house.ctx)).upstream("openrouter")
        assert shown is not None
        assert shown.base_url == "https://elsewhere.example/v1"
        tried = await house.admin.post(f"{there}/test", headers={**PAGE, "hx-request": "true"})
        assert ("This node asks no upstream." in tried.text, "<html" in tried.text) == (True, False)
        wrong = await house.admin.post(f"{there}/remove", data={"sure": "no"}, headers=PAGE)
        assert "Type openrouter to confirm." in wrong.text
        noted = [each.action for each in await actions(house.ctx, limit=5)]
        assert noted[0] == "upstream.url"


async def test_a_long_list_goes_on_behind_its_last_model(database_url: str) -> None:
    async with open_house(database_url, btc_usd_price=Decimal(100_000)) as house:
        await stock(house)
        async with house.ctx.database.reading() as connection:
            [row] = await stored_upstreams(connection)
        many = [found(f"m/{number:03}") for number in range(60)]
        await house.ctx.ledger.submit(SaveModels(upstream_id=row.id, models=many))
        await follow(house.ctx)
        selling = await selling_of(house.ctx)
        first = found_models(selling, ModelSearch(text="M/0"))
        assert (len(first.models), first.total, first.is_more) == (50, 60, True)
        rest = found_models(selling, ModelSearch(text="m/0", after=first.models[-1].place))
        assert [each.id for each in rest.models] == [f"m/{number:03}" for number in range(50, 60)]
