"""The wallet page: whole without a script, deaf to hostile names, and no door for one."""

import json
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal

import pytest

from routstr.web.pages.kit import STATIC, module_path
from routstr.web.pages.wallet import MODELS_MAX, dollars
from tests.harness.shop import CHAT_MODEL, Shop, open_shop
from tests.harness.till import ON_SQLITE

HOSTILE = "</script><script>alert(1)</script>\"'`{{7*7}}<img src=x onerror=alert(1)>"
HTML = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
LINES_MAX = 400


@pytest.fixture
async def shop(sqlite_url: str) -> AsyncIterator[Shop]:
    async with open_shop(
        sqlite_url, facts_name=HOSTILE, facts_description=HOSTILE, facts_mints=("https://mint.x",)
    ) as shop:
        yield shop


@ON_SQLITE
async def test_the_page_is_whole_without_a_script(database_url: str) -> None:
    async with open_shop(database_url, facts_mints=("https://mint.example/Bitcoin",)) as shop:
        answer = await shop.http.get("/", headers=HTML)
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["vary"] == "Accept"
        for said in ("mint.example/Bitcoin", "fake-model", "flat-model", "$1.20", "<noscript>"):
            assert said in answer.text
        assert f"http://127.0.0.1:{shop.port}/v1" in answer.text
        assert (await shop.http.get("/", headers={"accept": "*/*"})).json()["ui"] is True
        for origin in ("http://[", "https://a]", "https://evil.example"):
            answer = await shop.http.get("/", headers={**HTML, "origin": origin})
            assert (answer.status_code, origin in answer.text) == (200, False)


async def test_names_of_others_stay_text(shop: Shop) -> None:
    shop.sell({HOSTILE: replace(CHAT_MODEL, name=HOSTILE)})
    page = (await shop.http.get("/", headers=HTML)).text
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert "49" not in re.findall(r"<h1>(.*?)</h1>", page)[0]
    [block] = re.findall(r'<script type="application/json" id="w-models-data">(.*?)</script>', page)
    assert json.loads(block)[0]["id"] == HOSTILE


async def test_only_files_of_ours_may_run(shop: Shop) -> None:
    answer = await shop.http.get("/", headers=HTML)
    policy = answer.headers["content-security-policy"]
    for rule in ("default-src 'none'", "script-src 'self'", "require-trusted-types-for 'script'"):
        assert rule in policy
    assert "unsafe" not in policy
    for tag in re.findall(r"<script[^>]*>", answer.text):
        assert "src=" in tag or "application/json" in tag
    for address in re.findall(r'(?:src|href)="(/static/[^"]+)"', answer.text):
        assert (await shop.http.get(address)).status_code == 200


async def test_a_module_finds_its_neighbours(shop: Shop) -> None:
    folder = module_path("wallet.js").rpartition("/")[0]
    for script in STATIC.glob("wallet*.js"):
        text = script.read_text()
        assert text.count("\n") <= LINES_MAX, script.name
        for name in re.findall(r'from "\./([^"]+)"', text):
            assert (await shop.http.get(f"{folder}/{name}")).status_code == 200
        assert (
            re.search(r"innerHTML|outerHTML|insertAdjacentHTML|\beval\b|document\.write", text)
            is None
        )


async def test_a_thousand_models_are_not_one_page(shop: Shop) -> None:
    shop.sell({f"maker/model-{number}": CHAT_MODEL for number in range(MODELS_MAX + 7)})
    page = (await shop.http.get("/", headers=HTML)).text
    assert page.count("<tr data-model=") == MODELS_MAX
    assert "And 7 more" in page
    painted = shop.ctx.catalog.painted
    assert (await shop.http.get("/", headers=HTML)).text == page
    assert shop.ctx.catalog.painted is painted
    shop.sell({"only": CHAT_MODEL})
    assert "maker/model-1" not in (await shop.http.get("/", headers=HTML)).text


async def test_a_proxy_that_ends_tls_is_believed_for_its_own_host_only(shop: Shop) -> None:
    host = {"host": "node.example", **HTML}
    for origin, said in (
        ("https://node.example", "https://node.example/v1"),
        ("https://evil.example", "http://node.example/v1"),
    ):
        page = await shop.http.get("/", headers={**host, "origin": origin})
        assert said in page.text
        assert "evil" not in page.text


@pytest.mark.parametrize(
    ("amount", "said"),
    [("0", "$0.00"), ("0.15", "$0.15"), ("12.345", "$12.34"), ("0.00123", "$0.0012")],
)
def test_dollars(amount: str, said: str) -> None:
    assert dollars(Decimal(amount)) == said
