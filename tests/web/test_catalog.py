"""What the node says of itself: names, types, and prices that are exact."""

import json
import re
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest

from routstr.ecash.bdhke import is_point
from routstr.ecash.receipt_key import receipt_key
from tests.fakes.mint import FakeMint
from tests.harness.desk import Desk, open_desk

MODELS = [
    {
        "id": "maker/with/slashes",
        "name": "<b>Slashes</b>",
        "description": "A model",
        "context_length": 128_000,
        "max_output_tokens": 16_384,
        "input_msat_per_mtok": 150_000,
        "output_msat_per_mtok": 600_000,
        "request_msat": 7,
    },
    {
        "id": "plain",
        "context_length": 100,
        "max_output_tokens": 100,
        "input_msat_per_mtok": 1,
        "output_msat_per_mtok": 0,
    },
]


@pytest.fixture
async def desk(sqlite_url: str, tmp_path: Path) -> AsyncIterator[Desk]:
    models = tmp_path / "models.json"
    models.write_text(json.dumps({"models": MODELS}))
    async with (
        FakeMint() as mint,
        open_desk(
            sqlite_url,
            mint,
            tmp_path / "data",
            models_file=models,
            name="Node <1>",
            description="{curly} & sharp",
            npub="npub1x",
            http_url="https://node.example",
            btc_usd_price="65432.1",
        ) as desk,
    ):
        yield desk


async def test_home_for_programs_and_people(desk: Desk) -> None:
    answer = await desk.http.get("/")
    assert answer.json() == {
        "name": "Node <1>",
        "description": "{curly} & sharp",
        "version": answer.json()["version"],
        "status": "online",
        "ui": True,
    }
    page = await desk.http.get("/", headers={"accept": "text/html,*/*"})
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "Node &lt;1&gt;" in page.text
    assert "{curly} &amp; sharp" in page.text
    assert "<b>Slashes" not in page.text
    assert desk.mint.url in page.text


async def test_health_and_readiness(desk: Desk) -> None:
    assert (await desk.http.get("/health")).json() == {"status": "ok"}
    ready = await desk.http.get("/ready")
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")
    assert set(ready.json()["checks"]) == {"database", "ledger", "audit", "prices"}
    desk.ctx.ledger.stop()
    stopping = await desk.http.get("/ready")
    assert (stopping.status_code, stopping.json()["status"]) == (503, "not_ready")
    assert (await desk.http.get("/health")).status_code == 200


async def test_info(desk: Desk) -> None:
    body = (await desk.http.get("/v1/info")).json()
    assert body == {
        "name": "Node <1>",
        "description": "{curly} & sharp",
        "version": body["version"],
        "npub": "npub1x",
        "mints": [desk.mint.url],
        "p2pk_pubkey": body["p2pk_pubkey"],
        "receipt_pubkey": receipt_key(desk.ctx.wallet.seed).public,
        "http_url": "https://node.example",
        "onion_url": None,
        "child_key_cost_msats": 0,
        "max_request_bytes": 16 * 1024 * 1024,
        "refund_ttl_seconds": 30 * 86_400,
        "fees": {"platform_msats": 0, "markup_percent": 0},
    }
    assert is_point(body["p2pk_pubkey"])


@pytest.mark.parametrize("path", ["/v1/models", "/models"])
async def test_models(desk: Desk, path: str) -> None:
    answer = await desk.http.get(path)
    body = json.loads(answer.text, parse_float=Decimal)
    assert body["object"] == "list"
    assert [each["id"] for each in body["data"]] == ["maker/with/slashes", "plain"]
    first = body["data"][0]
    assert set(first) == {
        "id", "object", "created", "owned_by", "name", "description", "context_length",
        "architecture", "pricing", "sats_pricing", "per_request_limits", "top_provider",
        "supported_parameters", "enabled", "upstream_provider_id", "canonical_slug", "alias_ids",
        "forwarded_model_id", "price_version",
    }  # fmt: skip
    assert set(first["architecture"]) == {
        "modality", "input_modalities", "output_modalities", "tokenizer", "instruct_type",
    }  # fmt: skip
    assert set(first["pricing"]) == set(first["sats_pricing"]) == {
        "prompt", "completion", "input_cache_read", "input_cache_write", "internal_reasoning",
        "request", "image", "web_search", "max_prompt_cost", "max_completion_cost", "max_cost",
    }  # fmt: skip
    assert isinstance(first["upstream_provider_id"], str)
    assert first["price_version"].startswith("pv_")


async def test_prices_are_exact(desk: Desk) -> None:
    answer = await desk.http.get("/v1/models/maker/with/slashes")
    body = json.loads(answer.text, parse_float=Decimal)
    sats, usd = body["sats_pricing"], body["pricing"]
    assert sats["prompt"] == Decimal("0.00015")
    assert sats["completion"] == Decimal("0.0006")
    assert sats["request"] == Decimal("0.007")
    prompt, output = 128_000 - 16_384, 16_384
    assert sats["max_cost"] == (
        prompt * sats["prompt"] + output * sats["completion"] + sats["request"]
    ).quantize(Decimal("0.001"), rounding="ROUND_UP")
    assert usd["prompt"] == sats["prompt"] * Decimal("65432.1") / 10**8
    assert not re.search(r"\d[eE][+-]?\d", answer.text)  # older parsers know no exponent


async def test_the_price_version_names_the_prices(desk: Desk) -> None:
    versions = {each["price_version"] for each in (await desk.http.get("/models")).json()["data"]}
    assert len(versions) == 2


@pytest.mark.parametrize(
    "path", ["/v1/models/maker/with/slashes", "/models/maker%2Fwith%2Fslashes", "/models/plain"]
)
async def test_one_model(desk: Desk, path: str) -> None:
    answer = await desk.http.get(path)
    assert answer.status_code == 200
    assert answer.json()["object"] == "model"


@pytest.mark.parametrize("path", ["/v1/models/none", "/v1/models/", "/models/maker", "/v1/nothing"])
async def test_what_is_not_there(desk: Desk, path: str) -> None:
    answer = await desk.http.get(path)
    assert answer.status_code == 404
    assert answer.json()["error"]["type"] == "not_found_error"


@pytest.mark.parametrize("path", ["/", "/health", "/v1/info", "/v1/models"])
async def test_reading_only(desk: Desk, path: str) -> None:
    answer = await desk.http.delete(path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (405, "not_found")
