"""`routstr upstreams`, `models`, `routes` and `prices` at a fake upstream."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog
from typer.testing import CliRunner, Result

from routstr.cli.commands import command_line
from routstr.errors import ConfigError, RoutstrError
from tests.fakes.lister import FakeLister

KEY = "sk-ant-very-secret-key"
USD = {"prompt": "0.000001", "completion": "0.000002"}


@dataclass(slots=True, kw_only=True)
class Operator:
    """Somebody at the command line of one node, whose upstream lists some models."""

    settings: Mapping[str, str]
    lister: FakeLister

    async def run(self, *arguments: str, stdin: str | None = None) -> Result:
        """The command in this process: what it prints, and what it raises."""
        result = await asyncio.to_thread(
            CliRunner().invoke, command_line(), arguments, input=stdin or "", env=self.settings
        )
        assert KEY not in result.output
        return result

    async def said(self, *arguments: str, stdin: str | None = None) -> str:
        result = await self.run(*arguments, stdin=stdin)
        assert result.exception is None, result.exception
        return result.stdout.strip()

    async def json(self, *arguments: str) -> Any:
        return json.loads(await self.said(*arguments, "--json"))

    async def refusal(self, *arguments: str) -> str:
        result = await self.run(*arguments)
        assert isinstance(result.exception, RoutstrError | ConfigError), result.exception
        return str(result.exception)


@pytest.fixture
def own_logging() -> Iterator[None]:
    """A command sets up logging for its process, which here is the tests'."""
    root = logging.getLogger()
    handlers, level, raising = root.handlers[:], root.level, logging.raiseExceptions
    yield
    structlog.reset_defaults()
    root.handlers[:], logging.raiseExceptions = handlers, raising
    root.setLevel(level)


@pytest.fixture
async def operator(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_logging: None
) -> AsyncIterator[Operator]:
    monkeypatch.chdir(tmp_path)
    async with FakeLister() as lister:
        lister.answer = {
            "data": [
                {"id": "m", "context_length": 1000, "pricing": USD},
                {"id": "unpriced", "context_length": 1000},
            ]
        }
        settings = {
            "CASHU_MINTS": "https://mint.example",
            "ALLOW_LOOPBACK_HTTP": "true",
            "BTC_USD_PRICE": "100000",
            "SECRET_KEY": "s" * 32,
            "DATABASE_URL": sqlite_url,
            "DATA_DIR": str(tmp_path / "data"),
        }
        yield Operator(settings=settings, lister=lister)


async def test_an_upstream_from_its_key_to_its_prices(operator: Operator) -> None:
    url = operator.lister.base_url
    given = ("--url", url, "--margin", "10", "--key-file", "-")
    told = await operator.said("upstreams", "add", "mine", *given, stdin=f"{KEY}\n")
    assert told == "mine: 2 models, 1 of them sold; see `routstr models list`"
    assert operator.lister.seen[0].headers["authorization"] == f"Bearer {KEY}"
    await operator.said(
        *("models", "set", "mine", "unpriced", "--price", "input=0.5", "--price", "output=2"),
        *("--margin", "0", "--sell-as", "mine/priced"),
    )
    await operator.said("models", "alias", "mine", "m", "best", "latest")
    [upstream] = await operator.json("upstreams", "list")
    models = await operator.json("models", "list")
    table = await operator.said("models", "list")
    assert (upstream["margin_percent"], upstream["has_key"], upstream["sold"]) == ("10", True, 2)
    by_name = {each["model"]: each for each in models}
    m, own = by_name["m"], by_name["mine/priced"]
    assert (m["usd"]["input"], m["input_msat_per_mtok"]) == ("0.0000011", 1_100_000)
    assert m["aliases"] == ["best", "latest"]
    assert (own["output_msat_per_mtok"], own["usd_source"]) == (2_000_000, "operator")
    assert own["forwarded_as"] == "unpriced"
    assert "1100" in table
    refusal = await operator.refusal("upstreams", "add", "mine", "--url", url)
    assert refusal == "There is an upstream of that name already."


async def test_switches_routes_and_what_is_wrong(operator: Operator) -> None:
    url = operator.lister.base_url
    told = await operator.said("upstreams", "add", "mine", "--url", url, "--pick")
    assert told.startswith("mine: 2 models, 0 of them sold")
    await operator.said("models", "enable", "mine", "*")
    refreshed = await operator.json("prices", "refresh")
    assert (refreshed["sold"], refreshed["not_sold"], refreshed["btc_usd"]) == (1, 1, "100000")
    await operator.said("routes", "add", "/v1/weather", "--upstream", "mine", "--usd", "0.01")
    [route] = await operator.json("routes", "list")
    assert route == {
        "method": "POST", "path": "/v1/weather", "upstream": "mine", "upstream_path": "/weather",
        "price_msat": None, "price_usd": "0.01",
    }  # fmt: skip
    assert "a route needs it" in await operator.said("upstreams", "remove", "mine")
    await operator.said("routes", "remove", "/v1/weather")
    operator.lister.status = 401
    own = ("routes", "add", "--upstream", "mine", "--msat", "1")
    tested = await operator.refusal("upstreams", "test", "mine")
    assert tested == "mine: it answered with status 401 (check its key)"
    for start, *arguments in (
        ("'0' is no price of input.", "models", "set", "mine", "m", "--price", "input=0"),
        ("A margin is", "upstreams", "set", "mine", "--margin", "-1"),
        ("A margin is", "upstreams", "set", "mine", "--margin", "1e999999"),
        ("There is no upstream of that name.", "upstreams", "remove", "typo"),
        ("That path is not sold", "routes", "remove", "/v1/weather"),
        ("Say which --upstream", "routes", "add", "/v1/weather", "--msat", "1"),
        ("That path is the node's own", *own, "/v1/balance/info"),
        ("That path is the node's own", *own, "/models"),
        ("Say the base URL", "upstreams", "add", "nothing"),
        ("--key-file: there is no key in -", "upstreams", "set", "mine", "--key-file", "-"),
        ("That path cannot be used", *own, "/../admin"),
    ):
        assert (await operator.refusal(*arguments)).startswith(start)
    assert await operator.said("upstreams", "remove", "mine") == "mine is forgotten"


async def test_an_upstream_that_is_somebody_else_now(operator: Operator) -> None:
    assert "`routstr upstreams add" in await operator.said("upstreams", "list")
    await operator.said("upstreams", "add", "mine", "--url", operator.lister.base_url)
    assert "--unsold" in await operator.said("models", "list", "--search", "nothing")
    operator.lister.answer = {"data": [{"id": "n", "context_length": 1000, "pricing": USD}]}
    asked = len(operator.lister.seen)
    assert await operator.said("upstreams", "set", "mine", "--margin", "1") != ""
    assert len(operator.lister.seen) == asked
    told = await operator.said("upstreams", "set", "mine", "--key-file", "-", stdin=f"{KEY}\n")
    assert told == "mine: 3 models, 1 of them sold; see `routstr models list`"
    assert [each["model"] for each in await operator.json("models", "list")] == ["n"]
    operator.lister.status = 404
    url = operator.lister.base_url.removesuffix("/v1") + "/elsewhere"
    told = await operator.said("upstreams", "set", "mine", "--url", url)
    assert told.startswith("mine is kept, but it answered with status 404 (check the URL")
    assert len(operator.lister.seen) == asked + 2
    assert await operator.said("upstreams", "set", "mine", "--disable") == "mine is off"


async def test_names_that_are_taken_are_told(operator: Operator) -> None:
    operator.lister.answer = {
        "data": [{"id": name, "context_length": 1000, "pricing": USD} for name in ("m", "n", "o")]
    }
    await operator.said("upstreams", "add", "mine", "--url", operator.lister.base_url)
    assert await operator.said("models", "alias", "mine", "m", "best") == ""
    taken = await operator.run("models", "alias", "mine", "n", "best", "o", "fine")
    assert taken.stderr.splitlines() == [
        "best is kept, but it is taken: it leads to m",
        "o is kept, but it is taken: it leads to o",
    ]


async def test_a_table_takes_names_as_they_are(operator: Operator) -> None:
    names = ("m[beta]", "a[/b]", "[red]hidden")
    operator.lister.answer = {
        "data": [{"id": name, "context_length": 1000, "pricing": USD} for name in names]
    }
    await operator.said("upstreams", "add", "mine", "--url", operator.lister.base_url)
    table = await operator.said("models", "list")
    assert all(name in table for name in names)
