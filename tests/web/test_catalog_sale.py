"""A node that the settings give no upstream: one is connected, and what it lists is bought."""

from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest

from routstr.flows.refresh import refresh
from routstr.flows.upstreams import ModelWish, UpstreamWish, add_upstream, set_model
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
