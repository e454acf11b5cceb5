"""A node that the settings give no upstream: one is connected, and what it lists is bought."""

from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import orjson
import pytest

from routstr.errors import InvalidParameter
from routstr.flows.audit import audit
from routstr.flows.refresh import read_stored, refresh
from routstr.flows.upstreams import (
    ModelWish,
    RouteWish,
    UpstreamWish,
    add_upstream,
    change_upstream,
    set_model,
    set_route,
)
from tests.fakes.mint import FakeMint
from tests.fakes.upstream import FakeUpstream
from tests.fakes.upstream_script import MODEL, Script
from tests.harness.desk import Desk, open_desk

PATH = "/v1/chat/completions"


@pytest.fixture
async def desk(sqlite_url: str, tmp_path: Path) -> AsyncIterator[Desk]:
    async with (
        FakeMint() as mint,
        open_desk(
            sqlite_url, mint, tmp_path / "data", upstream_base_url="", models_file=None
        ) as desk,
    ):
        yield desk


def order(model: str) -> dict[str, object]:
    return {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 50}


async def test_from_the_key_of_an_upstream_to_a_paid_answer(desk: Desk) -> None:
    assert (await desk.http.get("/v1/models")).json()["data"] == []
    async with FakeUpstream() as upstream:
        upstream.by_model[MODEL] = Script()
        wish = UpstreamWish(
            provider_type="openai-compatible",
            base_url=upstream.base_url,
            api_key="node-key",
            margin_percent=Decimal("12.5"),
            is_local=True,
        )
        await add_upstream(desk.ctx, "mine", wish)
        await refresh(desk.ctx)
        customer = await desk.create(1_000)
        refused = await desk.http.post(PATH, headers=customer.headers, json=order(MODEL))
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_model")
        assert "knows no price" in refused.json()["error"]["message"]
        priced = ModelWish(
            prices={"input": "1", "output": "2"}, context_length=1_000, aliases=["best"],
            sold_as="mine/best",
        )  # fmt: skip
        await set_model(desk.ctx, "mine", MODEL, priced)
        await refresh(desk.ctx)
        [shown] = (await desk.http.get("/v1/models")).json()["data"]
        assert (shown["id"], shown["alias_ids"]) == ("mine/best", ["best"])
        assert shown["pricing"]["prompt"] == 0.000001125
        answer = await desk.http.post(PATH, headers=customer.headers, json=order("best"))
        assert answer.status_code == 200, answer.text
        # 10 tokens in and 5 out, at 1.125 and 2.25 sat each thousand.
        assert answer.json()["usage"]["cost"]["total_msats"] == 23
        assert answer.headers["x-routstr-provider"] == "mine"
        [call] = [each for each in upstream.calls if each.method == "POST"]
        assert call.headers["authorization"] == "Bearer node-key"
        assert call.json["model"] == MODEL
    info = (await desk.http.get("/v1/info")).json()
    assert info["fees"]["markup_percent"] == 12.5


def files_below(directory: Path) -> dict[str, str]:
    found = [each for each in directory.rglob("*") if each.is_file()]
    return {each.name: each.read_bytes().decode("latin-1") for each in found}


CANARIES = ("0badc0de" * 4, "f00dface" * 4)  # like Azure's, which no pattern knows


async def test_no_key_of_an_upstream_shows_anywhere(
    desk: Desk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """T-13, for what the catalog keeps: answers, logs, the books and the database in the raw."""
    first, second = CANARIES
    seen: list[str] = []
    async with FakeUpstream() as upstream:
        echo = {"error": {"message": f"{first} may not do that", "type": first, "code": first}}
        upstream.by_model["m"] = Script(status=400, body=orjson.dumps(echo))
        wish = UpstreamWish(
            provider_type="openai-compatible",
            base_url=upstream.base_url,
            api_key=first,
            is_local=True,
        )
        await add_upstream(desk.ctx, "mine", wish)
        prices = ModelWish(prices={"input": "1", "output": "2"}, context_length=1_000)
        await set_model(desk.ctx, "mine", "m", prices, adds=True)
        route = RouteWish(path="/v1/tides", upstream="mine", price_msat=5)
        await set_route(desk.ctx, route)
        await refresh(desk.ctx)
        customer = await desk.create(1_000)
        for script in (Script(status=400, body=orjson.dumps(echo)), Script(status=401), Script()):
            upstream.by_model["m"] = script
            for body in (order("m"), {**order("m"), "stream": True}):
                answer = await desk.http.post(PATH, headers=customer.headers, json=body)
                seen += [answer.text, str(answer.headers)]
                receipt = f"/v1/receipts/{answer.headers['x-request-id']}"
                seen.append((await desk.http.get(receipt, headers=customer.headers)).text)
        for path in ("/v1/models", "/v1/info", "/ready", "/", "/v1/balance/transactions"):
            seen.append((await desk.http.get(path, headers=customer.headers)).text)
        called = [each for each in upstream.calls if each.method == "POST"]
        assert {each.headers["authorization"] for each in called} == {f"Bearer {first}"}
        await change_upstream(desk.ctx, "mine", UpstreamWish(api_key=second))
        with pytest.raises(InvalidParameter) as refused:
            await change_upstream(desk.ctx, "mine", UpstreamWish(api_key=f"{second}\n"))
        await refresh(desk.ctx)
    report = await audit(desk.ctx, full=True, deep=False)
    stored = await read_stored(desk.ctx)
    seen += [repr(report), repr(stored), repr(desk.ctx.catalog.picture), repr(refused.value)]
    seen += capsys.readouterr()
    files = files_below(tmp_path)
    assert any(name.endswith(".db") for name in files)
    seen += files.values()
    assert "upstream_rejected" in "".join(seen)
    for canary in CANARIES:
        assert not [each[:200] for each in seen if canary in each or canary[:16] in each]
