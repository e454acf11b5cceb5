"""What browser tests stand on: a real node with a real mint, and Debian's Chromium before it.

One node for the whole run: starting Chromium and a mint for each test would take minutes. A test
makes what it needs (keys, tokens) itself and leaves the rest alone. Whatever a page writes to its
console as an error fails the test that opened it.
"""

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright

from demo.mint import RealMint
from demo.servers import DemoUpstream
from tests.browser.operator import Operator, set_up
from tests.browser.visiting import House, Visitor, visiting
from tests.harness.process import NodeProcess

ARGUMENTS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--screenshots", type=Path, default=None, help="a folder to keep them in")


@pytest.fixture(scope="session")
def house(
    real_mint: RealMint,
    demo_upstream: DemoUpstream,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[House]:
    settings = {"CASHU_MINTS": real_mint.url, "UPSTREAM_BASE_URL": demo_upstream.api_url}
    with NodeProcess(tmp_path_factory.mktemp("house"), settings=settings) as node:
        yield House(node=node, mint=real_mint)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chromium() -> AsyncIterator[Browser]:
    path = shutil.which("chromium")
    assert path is not None, "install the system package chromium"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="session")
async def visitor(chromium: Browser, house: House) -> AsyncIterator[Visitor]:
    async with visiting(chromium, house) as visitor:
        yield visitor


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def operator(chromium: Browser, house: House) -> Operator:
    """He who set the node up."""
    return await set_up(chromium, house)
