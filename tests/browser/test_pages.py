"""Every page, light and dark, on a desk and on a phone: no error, nothing sticks out, a picture.

`--screenshots FOLDER` keeps the pictures; what is on the pages was really bought and paid.
"""

from pathlib import Path
from typing import Final

import httpx
import pytest
from playwright.async_api import Browser, FloatRect, Page, expect

from tests.browser.operator import Operator
from tests.browser.visiting import DESKTOP, PHONE, House, Theme, visiting

pytestmark = pytest.mark.asyncio(loop_scope="session")

ROOMS: Final = (
    "",
    "keys",
    "models",
    "mints",
    "withdrawals",
    "invites",
    "audit",
    "jobs",
    "backups",
    "logs",
    "actions",
    "settings",
    "account",
)
SIZES: Final = {"desktop": DESKTOP, "phone": PHONE}
THEMES: Final[tuple[Theme, ...]] = ("light", "dark")
PICTURE_BYTES_MIN: Final = 5_000
HEIGHT_MAX: Final = 2400  # of a picture: the rest of a long list shows nothing new
WIDER: Final = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(scope="session")
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    chosen: Path | None = request.config.getoption("--screenshots")
    kept = chosen or tmp_path_factory.mktemp("screenshots")
    kept.mkdir(parents=True, exist_ok=True)
    return kept


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("theme", THEMES)
async def test_every_room_of_the_dashboard(
    theme: Theme,
    size: str,
    chromium: Browser,
    house: House,
    operator: Operator,
    folder: Path,
) -> None:
    key_id = await lived_in(house)
    state = operator.state
    async with visiting(chromium, house, theme=theme, size=SIZES[size], state=state) as visitor:
        page = visitor.page
        for room in (*ROOMS, f"keys/{key_id}", "jobs/audit"):
            await page.goto(f"/admin/{room}".rstrip("/"))
            await expect(page.get_by_role("heading", level=1)).to_be_visible()
            name = room.replace(f"/{key_id}", "-one").replace("/", "-") or "overview"
            await looked_at(page, folder / f"admin-{name}-{theme}-{size}.jpeg")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("theme", THEMES)
async def test_the_doors(
    theme: Theme, size: str, chromium: Browser, house: House, operator: Operator, folder: Path
) -> None:
    async with visiting(chromium, house, theme=theme, size=SIZES[size]) as visitor:
        for name, path in {"wallet": "/", "login": "/admin/login"}.items():
            await visitor.page.goto(path)
            await looked_at(visitor.page, folder / f"{name}-{theme}-{size}.jpeg")


async def lived_in(house: House) -> str:
    """Something bought and something taken out; the key that did it. Once for all tests."""
    if not house.key_ids:
        key = await house.key(500)
        async with httpx.AsyncClient(
            base_url=house.node.url, headers=key.headers, trust_env=False, timeout=30
        ) as http:
            for model in ("demo/small", "demo/large"):
                messages = [{"role": "user", "content": "What is ecash good for?"}]
                order = {"model": model, "messages": messages, "max_tokens": 100}
                assert (await http.post("/v1/chat/completions", json=order)).is_success
            assert (await http.post("/v1/balance/refund", json={"amount_sats": 21})).is_success
        house.key_ids.append(key.key_id)
    return house.key_ids[0]


async def looked_at(page: Page, path: Path) -> None:
    """A picture of it, once it is there; nothing is wider than the window."""
    await page.wait_for_load_state("load")
    assert await page.evaluate(WIDER) <= 0, page.url
    width = page.viewport_size["width"] if page.viewport_size else DESKTOP[0]
    height = await page.evaluate("document.documentElement.scrollHeight")
    clip = FloatRect(x=0, y=0, width=width, height=min(height, HEIGHT_MAX))
    picture = await page.screenshot(path=path, type="jpeg", quality=60, full_page=True, clip=clip)
    assert len(picture) > PICTURE_BYTES_MIN
