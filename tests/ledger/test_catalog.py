"""Upstreams, models, price versions, rates and routes: written once, and what wins over what."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from routstr.errors import InvalidParameter, NotFound
from routstr.ledger.commands import RowCommand
from routstr.ledger.rates import NewVersion, RemoveRoute, SavePriceVersions, SaveRate, SaveRoute
from routstr.ledger.reads_catalog import (
    StoredModel,
    last_rate,
    stored_models,
    stored_routes,
    stored_upstreams,
)
from routstr.ledger.upstreams import (
    AddUpstream,
    ChangeUpstream,
    FoundModel,
    RemoveUpstream,
    SaveModels,
    SetModel,
    opened_key,
)
from routstr.ledger.vault import CannotOpen
from tests.ledger.node import START, Node

KEY = "sk-" + "0" * 64  # looks like a key of ours, so that the audit would find it bare


def adding(slug: str = "up", **more: Any) -> AddUpstream:
    given = {"provider_type": "openai", "base_url": "https://up.example/v1", "api_key": KEY, **more}
    return AddUpstream(upstream_id=f"up_{slug}", slug=slug, **given)


def found(name: str, usd: Mapping[str, str] | None = None, context: int = 1000) -> FoundModel:
    return FoundModel(
        forwarded_model_id=name,
        name=name.upper(),
        context_length=context,
        max_output_tokens=100,
        usd=usd or {"input": "0.000001", "output": "0.000002"},
        usd_source="upstream",
        facts={"input_modalities": ["text"]},
    )


def saving(*models: FoundModel) -> SaveModels:
    return SaveModels(upstream_id="up_up", models=models)


def routing(**more: Any) -> SaveRoute:
    given: dict[str, Any] = {"upstream_slug": "up", "price_msat": 5, "price_usd": None, **more}
    return SaveRoute(route_id="rt", method="GET", path="/x", upstream_path="/y", **given)


async def models(node: Node) -> dict[str, StoredModel]:
    async with node.database.reading() as connection:
        return {each.model_id: each for each in await stored_models(connection)}


COMMANDS: list[RowCommand[Any]] = [
    adding("other"),
    ChangeUpstream(slug="up", changes={"slug": "renamed", "fee_ppm": 7}, api_key="sk-new"),
    saving(found("m", context=7), found("n"), found("o")),
    SetModel(slug="up", model_id="m", changes={"model_id": "mm", "aliases": ["a"], "fee_ppm": 1}),
    SetModel(slug="up", model_id="own", changes={"own_usd": {"input": "1"}}, adds=True),
    SavePriceVersions(
        versions=[NewVersion(id="pv_1", model_id="m", rates={"input_msat_per_mtok": 1})],
        btc_usd="60000",
    ),
    SaveRate(btc_usd="60000.5", in_force="60000", sources={"a": "60000.5"}, taken_at=START),
    routing(upstream_slug="up"),
    RemoveRoute(method="GET", path="/x"),
    RemoveUpstream(slug="up"),
]


@pytest.mark.parametrize("number", range(len(COMMANDS)))
async def test_a_repeat_changes_nothing(node: Node, number: int) -> None:
    command = COMMANDS[number]
    await node.ledger.submit(adding())
    await node.ledger.submit(saving(found("m"), found("p")))
    first = await node.ledger.submit(command)
    rows = await node.rows("updated_at", "listed_at")
    assert await node.ledger.submit(command) == first
    assert await node.rows("updated_at", "listed_at") == rows
    await node.assert_sound()


async def test_a_key_is_sealed_for_its_row(node: Node) -> None:
    await node.ledger.submit(adding())
    await node.ledger.submit(adding("other", api_key=""))
    async with node.database.reading() as connection:
        other, row = await stored_upstreams(connection)
    assert row.sealed_key is not None
    assert KEY not in row.sealed_key
    vault = node.wallet.vault
    assert opened_key(vault, row.id, row.sealed_key) == KEY
    assert opened_key(vault, other.id, other.sealed_key) == ""
    with pytest.raises(CannotOpen):
        opened_key(vault, other.id, row.sealed_key)
    assert KEY not in repr(adding())


async def test_a_list_never_touches_what_the_operator_said(node: Node) -> None:
    await node.ledger.submit(adding())
    await node.ledger.submit(saving(found("m"), found("n")))
    own = {
        "model_id": "mine", "aliases": ["a"], "fee_ppm": 9, "enabled": False,
        "own_usd": {"input": "0.5"}, "own_context_length": 50,
    }  # fmt: skip
    await node.ledger.submit(SetModel(slug="up", model_id="m", changes=own))
    await node.ledger.submit(SetModel(slug="up", model_id="z", changes={}, adds=True))
    await node.ledger.submit(saving(found("m", {"input": "0.3"}, context=5), found("mine")))
    now = await models(node)
    mine = now["mine"]
    assert (mine.forwarded_model_id, mine.context_length, mine.usd) == ("m", 5, {"input": "0.3"})
    assert (mine.fee_ppm, mine.enabled, mine.own_usd) == (9, False, {"input": "0.5"})
    assert {name: each.is_gone for name, each in now.items()} == {
        "mine": False,
        "n": True,
        "z": False,
    }
    await node.ledger.submit(saving(found("n")))
    assert not (await models(node))["n"].is_gone


async def test_new_models_wait_where_the_operator_wants_it(node: Node) -> None:
    await node.ledger.submit(adding(sells_new=False))
    await node.ledger.submit(saving(found("m")))
    assert not (await models(node))["m"].enabled


async def test_what_is_refused(node: Node) -> None:
    await node.ledger.submit(adding())
    await node.ledger.submit(saving(found("m"), found("n")))
    taken = AddUpstream(
        upstream_id="up_2", slug="up", provider_type="openai", base_url="https://x", api_key=""
    )
    rename = SetModel(slug="up", model_id="m", changes={"model_id": "n"})
    for command in (taken, rename):
        with pytest.raises(InvalidParameter):
            await node.ledger.submit(command)
    unknown: list[RowCommand[Any]] = [
        ChangeUpstream(slug="none", changes={"fee_ppm": 1}),
        SetModel(slug="none", model_id="m", changes={}),
        SetModel(slug="up", model_id="none", changes={}),
        routing(upstream_slug="none"),
    ]
    for missing in unknown:
        with pytest.raises(NotFound):
            await node.ledger.submit(missing)


async def test_an_upstream_that_a_route_needs_is_only_switched_off(node: Node) -> None:
    await node.ledger.submit(adding())
    await node.ledger.submit(routing())
    assert not await node.ledger.submit(RemoveUpstream(slug="up"))
    async with node.database.reading() as connection:
        [upstream] = await stored_upstreams(connection)
        [route] = await stored_routes(connection)
    assert not upstream.enabled
    assert (route.upstream_id, route.price_msat, route.price_usd) == (upstream.id, 5, None)


async def test_the_newest_rate_counts_and_old_ones_go(node: Node) -> None:
    for days, rate in ((0, "1000"), (40, "2000.25"), (39, "3000")):
        taken_at = START + timedelta(days=days)
        await node.ledger.submit(
            SaveRate(btc_usd=rate, in_force="2000", sources={}, taken_at=taken_at)
        )
    async with node.database.reading() as connection:
        rate_now = await last_rate(connection)
    assert rate_now is not None
    assert (str(rate_now.btc_usd), str(rate_now.in_force)) == ("2000.25", "2000")
    assert await node.value("SELECT count(*) FROM exchange_rate") == 2
